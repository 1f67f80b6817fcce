"""What the operator sees of all users: counts, plans and use, never a text."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from storage.database import Connection


class Standing(NamedTuple):
    """What stands for one user; a tier and limits of None are the service's defaults."""

    user_id: UUID
    tier: str | None
    per_minute: int | None
    per_day: int | None
    memories: int
    changed_at: datetime | None
    last_day: date | None
    requests_today: int
    refused_today: int
    tokens_today: int


class Today(NamedTuple):
    """`tokens` are those that the operator's keys paid at model providers."""

    users: int
    requests: int
    refused: int
    tokens: int


class Busy(NamedTuple):
    user_id: UUID
    requests: int
    refused: int


class Account(NamedTuple):
    """A user as the sign-in knows it; `name` is the user's own word, like the e-mail address."""

    id: UUID
    email: str | None
    name: str | None
    created_at: datetime | None
    last_sign_in_at: datetime | None


async def count_stale(conn: Connection, most: int) -> int:
    """Count the memories of `most` users who changed since they were counted; say how many."""
    done = await conn.execute(
        """
        WITH stale AS (
            SELECT s.user_id, s.change_seq FROM memory_layer.user_state s
              LEFT JOIN memory_layer.user_totals t USING (user_id)
             WHERE t.change_seq IS DISTINCT FROM s.change_seq AND s.erased_at IS NULL
             ORDER BY s.user_id LIMIT $1
        )
        INSERT INTO memory_layer.user_totals AS t (user_id, memories, change_seq, changed_at)
        SELECT user_id,
               (SELECT count(*) FROM memory_layer.memories m
                 WHERE m.user_id = stale.user_id AND m.deleted_at IS NULL),
               change_seq,
               (SELECT m.updated_at FROM memory_layer.memories m
                 WHERE m.user_id = stale.user_id ORDER BY m.change_seq DESC LIMIT 1)
          FROM stale
            ON CONFLICT (user_id) DO UPDATE SET
               memories = EXCLUDED.memories,
               change_seq = EXCLUDED.change_seq,
               changed_at = EXCLUDED.changed_at
        """,
        most,
    )
    return int(done.rpartition(" ")[2])


async def forget_totals_of_the_gone(conn: Connection) -> None:
    await conn.execute(
        """
        DELETE FROM memory_layer.user_totals t
         WHERE NOT EXISTS (SELECT FROM memory_layer.user_state s
                            WHERE s.user_id = t.user_id AND s.erased_at IS NULL)
        """
    )


async def memories(conn: Connection) -> int:
    """Return the sum of the counts, which are renewed every few seconds."""
    return (
        await conn.fetchval(
            "SELECT coalesce(sum(memories), 0)::bigint FROM memory_layer.user_totals"
        )
        or 0
    )


async def users_by_tier(conn: Connection) -> dict[str | None, int]:
    """Return how many users have each tier, None being the default; all who ever called count."""
    rows = await conn.fetch(
        """
        SELECT tier, count(*) AS users FROM memory_layer.user_state
         WHERE erased_at IS NULL GROUP BY tier
        """
    )
    return {row["tier"]: row["users"] for row in rows}


async def accounts_at_home(conn: Connection) -> int:
    return await conn.fetchval("SELECT count(*) FROM memory_layer_auth.users") or 0


async def use_of(conn: Connection, day: date) -> Today:
    row = await conn.fetchrow(
        """
        SELECT count(*) AS users, coalesce(sum(requests), 0)::bigint AS requests,
               coalesce(sum(refused), 0)::bigint AS refused,
               coalesce(sum(tokens), 0)::bigint AS tokens
          FROM memory_layer.daily_use WHERE day = $1
        """,
        day,
    )
    return Today(**row) if row else Today(0, 0, 0, 0)


async def busiest(conn: Connection, day: date, limit: int) -> list[Busy]:
    rows = await conn.fetch(
        """
        SELECT user_id, requests, refused FROM memory_layer.daily_use
         WHERE day = $1 ORDER BY requests DESC, user_id LIMIT $2
        """,
        day,
        limit,
    )
    return [Busy(**row) for row in rows]


async def most_refused(conn: Connection, since: date, limit: int) -> list[Busy]:
    rows = await conn.fetch(
        """
        SELECT user_id, sum(requests)::bigint AS requests, sum(refused)::bigint AS refused
          FROM memory_layer.daily_use WHERE day >= $1 AND refused > 0
         GROUP BY user_id ORDER BY 3 DESC, user_id LIMIT $2
        """,
        since,
        limit,
    )
    return [Busy(**row) for row in rows]


async def most_tokens(conn: Connection, day: date, limit: int) -> list[UUID]:
    rows = await conn.fetch(
        """
        SELECT user_id FROM memory_layer.daily_use
         WHERE day = $1 AND tokens > 0 ORDER BY tokens DESC, user_id LIMIT $2
        """,
        day,
        limit,
    )
    return [row["user_id"] for row in rows]


async def with_overrides(conn: Connection, limit: int) -> list[UUID]:
    rows = await conn.fetch(
        """
        SELECT user_id FROM memory_layer.user_state
         WHERE (per_minute IS NOT NULL OR per_day IS NOT NULL) AND erased_at IS NULL
         ORDER BY user_id LIMIT $1
        """,
        limit,
    )
    return [row["user_id"] for row in rows]


async def standings(conn: Connection, user_ids: Sequence[UUID], today: date) -> list[Standing]:
    """Return one for each id, in their order, also for users who have never called."""
    rows = await conn.fetch(
        """
        SELECT w.user_id, s.tier, s.per_minute, s.per_day,
               coalesce(t.memories, 0) AS memories, t.changed_at, last.day AS last_day,
               coalesce(d.requests, 0) AS requests_today, coalesce(d.refused, 0) AS refused_today,
               coalesce(d.tokens, 0) AS tokens_today
          FROM unnest($1::uuid[]) WITH ORDINALITY AS w (user_id, n)
          LEFT JOIN memory_layer.user_state s ON s.user_id = w.user_id
          LEFT JOIN memory_layer.user_totals t ON t.user_id = w.user_id
          LEFT JOIN memory_layer.daily_use d ON d.user_id = w.user_id AND d.day = $2
          LEFT JOIN LATERAL (SELECT day FROM memory_layer.daily_use u
                              WHERE u.user_id = w.user_id ORDER BY day DESC LIMIT 1) last ON true
         ORDER BY w.n
        """,
        user_ids,
        today,
    )
    return [Standing(**row) for row in rows]


async def use_by_day(
    conn: Connection, user_id: UUID, since: date
) -> dict[date, tuple[int, int, int]]:
    """Return requests, refusals and tokens of each day that had some."""
    rows = await conn.fetch(
        """
        SELECT day, requests, refused, tokens FROM memory_layer.daily_use
         WHERE user_id = $1 AND day >= $2
        """,
        user_id,
        since,
    )
    return {row["day"]: (row["requests"], row["refused"], row["tokens"]) for row in rows}


async def set_plan(
    conn: Connection,
    user_id: UUID,
    tier: str | None,
    per_minute: int | None,
    per_day: int | None,
) -> None:
    await conn.execute(
        """
        INSERT INTO memory_layer.user_state AS s (user_id, tier, per_minute, per_day)
        VALUES ($1, $2, $3, $4)
            ON CONFLICT (user_id) DO UPDATE SET
               tier = EXCLUDED.tier, per_minute = EXCLUDED.per_minute, per_day = EXCLUDED.per_day
             WHERE s.erased_at IS NULL
        """,
        user_id,
        tier,
        per_minute,
        per_day,
    )


async def begin_epoch(conn: Connection, user_id: UUID) -> bool:
    """Make every replica read the user's cache anew; say whether there is such a user."""
    done = await conn.execute(
        """
        UPDATE memory_layer.user_state SET epoch = gen_random_uuid()
         WHERE user_id = $1 AND erased_at IS NULL
        """,
        user_id,
    )
    return bool(done != "UPDATE 0")


async def known_ids(conn: Connection, offset: int, limit: int) -> list[UUID]:
    rows = await conn.fetch(
        """
        SELECT user_id FROM memory_layer.user_state
         WHERE erased_at IS NULL ORDER BY user_id OFFSET $1 LIMIT $2
        """,
        offset,
        limit,
    )
    return [row["user_id"] for row in rows]


async def is_known(conn: Connection, user_id: UUID) -> bool:
    found = await conn.fetchval(
        "SELECT true FROM memory_layer.user_state WHERE user_id = $1 AND erased_at IS NULL",
        user_id,
    )
    return found is not None


async def accounts(conn: Connection, wanted: str, offset: int, limit: int) -> list[Account]:
    """Return accounts at home whose address holds `wanted`, the newest first."""
    rows = await conn.fetch(
        """
        SELECT id, email, user_metadata ->> 'name' AS name, created_at, last_sign_in_at
          FROM memory_layer_auth.users
         WHERE $1 = '' OR strpos(email, $1) > 0
         ORDER BY created_at DESC, id OFFSET $2 LIMIT $3
        """,
        wanted,
        offset,
        limit,
    )
    return [Account(**row) for row in rows]


async def accounts_of(conn: Connection, user_ids: Sequence[UUID]) -> list[Account]:
    rows = await conn.fetch(
        """
        SELECT id, email, user_metadata ->> 'name' AS name, created_at, last_sign_in_at
          FROM memory_layer_auth.users WHERE id = ANY ($1::uuid[])
        """,
        user_ids,
    )
    return [Account(**row) for row in rows]


async def table_sizes(conn: Connection) -> list[tuple[str, int]]:
    """Return the bytes of our tables on disk with their indexes, the largest first."""
    rows = await conn.fetch(
        """
        SELECT relname, pg_total_relation_size(oid) AS bytes FROM pg_class
         WHERE relnamespace = 'memory_layer'::regnamespace AND relkind = 'r'
         ORDER BY 2 DESC
        """
    )
    return [(row["relname"], row["bytes"]) for row in rows]
