"""POST /import and what becomes of it: a person's past, as the assistants export it."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from core.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    TooLarge,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from core.import_jobs import Standing
from routers.answers import METERED, Answer, failures
from routers.deps import FreeReader, FreeWriter, Writer
from routers.inputs import ShortText
from routers.uploads import file_in_form
from storage.imports import Job

router = APIRouter(
    prefix="/import",
    tags=["import"],
    responses=failures(InvalidInput, Unauthorized, Unavailable),
)
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True, slots=True)
class LiveImport(Job):
    """`to_embed` counts all memories that wait for their vectors, above a thousand about; words
    find them already."""

    to_embed: int


class Imports(BaseModel):
    imports: list[Job]


def _live(standing: Standing) -> LiveImport:
    return LiveImport(**asdict(standing.job), to_embed=standing.to_embed)


@router.post(
    "",
    status_code=202,
    openapi_extra=_BODY,
    responses=failures(Conflict, TooLarge, TooSlow, *METERED),
)
async def import_file(
    request: Request, caller: Writer, name: Annotated[ShortText | None, Query()] = None
) -> Answer[Job]:
    """Upload an export, as a form's file or as the body itself; it is imported behind the answer.
    Whatever it holds, it costs one request."""
    chunks: AsyncIterator[bytes] = request.stream()
    kind, file_name = request.headers.get("content-type", ""), name
    if kind.startswith("multipart/form-data"):
        form_name, chunks = await file_in_form(kind, chunks)
        file_name = name or form_name
    job = await caller.resources.past.imports.receive(caller.user.id, file_name, chunks)
    return Answer(data=job)


@router.get("")
async def list_imports(caller: FreeReader) -> Answer[Imports]:
    """List the latest 50 imports and all unfinished ones, the latest first."""
    jobs = await caller.resources.past.imports.listed(caller.user.id)
    return Answer(data=Imports(imports=jobs))


@router.get("/{import_id}", responses=failures(NotFound))
async def read_import(import_id: UUID, caller: FreeReader) -> Answer[LiveImport]:
    """How far an import is."""
    return Answer(data=_live(await caller.resources.past.imports.read(caller.user.id, import_id)))


@router.post("/{import_id}/cancel", responses=failures(NotFound))
async def cancel_import(import_id: UUID, caller: FreeWriter) -> Answer[LiveImport]:
    """Stop an import; what it has brought stays."""
    return Answer(data=_live(await caller.resources.past.imports.cancel(caller.user.id, import_id)))
