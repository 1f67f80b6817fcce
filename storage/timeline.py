"""What a person did when: conversations and lone memories by time, and counts by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from storage.database import Connection

# Who made up thousands of names sees not all.
MOST_ASSISTANTS = 100


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
class Standing:
    """What counts by day depend on. Where only `today` and `change_seq` have moved on, the days of
    what has changed since are the only ones that may have another count."""

    today: date
    epoch: UUID | None
    purges: int
    moves: int
    change_seq: int


class Count(NamedTuple):
    """Memories of an assistant at a place between the starts of days: 1 is the first day."""

    provider: str
    place: int
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


async def standing(conn: Connection, user_id: UUID, zone: str) -> Standing:
    """Raises UnknownZone."""
    try:
        row = await conn.fetchrow(
            """
            SELECT (now() AT TIME ZONE $2)::date AS today, epoch, coalesce(purges, 0) AS purges,
                   coalesce(moves, 0) AS moves, coalesce(change_seq, 0) AS change_seq
              FROM (SELECT) AS always LEFT JOIN memory_layer.user_state ON user_id = $1
            """,
            user_id,
            zone,
        )
    except asyncpg.InvalidParameterValueError:
        raise UnknownZone from None
    assert row is not None
    return Standing(**row)


async def starts_of_days(
    conn: Connection, zone: str, first: date, last: date
) -> Sequence[datetime]:
    """Return the first moments of these days in `zone`, and that of the day behind them."""
    starts: Sequence[datetime] = await conn.fetchval(
        """
        SELECT array_agg(day AT TIME ZONE $1 ORDER BY day)
          FROM generate_series($2::date::timestamp, $3::date + interval '1 day', '1 day') AS day
        """,
        zone,
        first,
        last,
    )
    return starts


async def counts(conn: Connection, user_id: UUID, starts: Sequence[datetime]) -> list[Count]:
    """Count all memories, by assistant and by place between `starts`.

    Reads once an index that holds all it asks for, one assistant after the other, as to group by a
    number takes half as long as by a number and a name.
    """
    rows = await conn.fetch(
        """
        WITH RECURSIVE assistants AS (
            (SELECT provider FROM memory_layer.memories
              WHERE user_id = $1 AND deleted_at IS NULL ORDER BY provider LIMIT 1)
             UNION ALL
            SELECT (SELECT provider FROM memory_layer.memories
                     WHERE user_id = $1 AND deleted_at IS NULL AND provider > assistants.provider
                     ORDER BY provider LIMIT 1)
              FROM assistants WHERE provider IS NOT NULL)
        SELECT named.provider, place, memories
          FROM (SELECT provider FROM assistants WHERE provider IS NOT NULL LIMIT $3) AS named
         CROSS JOIN LATERAL (
                   SELECT width_bucket(occurred_at, $2::timestamptz[]) AS place,
                          count(*)::int AS memories
                     FROM memory_layer.memories
                    WHERE user_id = $1 AND deleted_at IS NULL AND provider = named.provider
                    GROUP BY 1) AS placed
        """,
        user_id,
        starts,
        MOST_ASSISTANTS,
    )
    return [Count(*row) for row in rows]


async def places_of_changes(
    conn: Connection, user_id: UUID, starts: Sequence[datetime], behind: int, most: int
) -> list[int] | None:
    """Return between which `starts` lies what has changed since the number `behind`; None where
    that are more than `most` memories."""
    rows = await conn.fetch(
        """
        SELECT width_bucket(occurred_at, $2::timestamptz[]) AS place
          FROM memory_layer.memories
         WHERE user_id = $1 AND change_seq > $3 ORDER BY change_seq LIMIT $4 + 1
        """,
        user_id,
        starts,
        behind,
        most,
    )
    return None if len(rows) > most else sorted({row["place"] for row in rows})


async def counts_at(
    conn: Connection, user_id: UUID, starts: Sequence[datetime], places: Sequence[int]
) -> list[Count]:
    """As `counts`, of these places alone; none of them before the first day or behind the last."""
    rows = await conn.fetch(
        """
        SELECT provider, place, count(*)::int AS memories
          FROM unnest($2::int[], $3::timestamptz[], $4::timestamptz[]) AS day (place, start, stop)
          JOIN memory_layer.memories ON user_id = $1 AND deleted_at IS NULL
           AND occurred_at >= start AND occurred_at < stop
         GROUP BY 1, 2
        """,
        user_id,
        places,
        [starts[place - 1] for place in places],
        [starts[place] for place in places],
    )
    return [Count(*row) for row in rows]
