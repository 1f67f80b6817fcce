"""When each background job ran last, and which replica's turn it is."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from storage.database import Connection, Pool, transaction


@dataclass(frozen=True, slots=True)
class JobRun:
    """`outcome` is None before the first run."""

    name: str
    what: str
    every_seconds: int
    started_at: datetime | None
    finished_at: datetime | None
    outcome: Literal["running", "ok", "failed"] | None
    detail: str


def acting_as_janitor(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction that can purge what is old and see no text of anybody's."""
    return transaction(pool, "memory_layer_janitor")


async def register(conn: Connection, jobs: Iterable[tuple[str, str, int]]) -> None:
    """Make the list of jobs these: (name, what, every_seconds)."""
    ordered = sorted(jobs)
    await conn.execute(
        "DELETE FROM memory_layer.job_runs WHERE name <> ALL ($1)", [job[0] for job in ordered]
    )
    await conn.execute(
        """
        INSERT INTO memory_layer.job_runs (name, what, every_seconds)
        SELECT * FROM unnest($1::text[], $2::text[], $3::integer[])
            ON CONFLICT (name) DO UPDATE
           SET what = EXCLUDED.what, every_seconds = EXCLUDED.every_seconds
        """,
        *([job[n] for job in ordered] for n in range(3)),
    )


async def take_due(
    conn: Connection, names: Sequence[str], longest: int
) -> tuple[str, datetime] | None:
    """Begin the run of a job that is due, and that nobody else is at, or was more than `longest`
    seconds ago; return its name and the time that `finish` asks for."""
    row = await conn.fetchrow(
        """
        UPDATE memory_layer.job_runs
           SET started_at = now(), outcome = 'running'
         WHERE name = (
               SELECT name FROM memory_layer.job_runs
                WHERE name = ANY ($1)
                  AND (started_at IS NULL
                       OR started_at <= now() - make_interval(secs => CASE
                          WHEN outcome = 'running' THEN greatest($2, every_seconds)
                          ELSE every_seconds END))
                ORDER BY started_at NULLS FIRST, name LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING name, started_at
        """,
        names,
        longest,
    )
    return (row["name"], row["started_at"]) if row else None


async def take(conn: Connection, name: str) -> datetime:
    """Begin a run now, due or not."""
    started_at: datetime = await conn.fetchval(
        """
        UPDATE memory_layer.job_runs SET started_at = now(), outcome = 'running'
         WHERE name = $1 RETURNING started_at
        """,
        name,
    )
    return started_at


async def finish(
    conn: Connection, name: str, started_at: datetime, outcome: str, detail: str
) -> None:
    """A run that was given up for lost says nothing any more."""
    await conn.execute(
        """
        UPDATE memory_layer.job_runs
           SET finished_at = clock_timestamp(), outcome = $3, detail = $4
         WHERE name = $1 AND started_at = $2
        """,
        name,
        started_at,
        outcome,
        detail,
    )


async def list_runs(pool: Pool) -> list[JobRun]:
    async with acting_as_janitor(pool) as conn:
        rows = await conn.fetch(
            """
            SELECT name, what, every_seconds, started_at, finished_at, outcome, detail
              FROM memory_layer.job_runs ORDER BY name
            """
        )
    return [JobRun(**row) for row in rows]
