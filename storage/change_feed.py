"""What changed of one user since a number, for the caches of every replica."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np

from storage.database import Connection

# Texts of a mebibyte on both sides make a page of this many 400 MB at the very worst.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Change:
    """A memory as it stands at `change_seq`; a deleted one has no texts."""

    id: UUID
    change_seq: int
    deleted: bool
    prompt: str | None
    response: str | None
    provider: str
    conversation_id: str | None
    occurred_at: datetime
    content_hash: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Feed:
    """One page of changes in the order of their numbers, and where the reader stands."""

    epoch: UUID | None
    purged_through: int
    changes: list[Change]

    @property
    def complete(self) -> bool:
        return len(self.changes) < PAGE


async def since(conn: Connection, user_id: UUID, change_seq: int) -> Feed:
    rows = await conn.fetch(
        """
        SELECT s.epoch, s.purged_through, m.id, m.change_seq, m.deleted_at IS NOT NULL AS deleted,
               m.prompt, m.response, m.provider, m.conversation_id, m.occurred_at, m.content_hash,
               m.created_at
          FROM memory_layer.user_state s
          LEFT JOIN LATERAL (
                SELECT * FROM memory_layer.memories
                 WHERE user_id = $1 AND change_seq > $2 ORDER BY change_seq LIMIT $3) m ON true
         WHERE s.user_id = $1 AND s.erased_at IS NULL
         ORDER BY m.change_seq
        """,
        user_id,
        change_seq,
        PAGE,
    )
    if not rows:
        return Feed(None, 0, [])
    changes = [Change(*row[2:]) for row in map(tuple, rows) if row[2] is not None]
    return Feed(rows[0]["epoch"], rows[0]["purged_through"], changes)


@dataclass(frozen=True, slots=True)
class Chunk:
    memory_id: UUID
    role: str
    start: int
    stop: int
    vector: np.ndarray


async def chunks_of(
    conn: Connection, user_id: UUID, ids: Sequence[UUID], model: str
) -> list[Chunk]:
    """Read the vectors of these memories in a fixed order, as little-endian float32.

    A text that changed since has none: its old vectors would find what it no longer says.
    """
    rows = await conn.fetch(
        """
        SELECT c.memory_id, c.role, c.start, c.stop,
               memory_layer.vector_bytes(c.embedding) AS vector
          FROM memory_layer.chunks c
          JOIN memory_layer.memories m ON m.user_id = c.user_id AND m.id = c.memory_id
         WHERE c.user_id = $1 AND c.memory_id = ANY($2::uuid[]) AND c.embedding_model = $3
           AND m.embedding_state = 'done'
         ORDER BY c.memory_id, c.ordinal
        """,
        user_id,
        ids,
        model,
    )
    return [
        Chunk(row["memory_id"], row["role"], row["start"], row["stop"], vector_from(row["vector"]))
        for row in rows
    ]


def vector_from(wire: bytes) -> np.ndarray:
    """Decode pgvector's wire format: two int16 (dimension, 0), then big-endian float32."""
    return np.frombuffer(wire, dtype=">f4", offset=4).astype(np.float32)
