"""One user's memories as search sees them: a cache of Postgres that can be thrown away."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import faiss
import numpy as np

from storage.change_feed import Change, Chunk
from storage.conversation_index import ConversationIndex, words_of_date
from storage.keyword_index import KeywordField
from storage.memory_store import Filters

SIDES = ("prompt", "response")
# Of more chunks than this only the nearest take part; the others' similarity counts as the least.
MOST_NEIGHBOURS = 1_000


@dataclass(slots=True)
class _Entry:
    slot: int
    change_seq: int
    content_hash: bytes = bytes(32)
    date: str = ""
    documents: list[int | None] = field(default_factory=lambda: [None, None])
    chunks: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for each slot, arrays of shape (slots,); a similarity of -1 means unknown.

    `order` alone lists slots: those of each conversation one after the other, as it went.
    """

    allowed: np.ndarray
    keywords: dict[str, np.ndarray]
    coverage: np.ndarray
    similarity: dict[str, np.ndarray]
    best_chunk: np.ndarray
    occurred_at: np.ndarray
    answered: np.ndarray
    conversation: np.ndarray
    conversation_words: np.ndarray
    speaker_named: np.ndarray
    order: np.ndarray


class UserIndex:
    """Every change moves a memory only forward: an older reading never undoes a newer one."""

    def __init__(self, dimensions: int) -> None:
        self.change_seq = 0
        self.epoch: UUID | None = None
        self.ids: list[UUID] = []
        self._entries: dict[UUID, _Entry] = {}
        self._alive = array("b")
        self._providers: list[str] = []
        self._conversations: list[str | None] = []
        self._occurred = array("d")
        self._answered = array("b")
        self._talks = ConversationIndex()
        self._fields = {side: KeywordField() for side in SIDES}
        self._vectors = faiss.IndexFlatIP(dimensions) if dimensions else None
        self._chunk_slot = array("i")
        self._chunk_side = array("b")
        self._gone = 0
        self._chunk_places: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return sum(self._alive)

    @property
    def vectors(self) -> int:
        return len(self._chunk_slot)

    @property
    def bytes(self) -> int:
        """A rough sum of what this cache holds."""
        vectors = self._vectors.ntotal * (self._vectors.d * 4 + 80) if self._vectors else 0
        return int(
            4_000 + vectors + 1_200 * len(self.ids) + sum(f.bytes for f in self._fields.values())
        )

    @property
    def wasteful(self) -> bool:
        """More than half of it belongs to texts that are gone: time to load anew."""
        vectors = self.vectors > 1_000 and self._gone * 2 > self.vectors
        return vectors or any(field.wasteful for field in self._fields.values())

    def apply(self, changes: Sequence[Change], chunks: Sequence[Chunk]) -> None:
        """Take in a page of the change feed with the vectors of the memories in it."""
        applied = {change.id for change in changes if self._apply_one(change)}
        fresh = [chunk for chunk in chunks if chunk.memory_id in applied]
        if fresh and self._vectors is not None:
            self._vectors.add(np.stack([chunk.vector for chunk in fresh]))
            for chunk in fresh:
                self._add_chunk(chunk)
        if changes:
            self.change_seq = max(self.change_seq, changes[-1].change_seq)

    def _apply_one(self, change: Change) -> bool:
        entry = self._entries.get(change.id)
        if entry is None:
            entry = self._entries[change.id] = _Entry(len(self.ids), -1)
            self.ids.append(change.id)
            self._alive.append(0)
            self._providers.append(change.provider)
            self._conversations.append(change.conversation_id)
            self._occurred.append(0.0)
            self._answered.append(0)
        if change.change_seq <= entry.change_seq:
            return False
        entry.change_seq = change.change_seq
        slot = entry.slot
        self._alive[slot] = not change.deleted
        self._providers[slot] = change.provider
        self._conversations[slot] = change.conversation_id
        self._occurred[slot] = change.occurred_at.timestamp()
        self._answered[slot] = bool(change.response)
        self._talks.put(slot, change)
        for number in entry.chunks:
            self._chunk_slot[number] = -1
        self._gone += len(entry.chunks)
        entry.chunks = []
        self._index_texts(entry, change)
        return not change.deleted

    def _index_texts(self, entry: _Entry, change: Change) -> None:
        halves = (change.content_hash[:16], change.content_hash[16:])
        known = (entry.content_hash[:16], entry.content_hash[16:])
        date = words_of_date(change)
        for n, (side, text) in enumerate(zip(SIDES, (change.prompt, change.response), strict=True)):
            document = entry.documents[n]
            same = halves[n] == known[n] and date == entry.date
            if text is not None and document is not None and same:
                continue
            if document is not None:
                self._fields[side].remove(document)
                entry.documents[n] = None
            if text:
                entry.documents[n] = self._fields[side].add(entry.slot, f"{date} {text}")
        entry.content_hash, entry.date = change.content_hash, date

    def _add_chunk(self, chunk: Chunk) -> None:
        entry = self._entries[chunk.memory_id]
        entry.chunks.append(len(self._chunk_slot))
        self._chunk_slot.append(entry.slot)
        self._chunk_side.append(SIDES.index(chunk.role))
        self._chunk_places.append((chunk.start, chunk.stop))

    def chunk_place(self, number: int) -> tuple[str, int, int]:
        """Return the side of the chunk and its start and stop in that text."""
        return SIDES[self._chunk_side[number]], *self._chunk_places[number]

    def evidence(
        self, terms: Counter[str], vector: np.ndarray | None, filters: Filters
    ) -> Evidence:
        """Score every memory against the query's terms and vector (or None, where unknown)."""
        slots = len(self.ids)
        most = self.vectors if filters != Filters() else min(self.vectors, MOST_NEIGHBOURS)
        similarity, best_chunk = self._similarity(vector, slots, most)
        rarities = {term: max(f.rarity(term) for f in self._fields.values()) for term in terms}
        return Evidence(
            allowed=self._allowed(filters),
            keywords={side: f.scores(terms, slots) for side, f in self._fields.items()},
            coverage=np.maximum(*(f.coverage(rarities, slots) for f in self._fields.values())),
            similarity=similarity,
            best_chunk=best_chunk,
            occurred_at=np.array(self._occurred),
            answered=np.array(self._answered, dtype=bool),
            conversation=self._talks.of_slot,
            conversation_words=self._talks.words(self._holding(terms, slots)),
            speaker_named=self._talks.named(terms),
            order=self._talks.order,
        )

    def _holding(self, terms: Counter[str], slots: int) -> Iterator[np.ndarray]:
        for term in terms:
            yield np.logical_or(*(f.holds(term, slots) for f in self._fields.values()))

    def _allowed(self, filters: Filters) -> np.ndarray:
        allowed = np.array(self._alive, dtype=bool)
        occurred = np.array(self._occurred)
        if filters.provider is not None:
            allowed &= np.array([p == filters.provider for p in self._providers], dtype=bool)
        if filters.conversation_id is not None:
            wanted = filters.conversation_id
            allowed &= np.array([c == wanted for c in self._conversations], dtype=bool)
        if filters.after is not None:
            allowed &= occurred >= filters.after.timestamp()
        if filters.before is not None:
            allowed &= occurred < filters.before.timestamp()
        return allowed

    def _similarity(
        self, vector: np.ndarray | None, slots: int, most: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return each side's best cosine, and the chunk that is nearest of all (or -1)."""
        best = {side: np.full(slots, -1.0, dtype=np.float32) for side in SIDES}
        chunk_of = np.full(slots, -1, dtype=np.int64)
        if vector is None or self._vectors is None or not most:
            return best, chunk_of
        cosines, numbers = self._vectors.search(vector.reshape(1, -1), most)
        # Worst first: of several chunks of a slot the last one written, the best, stays.
        cosines, numbers = cosines[0][::-1], numbers[0][::-1]
        slot_of, side_of = np.array(self._chunk_slot)[numbers], np.array(self._chunk_side)[numbers]
        chunk_of[slot_of[slot_of >= 0]] = numbers[slot_of >= 0]
        for n, side in enumerate(SIDES):
            here = (slot_of >= 0) & (side_of == n)
            best[side][slot_of[here]] = cosines[here]
        return best, chunk_of
