"""Taking away what is old. Policies of the janitor's role say the same again, in the database."""

from uuid import UUID

from storage.database import Connection

# The migrations 0006 bind the role to them too, and let it take no tombstone of the last 30 days. A
# tombstone is the id alone: it stays so long that no client and no old export brings it back.
TOMBSTONE_DAYS, TOKEN_DAYS, USE_DAYS, MARK_DAYS = 400, 30, 400, 8


async def users_with_old_tombstones(conn: Connection, limit: int) -> list[UUID]:
    rows = await conn.fetch(
        """
        SELECT DISTINCT user_id FROM (
            SELECT user_id FROM memory_layer.memories
             WHERE deleted_at < now() - make_interval(days => $1)
             ORDER BY deleted_at LIMIT $2) AS oldest
         ORDER BY user_id
        """,
        TOMBSTONE_DAYS,
        limit,
    )
    return [row["user_id"] for row in rows]


async def purge_tombstones(conn: Connection, user_id: UUID, limit: int) -> int:
    """Take away a user's oldest, and let readers who have not seen them know that they missed some.

    The user's row is locked before any other, as in every transaction that writes memories.
    """
    await conn.execute("SELECT FROM memory_layer.user_state WHERE user_id = $1 FOR UPDATE", user_id)
    purged: int = await conn.fetchval(
        """
        WITH gone AS (
            DELETE FROM memory_layer.memories
             WHERE user_id = $1 AND id IN (
                   SELECT id FROM memory_layer.memories
                    WHERE user_id = $1 AND deleted_at < now() - make_interval(days => $2)
                    LIMIT $3)
            RETURNING change_seq
        ), said AS (
            UPDATE memory_layer.user_state
               SET purged_through = greatest(purged_through, (SELECT max(change_seq) FROM gone))
             WHERE user_id = $1
        )
        SELECT count(*) FROM gone
        """,
        user_id,
        TOMBSTONE_DAYS,
        limit,
    )
    return purged


async def purge_daily_use(conn: Connection, limit: int) -> int:
    done = await conn.execute(
        """
        DELETE FROM memory_layer.daily_use WHERE (user_id, day) IN (
            SELECT user_id, day FROM memory_layer.daily_use
             WHERE day < current_date - $1::integer LIMIT $2)
        """,
        USE_DAYS,
        limit,
    )
    return int(done.removeprefix("DELETE "))


async def purge_tokens(conn: Connection, limit: int) -> int:
    done = await conn.execute(
        """
        DELETE FROM memory_layer.api_tokens WHERE (user_id, id) IN (
            SELECT user_id, id FROM memory_layer.api_tokens
             WHERE expires_at < now() - make_interval(days => $1) LIMIT $2)
        """,
        TOKEN_DAYS,
        limit,
    )
    return int(done.removeprefix("DELETE "))


async def old_marks(conn: Connection, limit: int) -> list[UUID]:
    """Erased accounts whose last access tokens have expired."""
    rows = await conn.fetch(
        """
        SELECT user_id FROM memory_layer.user_state
         WHERE erased_at < now() - make_interval(days => $1) AND NOT erasure_pending
         ORDER BY erased_at LIMIT $2
        """,
        MARK_DAYS,
        limit,
    )
    return [row["user_id"] for row in rows]


async def remove_mark(conn: Connection, user_id: UUID) -> None:
    await conn.execute(
        """
        DELETE FROM memory_layer.user_state
         WHERE user_id = $1 AND erased_at < now() - make_interval(days => $2)
        """,
        user_id,
        MARK_DAYS,
    )
