"""Imports: what was uploaded, how far it is, and what came of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from storage.database import Connection, Pool

State = Literal["queued", "running", "done", "failed", "cancelled"]
# Of one user; older ones are forgotten.
MOST_FINISHED = 50
MOST_COUNTED = 1_000


@dataclass(frozen=True, slots=True)
class Job:
    """`found` = `imported` + `already_here` + `skipped` + `failed`, in turns."""

    id: UUID
    state: State
    file_name: str | None
    bytes: int
    bytes_read: int
    format: str | None
    found: int
    imported: int
    already_here: int
    skipped: int
    failed: int
    reasons: dict[str, int]
    message: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    user_id: UUID
    id: UUID


@dataclass(slots=True)
class Progress:
    """What a transaction adds to a job; `reasons` are all there are so far."""

    bytes_read: int
    format: str | None
    found: int = 0
    imported: int = 0
    already_here: int = 0
    skipped: int = 0
    failed: int = 0
    reasons: Mapping[str, int] | None = None


_COLUMNS = """id, state, file_name, bytes, bytes_read, format, found, imported, already_here,
       skipped, failed, reasons, message, created_at, updated_at, finished_at"""


def _job(row: asyncpg.Record) -> Job:
    return Job(**dict(row) | {"reasons": json.loads(row["reasons"])})


async def add(
    conn: Connection, user_id: UUID, job_id: UUID, file_name: str | None, size: int
) -> Job:
    """Queue an import, and forget the oldest finished ones."""
    await conn.execute(
        """
        DELETE FROM memory_layer.imports WHERE user_id = $1 AND id IN (
            SELECT id FROM memory_layer.imports
             WHERE user_id = $1 AND state NOT IN ('queued', 'running')
             ORDER BY created_at DESC, id OFFSET $2)
        """,
        user_id,
        MOST_FINISHED - 1,
    )
    row = await conn.fetchrow(
        f"""
        INSERT INTO memory_layer.imports (user_id, id, file_name, bytes) VALUES ($1, $2, $3, $4)
        RETURNING {_COLUMNS}
        """,  # nosec B608 # made of the constant above
        user_id,
        job_id,
        file_name,
        size,
    )
    assert row is not None
    return _job(row)


async def read(conn: Connection, user_id: UUID, job_id: UUID) -> Job | None:
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM memory_layer.imports WHERE user_id = $1 AND id = $2",  # nosec B608 # made of the constant above
        user_id,
        job_id,
    )
    return _job(row) if row else None


async def listed(conn: Connection, user_id: UUID) -> list[Job]:
    """Read all of a user's imports, the latest first."""
    rows = await conn.fetch(
        f"""
        SELECT {_COLUMNS} FROM memory_layer.imports WHERE user_id = $1
         ORDER BY created_at DESC, id
        """,  # nosec B608 # made of the constant above
        user_id,
    )
    return [_job(row) for row in rows]


async def unfinished(conn: Connection, user_id: UUID) -> tuple[int, int]:
    """Return how many imports of the user wait or run, and how many bytes they have."""
    row = await conn.fetchrow(
        """
        SELECT count(*) AS jobs, coalesce(sum(bytes), 0)::bigint AS bytes FROM memory_layer.imports
         WHERE user_id = $1 AND state IN ('queued', 'running')
        """,
        user_id,
    )
    return (row["jobs"], row["bytes"]) if row else (0, 0)


async def to_embed(conn: Connection, user_id: UUID) -> int:
    """Count the user's memories that wait for their vectors, above MOST_COUNTED about.

    Who waits for a large import asks every second: the numbers of what waits are nearly without
    gaps, as the latest is taken first, and the first and the last are found at once.
    """
    row = await conn.fetchrow(
        """
        WITH waiting AS NOT MATERIALIZED (
            SELECT change_seq FROM memory_layer.memories
             WHERE user_id = $1 AND embedding_state = 'open' AND deleted_at IS NULL)
        SELECT (SELECT count(*) FROM (SELECT FROM waiting LIMIT $2 + 1) AS few),
               (SELECT max(change_seq) FROM waiting) - (SELECT min(change_seq) FROM waiting) + 1
        """,
        user_id,
        MOST_COUNTED,
    )
    assert row
    counted, span = row
    return int(counted if counted <= MOST_COUNTED else span)


async def begin(conn: Connection, user_id: UUID, job_id: UUID) -> Job | None:
    """Let a job run, the first time or again; None where it is finished or gone."""
    row = await conn.fetchrow(
        f"""
        UPDATE memory_layer.imports SET state = 'running', updated_at = now()
         WHERE user_id = $1 AND id = $2 AND state IN ('queued', 'running')
        RETURNING {_COLUMNS}
        """,  # nosec B608 # made of the constant above
        user_id,
        job_id,
    )
    return _job(row) if row else None


async def advance(conn: Connection, user_id: UUID, job_id: UUID, done: Progress) -> bool:
    """Add to a running job; say whether it still runs."""
    status = await conn.execute(
        """
        UPDATE memory_layer.imports
           SET bytes_read = $3, format = $4, found = found + $5, imported = imported + $6,
               already_here = already_here + $7, skipped = skipped + $8, failed = failed + $9,
               reasons = $10::jsonb, updated_at = now()
         WHERE user_id = $1 AND id = $2 AND state = 'running'
        """,
        user_id,
        job_id,
        done.bytes_read,
        done.format,
        done.found,
        done.imported,
        done.already_here,
        done.skipped,
        done.failed,
        json.dumps(done.reasons or {}),
    )
    return status == "UPDATE 1"


async def finish(
    conn: Connection, user_id: UUID, job_id: UUID, state: State, message: str | None
) -> bool:
    """End a job that waits or runs; say whether there was one."""
    status = await conn.execute(
        """
        UPDATE memory_layer.imports
           SET state = $3, message = $4, updated_at = now(), finished_at = now(),
               bytes_read = CASE WHEN $3 = 'done' THEN bytes ELSE bytes_read END
         WHERE user_id = $1 AND id = $2 AND state IN ('queued', 'running')
        """,
        user_id,
        job_id,
        state,
        message,
    )
    return status == "UPDATE 1"


async def mark_edited(conn: Connection, user_id: UUID, ids: Sequence[UUID]) -> None:
    await conn.execute(
        """
        UPDATE memory_layer.memories SET edited = true WHERE user_id = $1 AND id = ANY($2::uuid[])
        """,
        user_id,
        ids,
    )


@dataclass(frozen=True, slots=True)
class Nearby:
    """A memory that may be a turn whose site names no message; a deleted one has its text too."""

    id: UUID
    prompt: str
    occurred_at: datetime
    deleted: bool


async def nearby(
    conn: Connection, user_id: UUID, provider: str, times: Sequence[datetime], seconds: int
) -> list[Nearby]:
    """Find memories of the provider within `seconds` of any of the times, not imported ones."""
    rows = await conn.fetch(
        """
        SELECT DISTINCT m.id, m.prompt, m.occurred_at, false AS deleted
          FROM unnest($3::timestamptz[]) AS t (at)
          JOIN memory_layer.memories m
            ON m.user_id = $1 AND m.deleted_at IS NULL
           AND m.occurred_at BETWEEN at - $4 * interval '1 s' AND at + $4 * interval '1 s'
         WHERE m.provider = $2 AND m.prompt IS NOT NULL AND m.source IS DISTINCT FROM 'import'
         UNION ALL
        SELECT DISTINCT m.id, v.prompt, m.occurred_at, true
          FROM memory_layer.versions v
          JOIN memory_layer.memories m ON m.user_id = v.user_id AND m.id = v.memory_id
          JOIN unnest($3::timestamptz[]) AS t (at)
            ON m.occurred_at BETWEEN at - $4 * interval '1 s' AND at + $4 * interval '1 s'
         WHERE v.user_id = $1 AND v.deleted_at IS NOT NULL AND v.prompt IS NOT NULL
           AND m.provider = $2 AND v.source IS DISTINCT FROM 'import'
        """,
        user_id,
        provider,
        times,
        seconds,
    )
    return [Nearby(**row) for row in rows]


async def purged(
    conn: Connection, user_id: UUID, prompts: Sequence[str], times: Sequence[datetime]
) -> list[int]:
    """Find which of these prompts, by their places, were captured live at that time and purged."""
    rows = await conn.fetch(
        """
        SELECT DISTINCT t.place
          FROM unnest($2::text[], $3::timestamptz[]) WITH ORDINALITY AS t (prompt, at, place)
         CROSS JOIN generate_series(-1, 1) AS slot
          JOIN memory_layer.memories m
            ON m.user_id = $1 AND m.echo = memory_layer.echo_of($1, t.prompt, t.at, slot)
        """,
        user_id,
        prompts,
        times,
    )
    return [row["place"] - 1 for row in rows]


async def waiting(conn: Connection, ids: Sequence[UUID]) -> list[Waiting]:
    """Find which of these jobs wait or run, the oldest first; asked by the worker."""
    rows = await conn.fetch(
        """
        UPDATE memory_layer.imports SET updated_at = now()
         WHERE id = ANY($1::uuid[]) AND state IN ('queued', 'running')
        RETURNING user_id, id, created_at
        """,
        ids,
    )
    ordered = sorted(rows, key=lambda row: (row["created_at"], row["id"]))
    return [Waiting(row["user_id"], row["id"]) for row in ordered]


async def give_up_lost(conn: Connection, seconds: int, message: str) -> None:
    """Fail the jobs whose file no replica has said to have for so long; asked by the worker."""
    await conn.execute(
        """
        UPDATE memory_layer.imports
           SET state = 'failed', message = $2, finished_at = now()
         WHERE state IN ('queued', 'running') AND updated_at < now() - $1 * interval '1 s'
        """,
        seconds,
        message,
    )


async def analyze(pool: Pool) -> None:
    """Let Postgres look at what it has; the tables' owner alone may ask for it."""
    async with pool.acquire() as conn:
        await conn.execute(
            """
            ANALYZE memory_layer.memories
                    (user_id, id, change_seq, occurred_at, provider, conversation_id, deleted_at)
            """
        )
