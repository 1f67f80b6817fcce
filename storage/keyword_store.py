"""The packed words of memories in the database, one function per statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.database import Connection
from storage.packed_terms import ANALYZER, Packed, pack


@dataclass(frozen=True, slots=True)
class Texts:
    """What the words of a memory are made of."""

    id: UUID
    prompt: str | None
    response: str | None
    content_hash: bytes
    occurred_at: datetime

    def pack(self) -> Packed:
        """Analyse them, which takes seconds for a mebibyte: call it in a thread."""
        return pack(self.prompt, self.response, self.occurred_at)


def packed_from(columns: Sequence[Any]) -> Packed | None:
    """Take prompt_length, response_length, terms, counts and speaker, or five nulls."""
    prompt_length, response_length, terms, counts, speaker = columns
    if terms is None:
        return None
    return Packed((prompt_length, response_length), terms, counts, speaker)


async def texts_of(conn: Connection, user_id: UUID, ids: Sequence[UUID]) -> list[Texts]:
    rows = await conn.fetch(
        """
        SELECT id, prompt, response, content_hash, occurred_at FROM memory_layer.memories
         WHERE user_id = $1 AND id = ANY($2::uuid[]) AND deleted_at IS NULL
        """,
        user_id,
        ids,
    )
    return [Texts(*row) for row in rows]


async def keep(conn: Connection, user_id: UUID, packed: Sequence[tuple[Texts, Packed]]) -> None:
    """Write the words of those memories that are alive and still hold these texts.

    The user's row in user_state is locked, as by all writers of memories: a deletion of this
    moment comes before and is seen, or comes after and takes the words away too.
    """
    await conn.execute(
        "SELECT 1 FROM memory_layer.user_state WHERE user_id = $1 FOR NO KEY UPDATE", user_id
    )
    rows = await conn.fetch(
        """
        SELECT id, content_hash, occurred_at FROM memory_layer.memories
         WHERE user_id = $1 AND id = ANY($2::uuid[]) AND deleted_at IS NULL
        """,
        user_id,
        [texts.id for texts, _ in packed],
    )
    now = {tuple(row) for row in rows}
    same = [
        (texts, words)
        for texts, words in packed
        if (texts.id, texts.content_hash, texts.occurred_at) in now
    ]
    await write(conn, [user_id] * len(same), same)


async def write(
    conn: Connection, owners: Sequence[UUID], packed: Sequence[tuple[Texts, Packed]]
) -> None:
    """Write the words of texts that are known to stand, each with its owner."""
    await conn.execute(
        """
        INSERT INTO memory_layer.keywords (user_id, memory_id, analyzer, content_hash,
               occurred_at, prompt_length, response_length, terms, counts, speaker)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::bytea[],
               $5::timestamptz[], $6::int[], $7::int[], $8::bytea[], $9::bytea[], $10::bytea[])
            ON CONFLICT (user_id, memory_id) DO UPDATE
           SET analyzer = EXCLUDED.analyzer, content_hash = EXCLUDED.content_hash,
               occurred_at = EXCLUDED.occurred_at, prompt_length = EXCLUDED.prompt_length,
               response_length = EXCLUDED.response_length, terms = EXCLUDED.terms,
               counts = EXCLUDED.counts, speaker = EXCLUDED.speaker
        """,
        owners,
        [texts.id for texts, _ in packed],
        [ANALYZER] * len(packed),
        [texts.content_hash for texts, _ in packed],
        [texts.occurred_at for texts, _ in packed],
        [words.lengths[0] for _, words in packed],
        [words.lengths[1] for _, words in packed],
        [words.terms for _, words in packed],
        [words.counts for _, words in packed],
        [words.speaker for _, words in packed],
    )
