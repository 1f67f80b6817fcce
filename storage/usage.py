"""What users may spend, and what they have spent by day."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple
from uuid import UUID

from storage import erasure
from storage.database import Connection


class Entitlement(NamedTuple):
    """What stands for a user, None where the default holds, and the use of one day."""

    user_id: UUID
    tier: str | None
    per_minute: int | None
    per_day: int | None
    requests: int
    tokens: int
    erased: bool


class Use(NamedTuple):
    """Requests of a user on a day, refused ones, and tokens of the operator's keys."""

    user_id: UUID
    day: date
    requests: int = 0
    refused: int = 0
    tokens: int = 0


async def read(conn: Connection, user_ids: Sequence[UUID], day: date) -> list[Entitlement]:
    """Read all of them in one statement; a user whom nothing stands for is among them too."""
    rows = await conn.fetch(
        """
        SELECT w.user_id, s.tier, s.per_minute, s.per_day, coalesce(d.requests, 0) AS requests,
               coalesce(d.tokens, 0) AS tokens,
               s.erased_at IS NOT NULL AS erased
          FROM unnest($1::uuid[]) AS w (user_id)
          LEFT JOIN memory_layer.user_state s ON s.user_id = w.user_id
          LEFT JOIN memory_layer.daily_use d ON d.user_id = w.user_id AND d.day = $2
        """,
        user_ids,
        day,
    )
    return [Entitlement(**row) for row in rows]


async def add(conn: Connection, used: Iterable[Use]) -> None:
    """Add to days, each at most once; in one order, so that replicas cannot deadlock.

    Nothing is added to an erased account.
    """
    ordered = sorted(used)
    await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", erasure.LOCK)
    await conn.execute(
        """
        INSERT INTO memory_layer.daily_use AS d (user_id, day, requests, refused, tokens)
        SELECT * FROM unnest($1::uuid[], $2::date[], $3::bigint[], $4::bigint[], $5::bigint[])
                      AS u (user_id, day, requests, refused, tokens)
         WHERE NOT EXISTS (SELECT FROM memory_layer.user_state s
                            WHERE s.user_id = u.user_id AND s.erased_at IS NOT NULL)
            ON CONFLICT (user_id, day) DO UPDATE SET
               requests = d.requests + EXCLUDED.requests, refused = d.refused + EXCLUDED.refused,
               tokens = d.tokens + EXCLUDED.tokens
        """,
        *([row[n] for row in ordered] for n in range(5)),
    )


async def by_day(conn: Connection, user_id: UUID, since: date) -> dict[date, Use]:
    rows = await conn.fetch(
        """
        SELECT user_id, day, requests, refused, tokens
          FROM memory_layer.daily_use WHERE user_id = $1 AND day >= $2
        """,
        user_id,
        since,
    )
    return {row["day"]: Use(**row) for row in rows}
