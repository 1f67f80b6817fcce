"""What changed of one user since a number, for the caches of every replica."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from storage.database import Connection, Pool, fetch
from storage.keyword_store import Texts, packed_from
from storage.packed_terms import ANALYZER, Packed
from storage.pgvector import vectors_from

# A few megabytes: a connection is held for a moment only.
PAGE = 1_000
# Of values above a megabyte Postgres takes the memory anew for each, and gives it back: twice the
# time. With a few chunks each, these have less.
CHUNKS_OF_AT_ONCE = 200


@dataclass(slots=True)
class Change:
    """A memory as it stands at `change_seq`; a deleted one has no words.

    One that is not `embedded` as it stands may have older vectors, which would find what it no
    longer says. `packed` is None where no one has packed the words of its texts as they stand.
    """

    id: UUID
    change_seq: int
    deleted: bool
    answered: bool
    provider: str
    conversation_id: str | None
    occurred_at: datetime
    created_at: datetime
    content_hash: bytes
    embedded: bool = False
    packed: Packed | None = None


class Position(NamedTuple):
    """Where a user's writes stand. A reader from another epoch, or from before `purged_through`,
    has missed deletions and starts anew, as does one from before a purge: it still holds the
    words of what was forgotten."""

    epoch: UUID | None
    change_seq: int
    purged_through: int
    purges: int

    def has_reached(self, wanted: "Position") -> bool:
        return (
            self.epoch == wanted.epoch
            and self.change_seq >= wanted.change_seq
            and self.purges >= wanted.purges
        )


NOWHERE = Position(None, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Feed:
    """One page of changes in the order of their numbers, and where the user's writes stood then."""

    now: Position
    changes: list[Change]

    @property
    def complete(self) -> bool:
        return len(self.changes) < PAGE


async def position(conn: Connection, user_id: UUID) -> Position:
    """Return NOWHERE for who has nothing, also for an erased account."""
    row = await conn.fetchrow(
        """
        SELECT epoch, change_seq, purged_through, purges FROM memory_layer.user_state
         WHERE user_id = $1 AND erased_at IS NULL
        """,
        user_id,
    )
    return Position(*row) if row else NOWHERE


async def since(conn: Connection, user_id: UUID, change_seq: int) -> Feed:
    """Return nothing and NOWHERE for who has nothing, also for an erased account."""
    # LATERAL with a LIMIT: a connection keeps its plans, and that of a plain join, made while the
    # tables were small, compares all with all.
    rows = await conn.fetch(
        """
        SELECT s.epoch, s.change_seq, s.purged_through, s.purges, c.*
          FROM memory_layer.user_state s
          LEFT JOIN LATERAL (
                SELECT m.id, m.change_seq, m.deleted_at IS NOT NULL,
                       coalesce(m.response <> '', false), m.provider, m.conversation_id,
                       m.occurred_at, m.created_at, m.content_hash,
                       m.embedding_state = 'done' AND m.deleted_at IS NULL,
                       k.prompt_length, k.response_length, k.terms, k.counts, k.speaker
                  FROM memory_layer.memories m
                  LEFT JOIN LATERAL (
                        SELECT * FROM memory_layer.keywords
                         WHERE user_id = $1 AND memory_id = m.id
                           AND content_hash = m.content_hash AND occurred_at = m.occurred_at
                           AND analyzer = $4 LIMIT 1) k ON true
                 WHERE m.user_id = $1 AND m.change_seq > $2
                 ORDER BY m.change_seq
                 LIMIT $3) AS c (id, number) ON true
         WHERE s.user_id = $1 AND s.erased_at IS NULL
         ORDER BY c.number
        """,
        user_id,
        change_seq,
        PAGE,
        ANALYZER,
    )
    now = Position(*rows[0][:4]) if rows else NOWHERE
    return Feed(now, [_change(*row[4:]) for row in rows if row["id"] is not None])


def _change(*columns: Any) -> Change:
    change = Change(*columns[:10])
    change.packed = packed_from(columns[10:])
    return change


@dataclass(frozen=True, slots=True)
class Chunks:
    """Parts of texts and their vectors, shape (chunks, dimensions), in a fixed order.

    `sides` has 0 for a prompt and 1 for a response.
    """

    ids: list[bytes]
    sides: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes, the texts of those whose words nobody has packed, and their chunks."""

    feed: Feed
    texts: list[Texts]
    chunks: Chunks | None


async def few_since(
    pool: Pool, user_id: UUID, change_seq: int, most: int, model: str
) -> Batch | None:
    """Read what changed in one round trip; None where it is `most` changes or more."""
    rows = await fetch(
        pool,
        "SELECT * FROM memory_layer.next_changes($1, $2, $3, $4, $5)",
        user_id,
        change_seq,
        most,
        ANALYZER,
        model,
    )
    if len(rows) == most:
        return None
    now = Position(*rows[0][:4]) if rows else NOWHERE
    rows = [row for row in rows if row["id"] is not None]
    changes = [_change(*row[4:19]) for row in rows]
    texts = [
        Texts(change.id, row["prompt"], row["response"], change.content_hash, change.occurred_at)
        for change, row in zip(changes, rows, strict=True)
        if change.packed is None and not change.deleted
    ]
    parts = [
        _chunks([row["id"].bytes] * len(row["sides"]), *row[-4:]) for row in rows if row["sides"]
    ]
    return Batch(Feed(now, changes), texts, _joined(parts) if parts else None)


async def chunks_of(
    conn: Connection, user_id: UUID, ids: Sequence[UUID], model: str
) -> Chunks | None:
    """Read the chunks of these memories, if there are any."""
    starts = range(0, len(ids), CHUNKS_OF_AT_ONCE)
    read = [
        await _chunks_of(conn, user_id, ids[start : start + CHUNKS_OF_AT_ONCE], model)
        for start in starts
    ]
    parts = [part for part in read if part]
    return _joined(parts) if parts else None


def _joined(parts: Sequence[Chunks]) -> Chunks:
    return Chunks(
        [memory_id for part in parts for memory_id in part.ids],
        np.concatenate([part.sides for part in parts]),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.stops for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )


async def _chunks_of(
    conn: Connection, user_id: UUID, ids: Sequence[UUID], model: str
) -> Chunks | None:
    # One row of long columns: a row for each chunk would cost several times as much to take in.
    row = await conn.fetchrow(
        """
        SELECT string_agg(uuid_send(memory_id), '') AS ids,
               string_agg(CASE role WHEN 'prompt' THEN '\\x00'::bytea ELSE '\\x01' END, '')
                   AS sides,
               string_agg(int4send(start), '') AS starts,
               string_agg(int4send(stop), '') AS stops,
               string_agg(memory_layer.vector_bytes(embedding), '') AS vectors
          FROM (SELECT memory_id, role, start, stop, embedding FROM memory_layer.chunks
                 WHERE user_id = $1 AND memory_id = ANY($2::uuid[]) AND embedding_model = $3
                 ORDER BY memory_id, ordinal) c
        """,
        user_id,
        ids,
        model,
    )
    if row is None or row["ids"] is None:
        return None
    listed: bytes = row["ids"]
    return _chunks([listed[n : n + 16] for n in range(0, len(listed), 16)], *row[1:])


def _chunks(ids: list[bytes], sides: bytes, starts: bytes, stops: bytes, vectors: bytes) -> Chunks:
    return Chunks(
        ids,
        np.frombuffer(sides, np.int8),
        np.frombuffer(starts, ">i4"),
        np.frombuffer(stops, ">i4"),
        vectors_from(vectors, len(ids)),
    )


class Fingerprint(NamedTuple):
    """Of the memories that are alive: SHA-256 of their ids and numbers; and their vectors."""

    memories: bytes
    chunks: int


async def fingerprint(conn: Connection, user_id: UUID, model: str) -> tuple[Position, Fingerprint]:
    """Read both at one moment."""
    row = await conn.fetchrow(
        """
        SELECT s.epoch, s.change_seq, s.purged_through, s.purges,
               (SELECT sha256(coalesce(string_agg(uuid_send(id) || int8send(change_seq), ''
                                                  ORDER BY change_seq), ''))
                  FROM memory_layer.memories WHERE user_id = $1 AND deleted_at IS NULL),
               (SELECT coalesce(sum((SELECT count(*) FROM memory_layer.chunks
                                      WHERE user_id = $1 AND memory_id = m.id
                                        AND embedding_model = $2)), 0)::bigint
                  FROM memory_layer.memories m
                 WHERE m.user_id = $1 AND m.embedding_state = 'done' AND m.deleted_at IS NULL)
          FROM memory_layer.user_state s WHERE s.user_id = $1 AND s.erased_at IS NULL
        """,
        user_id,
        model,
    )
    if row is None:
        return NOWHERE, Fingerprint(b"", 0)
    return Position(*row[:4]), Fingerprint(*row[4:])
