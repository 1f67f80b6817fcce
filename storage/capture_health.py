"""Counters of the extension, by person, installation, site and day; no content, no address."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from uuid import UUID

from storage import erasure
from storage.database import Connection

KEPT_DAYS = 30
# Several browsers, a few of them installed anew, and every site.
MOST_ROWS_A_DAY = 100


@dataclass(frozen=True, slots=True)
class SiteDay:
    """Turns of one site and day: read from the network or the page, or missed; what went wrong."""

    day: date
    site: str
    network: int = 0
    dom: int = 0
    missed: int = 0
    partial: int = 0
    empty: int = 0
    unreadable: int = 0
    unknown_streams: int = 0


COUNTERS = [field.name for field in fields(SiteDay)][2:]


async def put(
    conn: Connection, user_id: UUID, installation: UUID, version: str, rows: Sequence[SiteDay]
) -> None:
    """Keep the totals of an installation, each day and site once; a total only grows. Forget
    what is older than KEPT_DAYS.

    A person's day has at most MOST_ROWS_A_DAY; others are dropped. So is what comes after an
    erasure of the account.
    """
    await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", erasure.LOCK)
    await conn.execute(
        """
        DELETE FROM memory_layer.capture_health
         WHERE user_id = $1 AND day < current_date - $2::integer
        """,
        user_id,
        KEPT_DAYS,
    )
    await conn.execute(_PUT, user_id, installation, version, MOST_ROWS_A_DAY, *_columns(rows))


def _columns(rows: Sequence[SiteDay]) -> list[list[object]]:
    return [[getattr(row, name) for row in rows] for name in ("day", "site", *COUNTERS)]


async def by_site(conn: Connection, since: date) -> list[SiteDay]:
    """Add everybody's up, by day and site."""
    rows = await conn.fetch(
        f"""
        SELECT day, site, {_SUMS} FROM memory_layer.capture_health
         WHERE day >= $1 GROUP BY day, site ORDER BY day, site
        """,  # nosec B608 # made of the constants below
        since,
    )
    return [SiteDay(**row) for row in rows]


_SUMS = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNTERS)
_ARRAYS = ", ".join(f"${n}::integer[]" for n in range(7, 7 + len(COUNTERS)))
_GREATEST = ", ".join(f"{name} = greatest(h.{name}, EXCLUDED.{name})" for name in COUNTERS)
_NAMES = ", ".join(COUNTERS)
_PUT = f"""
    INSERT INTO memory_layer.capture_health AS h
           (user_id, installation, version, day, site, {_NAMES})
    SELECT $1, $2, $3, r.*
      FROM unnest($5::date[], $6::text[], {_ARRAYS}) AS r (day, site, {_NAMES})
     WHERE (SELECT count(*) FROM memory_layer.capture_health c
             WHERE c.user_id = $1 AND c.day = r.day AND (c.site, c.installation) <> (r.site, $2))
           < $4
       AND NOT EXISTS (SELECT FROM memory_layer.user_state s
                        WHERE s.user_id = $1 AND s.erased_at IS NOT NULL)
     ORDER BY day, site
        ON CONFLICT (user_id, day, site, installation) DO UPDATE
       SET {_GREATEST}, version = EXCLUDED.version, updated_at = now()
"""  # nosec B608 # made of the constants above
