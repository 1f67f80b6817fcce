"""What speaks for each memory of a user, asked of the database alone: exact, and with no cache.

It reads the same words and vectors as UserIndex, so that both give the same evidence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from storage import conversation_index, keyword_scores
from storage.database import Connection
from storage.keyword_index import NOBODY, Field, Occurrences
from storage.memory_store import Filters
from storage.packed_terms import ANALYZER, Packed, hashes_of
from storage.user_index import SIDES, Evidence, best_by_slot


@dataclass(frozen=True, slots=True)
class Hits:
    """A query term's occurrences: ids of memories, and how often it is in prompt and response."""

    ids: bytes
    counts: bytes


@dataclass(slots=True)
class DatabaseIndex:
    """One query's view of a user: `memories`, `hits` and `chunks` as the statements return them.

    `unpacked` are the memories whose words nobody has packed: put them into `packed`.
    """

    memories: dict[str, bytes]
    speakers: list[bytes]
    hits: list[Hits]
    chunks: dict[str, bytes]
    packed: dict[UUID, Packed] = field(default_factory=dict)

    def _column(self, name: str, kind: str) -> np.ndarray:
        return np.frombuffer(self.memories[name] or b"", kind)

    @property
    def _ids(self) -> np.ndarray:
        return self._column("ids", "S16")

    @property
    def unpacked(self) -> list[UUID]:
        bare = self._column("prompt", ">i4") < 0
        listed = self.memories["ids"] or b""
        return [UUID(bytes=listed[16 * n : 16 * n + 16]) for n in np.flatnonzero(bare)]

    def id_of(self, slot: int) -> UUID:
        return UUID(bytes=self.memories["ids"][16 * slot : 16 * slot + 16])

    def chunk_place(self, number: int) -> tuple[str, int, int]:
        """Return the side of the chunk and its start and stop in that text."""
        start, stop = (
            int.from_bytes(self.chunks[name][4 * number : 4 * number + 4])
            for name in ("starts", "stops")
        )
        return SIDES[self.chunks["sides"][number]], start, stop

    def _slots(self, ids: bytes) -> np.ndarray:
        """Return the slots of the ids, or -1 of what another statement did not know."""
        known, wanted = self._ids, np.frombuffer(ids, "S16")
        if not len(known):
            return np.full(len(wanted), NOBODY)
        order = np.argsort(known)
        at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
        return np.where(known[at] == wanted, at, NOBODY)

    def evidence(self, terms: Counter[str]) -> Evidence:
        """Score every memory against the terms and the vector that were asked for."""
        slots = len(self._ids)
        words = keyword_scores.score(terms, self._fields(hashes_of(terms)), slots)
        hashes, conversation = self._column("conversations", ">i8"), np.full(slots, NOBODY)
        conversation[hashes != 0] = np.unique(hashes[hashes != 0], return_inverse=True)[1]
        occurred, created = (self._column(name, ">f8") for name in ("occurred", "created"))
        cosines = np.frombuffer(self.chunks["cosines"] or b"", ">f4").astype(np.float32)
        chunk_slots, sides = self._chunk_slots(), self.chunks["sides"] or b""
        return Evidence(
            allowed=self._column("allowed", "?"),
            keywords=words.by_side,
            coverage=words.coverage,
            similarity=best_by_slot(cosines, chunk_slots, np.frombuffer(sides, np.int8), slots),
            cosines=cosines,
            chunk_slots=chunk_slots,
            occurred_at=occurred.astype(float),
            answered=self._column("answered", "?"),
            conversation=conversation,
            conversation_words=conversation_index.word_scores(conversation, words.held),
            speaker_named=self._speaker_named(slots, hashes_of(terms)),
            order=conversation_index.in_order(conversation, occurred, created),
        )

    def _fields(self, terms: np.ndarray) -> dict[str, Field]:
        lengths = {side: self._column(side, ">i4").astype(np.float32) for side in SIDES}
        # Words that were packed after the first statement are in `packed`, and not to count twice.
        was_packed = np.append(lengths["prompt"] >= 0, False)  # -1 reads the last one
        found = []
        for hits in self.hits:
            slots = self._slots(hits.ids)
            found.append((np.where(was_packed[slots], slots, NOBODY), _pairs(hits.counts)))
        for memory_id, packed in self.packed.items():
            slot = self._slots(memory_id.bytes)
            for side, length in zip(SIDES, packed.lengths, strict=True):
                lengths[side][slot] = length
            known, counts = np.frombuffer(packed.terms, "<u4"), _pairs(packed.counts)
            for n, term in enumerate(terms):
                times = counts[known == term]
                slots, before = found[n]
                found[n] = np.append(slots, slot[: len(times)]), np.append(before, times, axis=0)
        return {side: _field(found, lengths[side], n) for n, side in enumerate(SIDES)}

    def _speaker_named(self, slots: int, terms: np.ndarray) -> np.ndarray:
        speakers, of_slot = conversation_index.Speakers(), np.full(slots, NOBODY)
        of_slot[self._column("spoken", "?")] = [speakers.number(name) for name in self.speakers]
        for memory_id, packed in self.packed.items():
            of_slot[self._slots(memory_id.bytes)] = speakers.number(packed.speaker)
        return speakers.named(of_slot, terms.tolist())

    def _chunk_slots(self) -> np.ndarray:
        slot_of = self._slots(self.chunks["ids"] or b"")
        # Older vectors of what has changed would find what it no longer says.
        embedded = np.append(self._column("embedded", "?"), False)  # -1 reads the last one
        return np.where(embedded[slot_of], slot_of, NOBODY)


def _pairs(counts: bytes) -> np.ndarray:
    return np.frombuffer(counts, np.uint8).reshape(-1, 2)


def _field(found: Sequence[tuple[np.ndarray, np.ndarray]], lengths: np.ndarray, side: int) -> Field:
    occurrences = []
    for slots, counts in found:
        here = (slots >= 0) & (counts[:, side] > 0)
        here[here] = lengths[slots[here]] > 0
        times = counts[here, side].astype(np.float32)
        occurrences.append(Occurrences(slots[here], times, lengths[slots[here]]))
    texts = lengths > 0
    return Field(occurrences, int(texts.sum()), float(lengths[texts].mean()) if texts.any() else 0)


async def read(
    conn: Connection,
    user_id: UUID,
    terms: Counter[str],
    vector: np.ndarray | None,
    model: str,
    filters: Filters,
) -> DatabaseIndex:
    memories, speakers = await _memories(conn, user_id, filters)
    hits = await _hits(conn, user_id, hashes_of(terms))
    chunks = dict.fromkeys(("ids", "sides", "starts", "stops", "cosines"), b"")
    if vector is not None:
        chunks = await _chunks(conn, user_id, vector, model)
    return DatabaseIndex(memories, speakers, hits, chunks)


async def _memories(
    conn: Connection, user_id: UUID, filters: Filters
) -> tuple[dict[str, bytes], list[bytes]]:
    # One row of long columns: a row for each memory would keep the event loop busy.
    row = await conn.fetchrow(
        """
        SELECT array_agg(k.speaker) FILTER (WHERE k.speaker IS NOT NULL) AS speakers,
               string_agg(uuid_send(m.id), '') AS ids,
               string_agg(float8send(extract(epoch FROM m.occurred_at)::float8), '') AS occurred,
               string_agg(float8send(extract(epoch FROM m.created_at)::float8), '') AS created,
               string_agg(int8send(coalesce(hashtextextended(
                   m.provider || E'\\n' || m.conversation_id, 0), 0)), '') AS conversations,
               string_agg(boolsend(coalesce(m.response <> '', false)), '') AS answered,
               string_agg(boolsend(($3::text IS NULL OR provider = $3)
                   AND ($4::text IS NULL OR coalesce(conversation_id = $4, false))
                   AND ($5::timestamptz IS NULL OR m.occurred_at >= $5)
                   AND ($6::timestamptz IS NULL OR m.occurred_at < $6)), '') AS allowed,
               string_agg(int4send(coalesce(k.prompt_length, -1)), '') AS prompt,
               string_agg(int4send(coalesce(k.response_length, -1)), '') AS response,
               string_agg(boolsend(k.speaker IS NOT NULL), '') AS spoken,
               string_agg(boolsend(m.embedding_state = 'done'), '') AS embedded
          FROM memory_layer.memories m
          LEFT JOIN LATERAL (
                SELECT * FROM memory_layer.keywords
                 WHERE user_id = $1 AND memory_id = m.id AND content_hash = m.content_hash
                   AND occurred_at = m.occurred_at AND analyzer = $2 LIMIT 1) k ON true
         WHERE m.user_id = $1 AND m.deleted_at IS NULL
        """,
        user_id,
        ANALYZER,
        filters.provider,
        filters.conversation_id,
        filters.after,
        filters.before,
    )
    columns = dict(row) if row else {}
    return columns, columns.pop("speakers", None) or []


async def _hits(conn: Connection, user_id: UUID, terms: np.ndarray) -> list[Hits]:
    rows = await conn.fetch(
        """
        SELECT t.n, string_agg(uuid_send(k.memory_id), '') AS ids,
               string_agg(substring(k.counts FROM f.place / 2 + 1 FOR 2), '') AS counts
          FROM unnest($2::bytea[]) WITH ORDINALITY AS t (term, n)
          JOIN memory_layer.keywords k ON k.user_id = $1 AND k.analyzer = $3
         CROSS JOIN LATERAL (SELECT position(t.term IN k.terms) - 1) AS f (place)
         WHERE f.place >= 0 AND f.place % 4 = 0
         GROUP BY t.n
        """,
        user_id,
        [term.tobytes() for term in terms],
        ANALYZER,
    )
    found = {row["n"]: Hits(row["ids"], row["counts"]) for row in rows}
    return [found.get(n, Hits(b"", b"")) for n in range(1, len(terms) + 1)]


async def _chunks(
    conn: Connection, user_id: UUID, vector: np.ndarray, model: str
) -> dict[str, bytes]:
    row = await conn.fetchrow(
        """
        WITH query AS MATERIALIZED (SELECT memory_layer.as_vector($2::real[]) AS vector)
        SELECT string_agg(uuid_send(c.memory_id), '') AS ids,
               string_agg(CASE c.role WHEN 'prompt' THEN '\\x00'::bytea ELSE '\\x01' END, '')
                   AS sides,
               string_agg(int4send(c.start), '') AS starts,
               string_agg(int4send(c.stop), '') AS stops,
               string_agg(float4send(
                   memory_layer.cosine_of_units(c.embedding, query.vector)::float4), '') AS cosines
          FROM query, memory_layer.chunks c
         WHERE c.user_id = $1 AND c.embedding_model = $3
        """,
        user_id,
        vector.tolist(),
        model,
    )
    return dict(row) if row else {}
