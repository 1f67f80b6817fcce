"""A person's memories: list, read, edit, delete."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

from core import memories
from core.errors import (
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
from storage.database import acting_as
from storage.memory_store import Memory

router = APIRouter(
    prefix="/memories",
    tags=["memories"],
    responses=failures(InvalidInput, Unauthorized, Unavailable, *METERED),
)
Limit = Annotated[int, Query(ge=1, le=100)]


class Page(BaseModel):
    memories: list[Memory]
    next_cursor: str | None


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
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        found = await memory_store.page(conn, caller.user.id, filters, start, limit + 1)
    return Answer(data=make_page(found, limit))


@router.get("/{memory_id}", responses=failures(Forbidden, NotFound, *METERED))
async def read_memory(memory_id: UUID, caller: Reader) -> Answer[Memory]:
    return Answer(data=await memories.read(caller.resources.db, caller.user.id, memory_id))


@router.patch(
    "/{memory_id}",
    responses=failures(Forbidden, NotFound, TooLarge, *METERED),
)
async def edit_memory(memory_id: UUID, changes: Changes, caller: Writer) -> Answer[Memory]:
    """Correct a memory. Search follows at once by words and soon by meaning."""
    columns = changes.model_dump(exclude_none=True)
    edited = await memories.edit(caller.resources.db, caller.user.id, memory_id, columns)
    if caller.resources.worker:
        caller.resources.worker.wake()
    return Answer(data=edited)


@router.delete("/{memory_id}", responses=failures(Forbidden, MissingScope, NotFound))
async def delete_memory(memory_id: UUID, caller: FreeWriter) -> Answer[None]:
    """Delete a memory; its text is gone at once, and no retry brings it back."""
    await memories.delete(caller.resources.db, caller.user.id, memory_id)
    return Answer(data=None)
