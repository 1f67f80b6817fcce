"""Requests of all replicas: how many, how they ended, and how long they took."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from storage.database import Connection


class Counted(NamedTuple):
    """Requests of a route in one slot of time; `buckets` is a histogram of milliseconds."""

    slot: datetime
    route: str
    requests: int
    errors: int
    refused: int
    buckets: list[int]


class OfRoute(NamedTuple):
    route: str
    requests: int
    errors: int
    refused: int
    buckets: list[int]


@dataclass(frozen=True, slots=True)
class OfSpan:
    start: datetime
    requests: int
    errors: int
    refused: int
    saves: int
    searches: int


async def add(conn: Connection, counted: Iterable[Counted]) -> None:
    """Add to what other replicas have counted; in one order, so that none deadlock."""
    await conn.executemany(
        """
        INSERT INTO memory_layer.traffic AS t (slot, route, requests, errors, refused, buckets)
        VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (slot, route) DO UPDATE SET
               requests = t.requests + EXCLUDED.requests,
               errors = t.errors + EXCLUDED.errors,
               refused = t.refused + EXCLUDED.refused,
               buckets = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
                                 FROM unnest(t.buckets, EXCLUDED.buckets)
                                      WITH ORDINALITY AS u (a, b, n) ORDER BY n)
        """,
        sorted(counted),
    )


async def forget_before(conn: Connection, time: datetime) -> None:
    await conn.execute("DELETE FROM memory_layer.traffic WHERE slot < $1", time)


async def by_route(conn: Connection, since: datetime) -> list[OfRoute]:
    """Return the sums of each route, the busiest first."""
    rows = await conn.fetch(
        """
        WITH recent AS (
            SELECT * FROM memory_layer.traffic WHERE slot >= $1
        ), sums AS (
            SELECT route, sum(buckets[n]) AS total, n
              FROM recent, generate_subscripts(buckets, 1) AS n GROUP BY route, n
        ), histograms AS (
            SELECT route, array_agg(total::bigint ORDER BY n) AS buckets FROM sums GROUP BY route
        )
        SELECT route, sum(requests)::bigint AS requests, sum(errors)::bigint AS errors,
               sum(refused)::bigint AS refused, h.buckets
          FROM recent JOIN histograms h USING (route)
         GROUP BY route, h.buckets ORDER BY 2 DESC, 1
        """,
        since,
    )
    return [OfRoute(**row) for row in rows]


async def by_span(
    conn: Connection,
    since: datetime,
    span: timedelta,
    saves: Sequence[str],
    searches: Sequence[str],
) -> list[OfSpan]:
    """Return the sums of each span of time since `since`, without those that are empty."""
    rows = await conn.fetch(
        """
        SELECT date_bin($2, slot, $1) AS start, sum(requests)::bigint AS requests,
               sum(errors)::bigint AS errors, sum(refused)::bigint AS refused,
               coalesce(sum(requests) FILTER (WHERE route = ANY ($3)), 0)::bigint AS saves,
               coalesce(sum(requests) FILTER (WHERE route = ANY ($4)), 0)::bigint AS searches
          FROM memory_layer.traffic WHERE slot >= $1
         GROUP BY 1 ORDER BY 1
        """,
        since,
        span,
        saves,
        searches,
    )
    return [OfSpan(**row) for row in rows]
