"""What speaks for each memory of a user, asked of the database alone: exact, and with no cache.

It reads the same words and vectors as UserIndex, so that both give the same evidence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeAlias
from uuid import UUID

import numpy as np

from storage import conversation_index, keyword_scores
from storage.database import Connection
from storage.keyword_index import NOBODY, Field
from storage.memory_store import Filters
from storage.packed_terms import ANALYZER, Packed, hashes_of
from storage.user_index import SIDES, Evidence, best_by_slot

# So many memories are read at once, in about a quarter of a second with their vectors.
SLICE = 20_000


@dataclass(frozen=True, slots=True)
class Hits:
    """A query term's occurrences: ids of memories, and how often it is in prompt and response."""

    ids: bytes
    counts: bytes


@dataclass
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
        """The latest first: where time does not suffice for all, what was just saved takes part."""
        bare = np.flatnonzero(self._column("prompt", ">i4") < 0)
        latest_first = bare[np.argsort(-self._column("created", ">f8")[bare], kind="stable")]
        return [UUID(bytes=each) for each in self.ids_of(latest_first.tolist())]

    def ids_of(self, slots: Sequence[int]) -> list[bytes]:
        return [self.memories["ids"][16 * slot : 16 * slot + 16] for slot in slots]

    def chunk_places(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return the side of each chunk and its start and stop in that text."""
        at = np.array(numbers, int)
        starts, stops = (
            np.frombuffer(self.chunks[name] or b"", ">i4")[at].tolist()
            for name in ("starts", "stops")
        )
        sides = [SIDES[self.chunks["sides"][number]] for number in numbers]
        return list(zip(sides, starts, stops, strict=True))

    @cached_property
    def _by_id(self) -> np.ndarray:
        return np.argsort(self._ids)

    def _slots(self, ids: bytes) -> np.ndarray:
        """Return the slots of the ids, or -1 of what another statement did not know."""
        known, wanted, order = self._ids, np.frombuffer(ids, "S16"), self._by_id
        if not len(known):
            return np.full(len(wanted), NOBODY)
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
            terms=len(terms),
            allowed=self._column("allowed", "?"),
            keywords=words.by_side,
            coverage=words.coverage,
            similarity=best_by_slot(cosines, chunk_slots, np.frombuffer(sides, np.int8), slots),
            cosines=cosines,
            chunk_slots=chunk_slots,
            occurred_at=occurred.astype(float),
            answered=self._column("answered", "?"),
            conversation=conversation,
            held=words.held,
            codes=words.codes,
            speaker_named=self._speaker_named(slots, hashes_of(terms)),
            order=conversation_index.in_order(conversation, occurred, created),
        )

    def _fields(self, terms: np.ndarray) -> dict[str, Field]:
        lengths = {side: self._column(side, ">i4").astype(np.float32) for side in SIDES}
        # Words that were packed after the first statement are in `packed`, and not to count twice.
        was_packed = np.append(lengths["prompt"] >= 0, False)  # -1 reads the last one
        slots, packed = self._slots_packed_here(), list(self.packed.values())
        for n, side in enumerate(SIDES):
            lengths[side][slots] = [words.lengths[n] for words in packed]
        known = np.frombuffer(b"".join(words.terms for words in packed), "<u4")
        counts = _pairs(b"".join(words.counts for words in packed))
        of = np.repeat(slots, np.array([len(words.terms) // 4 for words in packed], int))
        found, times = [np.empty(0, int)], [_pairs(b"")]
        for term, hits in zip(terms, self.hits, strict=True):
            at, here = self._slots(hits.ids), known == term
            found.append(np.append(np.where(was_packed[at], at, NOBODY), of[here]))
            times += _pairs(hits.counts), counts[here]
        numbers = np.repeat(np.arange(len(terms)), [len(of_term) for of_term in found[1:]])
        texts = numbers, np.concatenate(found), np.concatenate(times)
        return {side: _field(*texts, lengths[side], n) for n, side in enumerate(SIDES)}

    def _slots_packed_here(self) -> np.ndarray:
        return self._slots(b"".join(memory_id.bytes for memory_id in self.packed))

    def _speaker_named(self, slots: int, terms: np.ndarray) -> np.ndarray:
        speakers, of_slot = conversation_index.Speakers(), np.full(slots, NOBODY)
        of_slot[self._column("spoken", "?")] = [speakers.number(name) for name in self.speakers]
        packed = self.packed.values()
        of_slot[self._slots_packed_here()] = [speakers.number(words.speaker) for words in packed]
        return speakers.named(of_slot, terms.tolist())

    def _chunk_slots(self) -> np.ndarray:
        slot_of = self._slots(self.chunks["ids"] or b"")
        # Older vectors of what has changed would find what it no longer says.
        embedded = np.append(self._column("embedded", "?"), False)  # -1 reads the last one
        return np.where(embedded[slot_of], slot_of, NOBODY)


def _pairs(counts: bytes) -> np.ndarray:
    return np.frombuffer(counts, np.uint8).reshape(-1, 2)


def _field(
    terms: np.ndarray, slots: np.ndarray, counts: np.ndarray, lengths: np.ndarray, side: int
) -> Field:
    here = (slots >= 0) & (counts[:, side] > 0)
    here[here] = lengths[slots[here]] > 0
    slots, times, texts = slots[here], counts[here, side].astype(np.float32), lengths > 0
    mean = float(lengths[texts].mean()) if texts.any() else 0.0
    return Field(terms[here], slots, times, lengths[slots], int(texts.sum()), mean)


class Slice(NamedTuple):
    """Memories by their ids, both ends included."""

    first: UUID
    last: UUID


# A slice, or the memories of these ids alone.
Part: TypeAlias = Slice | tuple[list[UUID]]


def _is_in(part: Part, place: int) -> str:
    """Say in SQL that an id is of the part, whose values are parameters from `place` on."""
    if isinstance(part, Slice):
        return f"BETWEEN ${place} AND ${place + 1}"
    return f"= ANY(${place}::uuid[])"


async def slices(conn: Connection, user_id: UUID) -> list[Slice]:
    """Cut a user's memories into SLICEs, the latest ids first: those of our making grow in time."""
    rows = await conn.fetch(
        """
        SELECT id FROM (
            SELECT id, row_number() OVER (ORDER BY id DESC) AS n FROM memory_layer.memories
             WHERE user_id = $1) m
         WHERE n % $2 = 0 ORDER BY n
        """,
        user_id,
        SLICE,
    )
    bounds = [row["id"].int for row in rows]
    firsts, lasts = [*bounds, 0], [UUID(int=2**128 - 1).int, *(n - 1 for n in bounds)]
    return [Slice(UUID(int=a), UUID(int=b)) for a, b in zip(firsts, lasts, strict=True)]


async def read(
    conn: Connection,
    user_id: UUID,
    terms: Counter[str],
    vector: np.ndarray | None,
    model: str,
    filters: Filters,
    part: Part,
) -> DatabaseIndex:
    memories, speakers = await _memories(conn, user_id, filters, part)
    hits = await hits_of(conn, user_id, hashes_of(terms), part)
    chunks = dict.fromkeys(("ids", "sides", "starts", "stops", "cosines"), b"")
    if vector is not None:
        chunks = await _chunks(conn, user_id, vector, model, part)
    return DatabaseIndex(memories, speakers, hits, chunks)


def together(parts: Sequence[DatabaseIndex]) -> DatabaseIndex:
    """Put the slices of one query together."""
    if len(parts) == 1:
        return parts[0]
    return DatabaseIndex(
        _joined([part.memories for part in parts]),
        [name for part in parts for name in part.speakers],
        [
            Hits(b"".join(h.ids for h in of_term), b"".join(h.counts for h in of_term))
            for of_term in zip(*(part.hits for part in parts), strict=True)
        ],
        _joined([part.chunks for part in parts]),
    )


def _joined(columns: Sequence[dict[str, bytes]]) -> dict[str, bytes]:
    return {name: b"".join(part[name] or b"" for part in columns) for name in columns[0]}


async def _memories(
    conn: Connection, user_id: UUID, filters: Filters, part: Part
) -> tuple[dict[str, bytes], list[bytes]]:
    # One row of long columns: a row for each memory would keep the event loop busy.
    row = await conn.fetchrow(
        f"""
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
         WHERE m.user_id = $1 AND m.deleted_at IS NULL AND m.id {_is_in(part, 7)}
        """,  # nosec B608 # only numbers of parameters
        user_id,
        ANALYZER,
        filters.provider,
        filters.conversation_id,
        filters.after,
        filters.before,
        *part,
    )
    columns = dict(row) if row else {}
    return columns, columns.pop("speakers", None) or []


async def hits_of(conn: Connection, user_id: UUID, terms: np.ndarray, part: Part) -> list[Hits]:
    # LATERAL: the words of each memory are read once, and not once for each term.
    rows = await conn.fetch(
        f"""
        SELECT f.n, string_agg(uuid_send(k.memory_id), '') AS ids,
               string_agg(substring(k.counts FROM f.place / 2 + 1 FOR 2), '') AS counts
          FROM memory_layer.keywords k
         CROSS JOIN LATERAL (
                SELECT t.n, position(t.term IN k.terms) - 1 AS place
                  FROM unnest($2::bytea[]) WITH ORDINALITY AS t (term, n) OFFSET 0) AS f
         WHERE k.user_id = $1 AND k.analyzer = $3 AND k.memory_id {_is_in(part, 4)}
           AND f.place >= 0 AND f.place % 4 = 0
         GROUP BY f.n
        """,  # nosec B608 # only numbers of parameters
        user_id,
        [term.tobytes() for term in terms],
        ANALYZER,
        *part,
    )
    found = {row["n"]: Hits(row["ids"], row["counts"]) for row in rows}
    return [found.get(n, Hits(b"", b"")) for n in range(1, len(terms) + 1)]


async def _chunks(
    conn: Connection, user_id: UUID, vector: np.ndarray, model: str, part: Part
) -> dict[str, bytes]:
    row = await conn.fetchrow(
        f"""
        WITH query AS MATERIALIZED (SELECT memory_layer.as_vector($2::real[]) AS vector)
        SELECT string_agg(uuid_send(c.memory_id), '') AS ids,
               string_agg(CASE c.role WHEN 'prompt' THEN '\\x00'::bytea ELSE '\\x01' END, '')
                   AS sides,
               string_agg(int4send(c.start), '') AS starts,
               string_agg(int4send(c.stop), '') AS stops,
               string_agg(float4send(
                   memory_layer.cosine_of_units(c.embedding, query.vector)::float4), '') AS cosines
          FROM query, memory_layer.chunks c
         WHERE c.user_id = $1 AND c.embedding_model = $3 AND c.memory_id {_is_in(part, 4)}
        """,  # nosec B608 # only numbers of parameters
        user_id,
        vector.tolist(),
        model,
        *part,
    )
    return dict(row) if row else {}
