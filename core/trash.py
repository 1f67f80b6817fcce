"""The trash: deleted memories can be restored for 30 days, and are forgotten then."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from core.memories import lock, refuse
from storage import memory_store, trash
from storage.database import Connection, Pool, acting_as, acting_as_worker
from storage.memory_store import Memory

KEPT_FOR = timedelta(days=30)
# Of one transaction, which holds the user's lock.
BATCH = 500


async def restore(pool: Pool, user_id: UUID, memory_id: UUID) -> Memory:
    async with acting_as(pool, user_id) as conn:
        number = await lock(conn, user_id)
        if not await trash.restore(conn, user_id, memory_id, number):
            await refuse(conn, memory_id)
        return await memory_store.read(conn, user_id, memory_id) or await refuse(conn, memory_id)


async def purge(pool: Pool, user_id: UUID, memory_id: UUID) -> None:
    """Forget one deleted memory now."""
    async with acting_as(pool, user_id) as conn:
        await lock(conn, user_id, 0)
        if not await trash.purge(conn, user_id, 1, memory_id=memory_id):
            await refuse(conn, memory_id)


async def empty(pool: Pool, user_id: UUID) -> int:
    """Forget all that the user has deleted; return how many memories went."""
    return await _in_batches(lambda: acting_as(pool, user_id), user_id, None)


async def purge_expired(pool: Pool) -> int:
    """Forget everybody's memories that were deleted KEPT_FOR ago; return how many went."""
    before = datetime.now(UTC) - KEPT_FOR
    async with acting_as_worker(pool) as conn:
        users = await trash.users_with_expired(conn, before)
    return sum([await _in_batches(lambda: acting_as_worker(pool), user, before) for user in users])


async def _in_batches(
    begin: Callable[[], AbstractAsyncContextManager[Connection]],
    user_id: UUID,
    before: datetime | None,
) -> int:
    purged = 0
    while True:
        async with begin() as conn:
            await lock(conn, user_id, 0)
            gone = await trash.purge(conn, user_id, BATCH, before=before)
        purged += gone
        if gone < BATCH:
            return purged
