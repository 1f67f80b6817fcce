"""A person's memories: list, read, edit, delete."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

from core import memories
from core.errors import (
    ChangedMeanwhile,
    Forbidden,
    InvalidInput,
    MissingScope,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from routers.answers import METERED, Answer, failures
from routers.deps import FreeWriter, Reader, Writer
from routers.inputs import (
    LongText,
    Metadata,
    Prompt,
    Provider,
    ShortText,
    Time,
    cursor_of,
    make_filters,
    memory_cursor,
)
from storage import memory_store
from storage.memory_store import Memory
from storage.versions import Version

router = APIRouter(
    prefix="/memories",
    tags=["memories"],
    responses=failures(InvalidInput, Unauthorized, Unavailable, *METERED),
)
Limit = Annotated[int, Query(ge=1, le=100)]


class Page(BaseModel):
    memories: list[Memory]
    next_cursor: str | None


class Versions(BaseModel):
    versions: list[Version]


class Changes(BaseModel):
    """At least one of these; a field that is left out stays as it is."""

    prompt: Prompt | None = None
    response: LongText | None = None
    conversation_title: ShortText | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _something(self) -> "Changes":
        if not self.model_dump(exclude_none=True):
            raise PydanticCustomError("empty", "must name something to change")
        return self


def make_page(found: list[Memory], limit: int) -> Page:
    """`found` holds one memory more than the page where there is a next one."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(
        memories=shown,
        next_cursor=cursor_of(shown[-1].occurred_at, shown[-1].id) if more else None,
    )


@router.get("")
async def list_memories(
    caller: Reader,
    limit: Limit = 20,
    cursor: str | None = None,
    provider: Annotated[Provider | None, Query()] = None,
    conversation_id: Annotated[ShortText | None, Query()] = None,
    after: Annotated[Time | None, Query()] = None,
    before: Annotated[Time | None, Query()] = None,
) -> Answer[Page]:
    """List memories, newest first; `next_cursor` leads on while there are more."""
    filters = make_filters(provider, conversation_id, after, before)
    start = memory_cursor(cursor)
    found = await memory_store.newest(
        caller.resources.db, caller.user.id, filters, start, limit + 1
    )
    return Answer(data=make_page(found, limit))


@router.get("/{memory_id}", responses=failures(Forbidden, NotFound, *METERED))
async def read_memory(memory_id: UUID, caller: Reader, response: Response) -> Answer[Memory]:
    """Read a memory; its `ETag` names this state of it, for `If-Match`."""
    memory = await memories.read(caller.resources.db, caller.user.id, memory_id)
    return _stated(memory, response)


@router.patch(
    "/{memory_id}",
    responses=failures(Forbidden, NotFound, ChangedMeanwhile, TooLarge, *METERED),
)
async def edit_memory(
    memory_id: UUID,
    changes: Changes,
    caller: Writer,
    response: Response,
    if_match: Annotated[str | None, Header(max_length=1_000)] = None,
) -> Answer[Memory]:
    """Correct a memory; what it was stays a version. Search follows at once by words and soon by
    meaning. With `If-Match`, only if it still is as it was read."""
    columns = changes.model_dump(exclude_none=True)
    edited = await memories.edit(caller.resources.db, caller.user.id, memory_id, columns, if_match)
    if caller.resources.worker:
        caller.resources.worker.wake()
    return _stated(edited, response)


def _stated(memory: Memory, response: Response) -> Answer[Memory]:
    response.headers["ETag"] = memories.etag_of(memory)
    return Answer(data=memory)


@router.delete("/{memory_id}", responses=failures(Forbidden, MissingScope, NotFound))
async def delete_memory(memory_id: UUID, caller: FreeWriter) -> Answer[None]:
    """Move a memory to the trash; it is gone from everywhere else at once, and no retry brings it
    back."""
    await memories.delete(caller.resources.db, caller.user.id, memory_id)
    return Answer(data=None)


@router.get("/{memory_id}/versions", responses=failures(Forbidden, NotFound, *METERED))
async def list_versions(memory_id: UUID, caller: Reader) -> Answer[Versions]:
    """List what a memory was before it was edited, the latest first."""
    found = await memories.list_versions(caller.resources.db, caller.user.id, memory_id)
    return Answer(data=Versions(versions=found))


@router.post(
    "/{memory_id}/versions/{number}/restore",
    responses=failures(Forbidden, NotFound, *METERED),
)
async def restore_version(
    memory_id: UUID,
    number: Annotated[int, Path(ge=1, le=2**31 - 1)],
    caller: Writer,
    response: Response,
) -> Answer[Memory]:
    """Make a memory again what it was; what it is now stays a version."""
    restored = await memories.restore_version(
        caller.resources.db, caller.user.id, memory_id, number
    )
    if caller.resources.worker:
        caller.resources.worker.wake()
    return _stated(restored, response)
