"""What a person did when: conversations and lone memories by time, and counts by day."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import asyncpg

from storage.database import Connection

# A year of days for each of some dozen assistants; who made up thousands of names sees not all.
MOST_COUNTS = 10_000


class UnknownZone(Exception):
    """The database knows no such time zone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A conversation, or with no `conversation_id` a memory that stands alone.

    `memory_id` and `last_at` are of its last memory (before the moment that was asked for),
    `opening` is the beginning of its first text.
    """

    memory_id: UUID
    provider: str
    conversation_id: str | None
    title: str | None
    opening: str | None
    memories: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Count:
    """Memories of an assistant; `day` is None for all those outside the span that was asked for."""

    day: date | None
    provider: str
    memories: int


_PAGE = """
    WITH lasts AS (
        SELECT id, provider, conversation_id, conversation_title, occurred_at,
               left(coalesce(prompt, response), 300) AS text
          FROM memory_layer.memories m
         WHERE user_id = $1 AND deleted_at IS NULL
           AND ($2::text IS NULL OR provider = $2)
           AND ($3::timestamptz IS NULL OR occurred_at < $3)
           AND ($4::timestamptz IS NULL OR (occurred_at, id) < ($4, $5::uuid))
           AND NOT EXISTS (
                   SELECT FROM memory_layer.memories later
                    WHERE later.user_id = $1 AND later.deleted_at IS NULL
                      AND later.provider = m.provider
                      AND later.conversation_id = m.conversation_id
                      AND later.occurred_at >= m.occurred_at
                      AND (later.occurred_at, later.id) > (m.occurred_at, m.id)
                      AND ($3::timestamptz IS NULL OR later.occurred_at < $3))
         ORDER BY occurred_at DESC, id DESC
         LIMIT $6)
    SELECT lasts.id AS memory_id, lasts.provider, lasts.conversation_id,
           coalesce(titled.title, lasts.conversation_title) AS title,
           coalesce(first.text, lasts.text) AS opening,
           greatest(counted.memories, 1) AS memories,
           coalesce(counted.first_at, lasts.occurred_at) AS first_at,
           lasts.occurred_at AS last_at
      FROM lasts
     CROSS JOIN LATERAL (
               SELECT count(*) AS memories, min(occurred_at) AS first_at
                 FROM memory_layer.memories
                WHERE user_id = $1 AND deleted_at IS NULL AND provider = lasts.provider
                  AND conversation_id = lasts.conversation_id) AS counted
      LEFT JOIN LATERAL (
               SELECT conversation_title AS title FROM memory_layer.memories
                WHERE user_id = $1 AND deleted_at IS NULL AND provider = lasts.provider
                  AND conversation_id = lasts.conversation_id
                  AND conversation_title IS NOT NULL
                ORDER BY occurred_at DESC LIMIT 1) AS titled ON true
      LEFT JOIN LATERAL (
               SELECT left(coalesce(prompt, response), 300) AS text
                 FROM memory_layer.memories
                WHERE user_id = $1 AND deleted_at IS NULL AND provider = lasts.provider
                  AND conversation_id = lasts.conversation_id
                ORDER BY occurred_at LIMIT 1) AS first ON true
     ORDER BY last_at DESC, memory_id DESC
"""


async def page(
    conn: Connection,
    user_id: UUID,
    provider: str | None,
    before: datetime | None,
    start: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Entry]:
    """Read `limit` entries from behind `start`, the (last_at, memory_id) of one, newest first.

    Walks the memories by time and keeps those that no later one of their conversation follows, so
    that a page costs what it shows, however much there is.
    """
    rows = await conn.fetch(
        _PAGE,
        user_id,
        provider,
        before,
        *(start or (None, None)),
        limit,
    )
    return [Entry(**row) for row in rows]


async def counts(conn: Connection, user_id: UUID, since: datetime, zone: str) -> list[Count]:
    """Count memories by assistant and by day in `zone` from `since` to today, all others together.

    One scan of an index that holds all it asks for; it looks each time up among the days' first
    moments, as to place it in its day by the zone would take longer than reading it. Raises
    UnknownZone.
    """
    try:
        rows = await conn.fetch(
            """
            WITH span AS MATERIALIZED (
                SELECT array_agg(day::date ORDER BY day) FILTER (WHERE day <= today) AS days,
                       array_agg(greatest(day AT TIME ZONE $3, $2) ORDER BY day) AS starts
                  FROM (SELECT (now() AT TIME ZONE $3)::date::timestamp AS today) AS t,
                       generate_series(($2::timestamptz AT TIME ZONE $3)::date::timestamp,
                                       today + interval '1 day', '1 day') AS day)
            SELECT (SELECT days FROM span)[place] AS day, provider, sum(memories)::int AS memories
              FROM (SELECT width_bucket(occurred_at, (SELECT starts FROM span)) AS place,
                           provider, count(*) AS memories
                      FROM memory_layer.memories
                     WHERE user_id = $1 AND deleted_at IS NULL
                     GROUP BY 1, 2) AS counted
             GROUP BY 1, 2 ORDER BY 1 DESC NULLS FIRST, 2 LIMIT $4
            """,
            user_id,
            since,
            zone,
            MOST_COUNTS,
        )
    except asyncpg.InvalidParameterValueError:
        raise UnknownZone from None
    return [Count(**row) for row in rows]
