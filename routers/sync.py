"""GET /sync/since: changes and deletions in their order, for clients that keep a copy."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from core import sync
from core.errors import InvalidInput, ResyncRequired, Unauthorized, Unavailable
from core.sync import Cursor
from routers.answers import METERED, Answer, failures
from routers.deps import Reader
from routers.inputs import bad_cursor, text_cursor, texts_of
from storage.memory_store import Memory

router = APIRouter(
    prefix="/sync",
    tags=["sync"],
    responses=failures(InvalidInput, Unauthorized, ResyncRequired, Unavailable, *METERED),
)


class Change(BaseModel):
    """`memory` is null where it was deleted."""

    id: UUID
    deleted: bool
    memory: Memory | None


class Changes(BaseModel):
    changes: list[Change]
    next_cursor: str | None
    more: bool


@router.get("/since")
async def changes_since(
    caller: Reader,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Answer[Changes]:
    """What changed behind `cursor`, or everything without one; `next_cursor` is to be kept."""
    found = await sync.since(caller.resources.db, caller.user.id, _read(cursor), limit)
    changes = [Change(id=c.id, deleted=c.memory is None, memory=c.memory) for c in found.changes]
    return Answer(
        data=Changes(changes=changes, next_cursor=_written(found.cursor), more=found.more)
    )


def _read(cursor: str | None) -> Cursor | None:
    if cursor is None:
        return None
    epoch, change_seq, purged = texts_of(cursor, 3)
    try:
        read = Cursor(UUID(epoch), int(change_seq), int(purged))
    except ValueError as error:
        raise bad_cursor() from error
    if not 0 <= read.change_seq < 2**63 or not 0 <= read.purged < 2**63:
        raise bad_cursor()
    return read


def _written(cursor: Cursor | None) -> str | None:
    return text_cursor(cursor.epoch, cursor.change_seq, cursor.purged) if cursor else None
