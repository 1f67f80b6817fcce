"""Deleted memories, which can be restored until they are purged."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.database import Connection
from storage.memory_store import COLUMNS, Memory, memory_from
from storage.versions import KEPT

# Their exports name no message, so that what they hold has another id than what was captured.
UNNAMED = ("gemini",)


@dataclass(frozen=True, slots=True)
class Trashed:
    """A deleted memory as it was."""

    memory: Memory
    deleted_at: datetime


async def page(
    conn: Connection, user_id: UUID, start: tuple[datetime, UUID] | None, limit: int
) -> list[Trashed]:
    """Read `limit` deleted memories from behind `start`, a (deleted_at, id), newest first."""
    rows = await conn.fetch(
        f"""
        SELECT {COLUMNS}, deleted_at FROM (
            SELECT v.*, m.id, m.provider, m.occurred_at, m.created_at, m.embedding_state,
                   v.written_at AS updated_at
              FROM memory_layer.versions v
              JOIN memory_layer.memories m ON m.user_id = v.user_id AND m.id = v.memory_id
             WHERE v.user_id = $1 AND v.deleted_at IS NOT NULL
               AND ($2::timestamptz IS NULL OR (v.deleted_at, v.memory_id) < ($2, $3::uuid))
             ORDER BY v.deleted_at DESC, v.memory_id DESC
             LIMIT $4) t
         ORDER BY deleted_at DESC, id DESC
        """,  # nosec B608 # made of the constants above
        user_id,
        *(start or (None, None)),
        limit,
    )
    return [Trashed(memory_from(row), row["deleted_at"]) for row in rows]


async def restore(conn: Connection, user_id: UUID, memory_id: UUID, number: int) -> bool:
    """Bring a memory back as it was; say whether it was in the trash."""
    done = await conn.execute(
        f"""
        UPDATE memory_layer.memories m
           SET ({KEPT}) = ROW ({", ".join(f"v.{name.strip()}" for name in KEPT.split(","))}),
               embedding_state = 'open', attempts = 0, leased_until = NULL, deleted_at = NULL,
               updated_at = now(), change_seq = $3
          FROM memory_layer.versions v
         WHERE m.user_id = $1 AND m.id = $2 AND m.deleted_at IS NOT NULL
           AND v.user_id = $1 AND v.memory_id = $2 AND v.deleted_at IS NOT NULL
        """,  # nosec B608 # made of the constant above
        user_id,
        memory_id,
        number,
    )
    await conn.execute(
        """
        DELETE FROM memory_layer.versions
         WHERE user_id = $1 AND memory_id = $2 AND deleted_at IS NOT NULL
        """,
        user_id,
        memory_id,
    )
    return done == "UPDATE 1"


async def purge(
    conn: Connection,
    user_id: UUID,
    limit: int,
    *,
    before: datetime | None = None,
    memory_id: UUID | None = None,
) -> int:
    """Forget all that was deleted, or until `before`, or one memory; return how many went.

    What stays is the id, under which nothing is ever saved again, and an echo where an import would
    not know the id.
    """
    return int(
        await conn.fetchval(
            """
            WITH gone AS (
                SELECT memory_id, prompt, source FROM memory_layer.versions
                 WHERE user_id = $1 AND deleted_at IS NOT NULL
                   AND ($2::timestamptz IS NULL OR deleted_at <= $2)
                   AND ($3::uuid IS NULL OR memory_id = $3)
                 ORDER BY deleted_at LIMIT $4
            ), forgotten AS (
                DELETE FROM memory_layer.versions v USING gone
                 WHERE v.user_id = $1 AND v.memory_id = gone.memory_id
            ), blanked AS (
                UPDATE memory_layer.memories m
                   SET provider = 'unknown', status = 'waiting', edited = false,
                       prompt_capture = NULL, response_capture = NULL,
                       content_hash = decode(repeat('00', 32), 'hex'), occurred_at = deleted_at,
                       echo = CASE
                           WHEN m.provider = ANY($5) AND gone.source IS DISTINCT FROM 'import'
                           THEN memory_layer.echo_of($1, gone.prompt, m.occurred_at, 0) END
                  FROM gone WHERE m.user_id = $1 AND m.id = gone.memory_id
            ), counted AS (
                UPDATE memory_layer.user_state SET purges = purges + 1
                 WHERE user_id = $1 AND EXISTS (SELECT FROM gone))
            SELECT count(*) FROM gone
            """,
            user_id,
            before,
            memory_id,
            limit,
            UNNAMED,
        )
    )


async def users_with_expired(conn: Connection, before: datetime) -> Sequence[UUID]:
    """Find whose trash holds what was deleted until `before`; asked by the worker."""
    rows = await conn.fetch(
        "SELECT DISTINCT user_id FROM memory_layer.versions WHERE deleted_at <= $1", before
    )
    return [row["user_id"] for row in rows]
