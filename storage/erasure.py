"""Erasing everything of one person, table after table."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from uuid import UUID

from storage.database import Connection, Pool, transaction

# Few enough that a transaction of them is short, and no other person's write waits for it.
ROWS_AT_ONCE = 2_000
# Who writes rows of a person without the lock on `user_state` takes this one, shared, and then
# asks whether the account was erased; "MLerased".
LOCK = 0x4D4C657261736564


def acting_as_eraser(
    pool: Pool, user_id: UUID | None = None
) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction that can take away the rows of `user_id` alone."""
    acting = user_id.hex if user_id else ""
    setting = f"SET LOCAL lock_timeout = '30s'; SET LOCAL memory_layer.user_ids = '{{{acting}}}'"
    return transaction(pool, "memory_layer_eraser", setting)


async def mark(pool: Pool, user_id: UUID) -> datetime:
    """Close the account: when this returns, no write of this person commits any more."""
    async with acting_as_eraser(pool, user_id) as conn:
        # Their limits, numbers and whatever else the row may hold go with it.
        await conn.execute("DELETE FROM memory_layer.user_state WHERE user_id = $1", user_id)
        erased_at: datetime = await conn.fetchval(
            """
            INSERT INTO memory_layer.user_state AS s (user_id, erased_at, erasure_pending)
            VALUES ($1, now(), true)
                ON CONFLICT (user_id) DO UPDATE
               SET erased_at = now(), erasure_pending = true, epoch = gen_random_uuid()
            RETURNING erased_at
            """,
            user_id,
        )
        await conn.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
    return erased_at


async def erase(pool: Pool, user_id: UUID) -> Mapping[str, int]:
    """Take away all rows of a marked account; return how many there were, by table."""
    erased: Counter[str] = Counter()
    while True:
        async with acting_as_eraser(pool, user_id) as conn:
            row = await conn.fetchrow(
                "SELECT kind, n FROM memory_layer.erase_some($1, $2)", user_id, ROWS_AT_ONCE
            )
        if row is None:
            return erased
        erased[row["kind"]] += row["n"]


async def finish(pool: Pool, user_id: UUID) -> None:
    async with acting_as_eraser(pool, user_id) as conn:
        await conn.execute(
            "UPDATE memory_layer.user_state SET erasure_pending = false WHERE user_id = $1",
            user_id,
        )


async def unfinished(pool: Pool, limit: int) -> list[UUID]:
    """Accounts whose erasure was cut short, and those to which a late write may have come."""
    async with acting_as_eraser(pool) as conn:
        rows = await conn.fetch(
            """
            SELECT user_id FROM memory_layer.user_state
             WHERE erased_at IS NOT NULL
               AND (erasure_pending OR erased_at > now() - interval '1 hour')
             ORDER BY erased_at LIMIT $1
            """,
            limit,
        )
    return [row["user_id"] for row in rows]


async def erased_since(pool: Pool, moment: datetime | None) -> tuple[datetime, set[UUID]]:
    """Return the database's time and who was erased after `moment`; nobody when it is None."""
    async with acting_as_eraser(pool) as conn:
        rows = await conn.fetch(
            """
            SELECT now() AS now, s.user_id FROM (VALUES (1)) AS always
              LEFT JOIN memory_layer.user_state s ON s.erased_at > $1
            """,
            moment,
        )
    return rows[0]["now"], {row["user_id"] for row in rows if row["user_id"]}
