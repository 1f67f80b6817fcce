"""Deleted memories: list, restore, purge."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from core import trash
from core.errors import Forbidden, InvalidInput, NotFound, Unauthorized, Unavailable
from routers.answers import METERED, Answer, failures
from routers.deps import FreeWriter, Reader, Writer
from routers.inputs import cursor_of, memory_cursor
from storage import trash as trash_store
from storage.database import acting_as
from storage.memory_store import Memory

router = APIRouter(
    prefix="/trash",
    tags=["trash"],
    responses=failures(InvalidInput, Unauthorized, Unavailable),
)


class Trashed(BaseModel):
    """A deleted memory, which is forgotten at `purged_at`."""

    memory: Memory
    deleted_at: datetime
    purged_at: datetime


class TrashPage(BaseModel):
    memories: list[Trashed]
    next_cursor: str | None


class Purged(BaseModel):
    purged: int


@router.get("", responses=failures(*METERED))
async def list_trash(
    caller: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 20, cursor: str | None = None
) -> Answer[TrashPage]:
    """List what was deleted within 30 days, the latest first."""
    start = memory_cursor(cursor)
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        found = await trash_store.page(conn, caller.user.id, start, limit + 1)
    shown = [
        Trashed(memory=t.memory, deleted_at=t.deleted_at, purged_at=t.deleted_at + trash.KEPT_FOR)
        for t in found[:limit]
    ]
    more = len(found) > limit
    last = cursor_of(shown[-1].deleted_at, shown[-1].memory.id) if more else None
    return Answer(data=TrashPage(memories=shown, next_cursor=last))


@router.post("/{memory_id}/restore", responses=failures(Forbidden, NotFound, *METERED))
async def restore_memory(memory_id: UUID, caller: Writer) -> Answer[Memory]:
    """Bring a memory back as it was. Search finds it at once by words and soon by meaning."""
    restored = await trash.restore(caller.resources.db, caller.user.id, memory_id)
    if caller.resources.worker:
        caller.resources.worker.wake()
    return Answer(data=restored)


@router.delete("/{memory_id}", responses=failures(Forbidden, NotFound))
async def purge_memory(memory_id: UUID, caller: FreeWriter) -> Answer[None]:
    """Forget a deleted memory now. Nothing brings it back, nor any retry."""
    await trash.purge(caller.resources.db, caller.user.id, memory_id)
    caller.resources.retrieval.forget(caller.user.id)
    return Answer(data=None)


@router.delete("")
async def empty_trash(caller: FreeWriter) -> Answer[Purged]:
    """Forget all that was deleted, now."""
    purged = await trash.empty(caller.resources.db, caller.user.id)
    caller.resources.retrieval.forget(caller.user.id)
    return Answer(data=Purged(purged=purged))
