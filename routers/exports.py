"""GET /export/full: everything of a person, in a zip, as it is made."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, StringConstraints

from core.errors import Conflict, InvalidInput, Unauthorized, Unavailable
from routers.answers import METERED, failures
from routers.deps import Reader, SignedIn
from routers.inputs import storable

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


class Export(StreamingResponse):
    media_type = "application/zip"


router = APIRouter(
    prefix="/export",
    tags=["export"],
    responses=failures(InvalidInput, Unauthorized, Conflict, Unavailable, *METERED),
    default_response_class=Export,
)


class Sealed(BaseModel):
    """`age` opens the file with the same passphrase, as does `python main.py decrypt`."""

    passphrase: Annotated[
        str, StringConstraints(min_length=8, max_length=1_000), AfterValidator(storable)
    ]


@router.get("/full", responses={200: {"content": {"application/zip": _BINARY}}})
async def export_all(caller: Reader) -> Export:
    """All memories: JSON Lines, which can be imported again, Markdown, and a manifest."""
    return await _export(caller, None)


@router.post("/full", responses={200: {"content": {"application/octet-stream": _BINARY}}})
async def export_all_sealed(body: Sealed, caller: Reader) -> Export:
    """The same, encrypted with a passphrase that is kept nowhere."""
    return await _export(caller, body.passphrase)


async def _export(caller: SignedIn, passphrase: str | None) -> Export:
    parts = await caller.resources.past.exports.begin(caller.user.id, passphrase)
    name = f"memory-layer-{datetime.now(UTC):%Y-%m-%d}.zip{'.age' if passphrase else ''}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    kind = "application/octet-stream" if passphrase else "application/zip"
    return Export(parts, headers=headers, media_type=kind)
