"""Memories: one function per statement; every one names the user whose rows it touches."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal
from uuid import UUID

import asyncpg

from storage.change_feed import NOWHERE, Position
from storage.database import Connection, Pool, fetch

Status = Literal["waiting", "partial", "complete"]
Key = tuple[UUID, UUID]


@dataclass(slots=True)
class Row:
    """A memory as it is written. A text of None leaves the one that stands."""

    user_id: UUID
    id: UUID
    provider: str
    occurred_at: datetime
    prompt: str | None = None
    response: str | None = None
    status: Status = "waiting"
    model: str | None = None
    conversation_id: str | None = None
    conversation_title: str | None = None
    url: str | None = None
    source: str | None = None
    metadata: str = "{}"
    prompt_capture: bytes | None = None
    response_capture: bytes | None = None
    content_hash: bytes = bytes(32)
    partial_length: int = 0
    edited: bool = False
    created_at: datetime | None = None
    deleted_at: datetime | None = None
    change_seq: int = 0

    def copy(self) -> "Row":
        """`dataclasses.replace` takes ten times as long."""
        return Row(*_values_of(self))


_values_of = attrgetter(*(field.name for field in fields(Row)))


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory as its owner reads it."""

    id: UUID
    prompt: str | None
    response: str | None
    prompt_missing: bool
    status: Status
    provider: str
    model: str | None
    conversation_id: str | None
    conversation_title: str | None
    url: str | None
    source: str | None
    metadata: dict[str, Any]
    edited: bool
    embedding_state: Literal["open", "done", "failed"]
    occurred_at: datetime
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Filters:
    provider: str | None = None
    conversation_id: str | None = None
    after: datetime | None = None
    before: datetime | None = None


# Those of Memory, in its order.
COLUMNS = """id, prompt, response, prompt IS NULL AS prompt_missing, status, provider, model,
       conversation_id, conversation_title, url, source, metadata, edited, embedding_state,
       occurred_at, created_at, updated_at"""


async def take_numbers(conn: Connection, wanted: Mapping[UUID, int]) -> dict[UUID, int]:
    """Lock the users in the order of their ids, and give each the next numbers; return the last.

    Every transaction that writes memories begins with this, so none can deadlock with another
    and the numbers of a user grow in the order of commits. An erased account gets none.
    """
    rows = await conn.fetch(
        """
        INSERT INTO memory_layer.user_state AS s (user_id, change_seq)
        SELECT user_id, n FROM unnest($1::uuid[], $2::bigint[]) AS w (user_id, n) ORDER BY user_id
            ON CONFLICT (user_id) DO UPDATE SET change_seq = s.change_seq + EXCLUDED.change_seq
         WHERE s.erased_at IS NULL
        RETURNING user_id, change_seq
        """,
        list(wanted),
        list(wanted.values()),
    )
    return {row["user_id"]: row["change_seq"] for row in rows}


async def rows_of(conn: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
    """Read what stands under these keys, tombstones included, without the texts."""
    rows = await conn.fetch(
        """
        SELECT user_id, id, provider, occurred_at, status, model, conversation_id,
               conversation_title, url, source, metadata::text, prompt_capture, response_capture,
               content_hash, edited, created_at, deleted_at, change_seq,
               CASE WHEN status = 'partial' THEN coalesce(length(response), 0) ELSE 0 END
                   AS partial_length
          FROM memory_layer.memories
          JOIN unnest($1::uuid[], $2::uuid[]) AS k (user_id, id) USING (user_id, id)
        """,
        [key[0] for key in keys],
        [key[1] for key in keys],
    )
    return {(row["user_id"], row["id"]): Row(**row) for row in rows}


# The columns that a save writes, with their types, in the order of `Row`'s fields of these names.
_WRITTEN = {
    "user_id": "uuid",
    "id": "uuid",
    "prompt": "text",
    "response": "text",
    "status": "text",
    "provider": "text",
    "model": "text",
    "conversation_id": "text",
    "conversation_title": "text",
    "url": "text",
    "source": "text",
    "metadata": "text",
    "prompt_capture": "bytea",
    "response_capture": "bytea",
    "content_hash": "bytea",
    "occurred_at": "timestamptz",
    "created_at": "timestamptz",
    "change_seq": "bigint",
}
_NAMES = ", ".join(_WRITTEN)
_VALUES = _NAMES.replace("metadata", "metadata::jsonb")
_REPLACED = ", ".join(
    f"{name} = EXCLUDED.{name}"
    for name in _WRITTEN
    if name not in ("user_id", "id", "prompt", "response", "created_at")
)


def _arrays(first: int) -> str:
    """The parameters for these columns, from number `first` on."""
    return ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_WRITTEN.values(), first))


_WRITE = f"""
    INSERT INTO memory_layer.memories AS m ({_NAMES})
    SELECT {_VALUES} FROM unnest({_arrays(1)}) AS r ({_NAMES})
        ON CONFLICT (user_id, id) DO UPDATE
       SET {_REPLACED}, updated_at = now(),
           prompt = COALESCE(EXCLUDED.prompt, m.prompt),
           response = COALESCE(EXCLUDED.response, m.response),
           embedding_state = CASE WHEN m.content_hash = EXCLUDED.content_hash
                                  THEN m.embedding_state ELSE 'open' END,
           attempts = 0,
           leased_until = NULL
"""  # nosec B608 # made of the constants above
_ADD = f"SELECT memory_layer.add_memories($1, $2, {_arrays(3)}) AS standing"


async def write(conn: Connection, rows: Sequence[Row]) -> None:
    """Insert or replace the rows in one statement; `take_numbers` has locked their users."""
    await conn.execute(_WRITE, *_columns_of(rows))


async def add(pool: Pool, wanted: Mapping[UUID, int], rows: Sequence[Row]) -> set[UUID] | None:
    """Number the users' changes and insert the rows, all that in one round trip.

    A row's `change_seq` is 0 for the last of its user's new numbers, -1 for the one before. Return
    the users who were not erased, whose rows alone are inserted; or None, and nothing is, where
    something stands under one of the keys.
    """
    people, counts = list(wanted), list(wanted.values())
    [answer] = await fetch(pool, _ADD, people, counts, *_columns_of(rows))
    return None if answer["standing"] is None else set(answer["standing"])


def _columns_of(rows: Sequence[Row]) -> Iterator[list[Any]]:
    return ([getattr(row, name) for row in rows] for name in _WRITTEN)


async def read(conn: Connection, user_id: UUID, memory_id: UUID) -> Memory | None:
    memories = await read_many(conn, user_id, [memory_id])
    return memories[0] if memories else None


async def read_many(conn: Connection, user_id: UUID, ids: Sequence[UUID]) -> list[Memory]:
    rows = await conn.fetch(
        f"""
        SELECT {COLUMNS} FROM memory_layer.memories
         WHERE user_id = $1 AND id = ANY($2::uuid[]) AND deleted_at IS NULL
        """,  # nosec B608 # made of the constant above
        user_id,
        ids,
    )
    return [memory_from(row) for row in rows]


async def own(pool: Pool, user_id: UUID, ids: Sequence[UUID]) -> tuple[Position, list[Memory]]:
    """Read memories by their ids, in no order, and where the user's writes stand at that moment."""
    rows = await fetch(pool, "SELECT * FROM memory_layer.own_memories($1, $2)", user_id, ids)
    now = Position(*rows[0][-4:]) if rows else NOWHERE
    return now, [memory_from(row) for row in rows if row["id"] is not None]


async def is_somebody_elses(conn: Connection, memory_id: UUID) -> bool:
    return bool(await conn.fetchval("SELECT memory_layer.is_somebody_elses($1)", memory_id))


async def newest(
    pool: Pool, user_id: UUID, filters: Filters, start: tuple[datetime, UUID] | None, limit: int
) -> list[Memory]:
    """Read `limit` memories from behind `start`, an (occurred_at, id), back in time."""
    rows = await fetch(
        pool,
        "SELECT * FROM memory_layer.newest_memories($1, $2, $3, $4, $5, $6, $7, $8)",
        user_id,
        filters.provider,
        filters.conversation_id,
        filters.after,
        filters.before,
        *(start or (None, None)),
        limit,
    )
    return [memory_from(row) for row in rows]


async def oldest(
    conn: Connection,
    user_id: UUID,
    filters: Filters,
    start: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Memory]:
    """Read `limit` memories from behind `start`, an (occurred_at, id), on in time."""
    rows = await conn.fetch(
        f"""
        SELECT {COLUMNS} FROM memory_layer.memories
         WHERE user_id = $1 AND deleted_at IS NULL
           AND ($2::text IS NULL OR provider = $2)
           AND ($3::text IS NULL OR conversation_id = $3)
           AND ($4::timestamptz IS NULL OR occurred_at >= $4)
           AND ($5::timestamptz IS NULL OR occurred_at < $5)
           AND ($6::timestamptz IS NULL OR (occurred_at, id) > ($6, $7::uuid))
         ORDER BY occurred_at, id
         LIMIT $8
        """,  # nosec B608 # made of the constant above
        user_id,
        filters.provider,
        filters.conversation_id,
        filters.after,
        filters.before,
        *(start or (None, None)),
        limit,
    )
    return [memory_from(row) for row in rows]


async def edit(
    conn: Connection, user_id: UUID, memory_id: UUID, changes: Mapping[str, object], number: int
) -> Memory | None:
    """Change the given columns, make the embedding due again when a text changed, read it back.

    `changes` names columns; the caller has taken them from a model of ours and not from a body.
    """
    values = list(changes.values())
    assignments = [
        f"{name} = ${n}::jsonb" if name == "metadata" else f"{name} = ${n}"
        for n, name in enumerate(changes, 4)
    ]
    if "content_hash" in changes:
        assignments.append("embedding_state = 'open', attempts = 0, leased_until = NULL")
        await _forget_derived(conn, user_id, memory_id)
    row = await conn.fetchrow(
        f"""
        UPDATE memory_layer.memories
           SET {", ".join(assignments)}, change_seq = $3, updated_at = now()
         WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL
        RETURNING {COLUMNS}
        """,  # nosec B608 # names of columns come from a model of ours
        user_id,
        memory_id,
        number,
        *values,
    )
    return memory_from(row) if row else None


async def delete(conn: Connection, user_id: UUID, memory_id: UUID, number: int) -> bool:
    """Blank the memory at once and leave a tombstone; say whether there was one to delete.

    What is to be restorable, `versions.keep` has copied before.
    """
    done = await conn.execute(
        """
        UPDATE memory_layer.memories
           SET prompt = NULL, response = NULL, model = NULL, conversation_id = NULL,
               conversation_title = NULL, url = NULL, source = NULL, metadata = '{}',
               embedding_state = 'done', embedding_model = NULL, deleted_at = now(),
               updated_at = now(), change_seq = $3
         WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL
        """,
        user_id,
        memory_id,
        number,
    )
    await _forget_derived(conn, user_id, memory_id)
    return done == "UPDATE 1"


async def _forget_derived(conn: Connection, user_id: UUID, memory_id: UUID) -> None:
    """Take away what was made of the texts: vectors and packed words."""
    await conn.execute(
        """
        WITH vectors AS (
            DELETE FROM memory_layer.chunks WHERE user_id = $1 AND memory_id = $2)
        DELETE FROM memory_layer.keywords WHERE user_id = $1 AND memory_id = $2
        """,
        user_id,
        memory_id,
    )


_WIDTH = len(fields(Memory))
_METADATA = [field.name for field in fields(Memory)].index("metadata")


def memory_from(row: asyncpg.Record) -> Memory:
    """Make a memory of a row that begins with COLUMNS, its metadata still text."""
    columns = list(row[:_WIDTH])
    # Most have none, and to parse that would take as long as all the rest.
    columns[_METADATA] = json.loads(text) if (text := columns[_METADATA]) != "{}" else {}
    return Memory(*columns)
