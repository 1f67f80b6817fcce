"""Follow a user's changes from a cursor, or say that it leads nowhere any more."""

from dataclasses import dataclass
from uuid import UUID

from core.errors import ResyncRequired
from storage import sync
from storage.database import Pool, acting_as
from storage.sync import Change


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands. `purged` is what was purged before it began, and so not missed."""

    epoch: UUID
    change_seq: int
    purged: int


@dataclass(frozen=True, slots=True)
class Changes:
    """`more` says whether changes wait behind `cursor` already, which is None before the first."""

    changes: list[Change]
    cursor: Cursor | None
    more: bool


async def since(pool: Pool, user_id: UUID, cursor: Cursor | None, limit: int) -> Changes:
    """Raises ResyncRequired where the cursor is of another epoch, or from before a purge."""
    async with acting_as(pool, user_id) as conn:
        state = await sync.state(conn, user_id)
        if state is None:
            if cursor:
                raise ResyncRequired
            return Changes([], None, more=False)
        start = cursor or Cursor(state.epoch, 0, state.purged_through)
        if (
            start.epoch != state.epoch
            or start.change_seq > state.change_seq
            or max(start.change_seq, start.purged) < state.purged_through
        ):
            raise ResyncRequired
        found = await sync.page(conn, user_id, start.change_seq, state.change_seq, limit)
    reached = found[-1].change_seq if found else state.change_seq
    # A page that bytes have cut short is not the last one, however few changes it holds.
    more = bool(found) and reached < state.change_seq
    return Changes(found, Cursor(state.epoch, reached, start.purged), more)
