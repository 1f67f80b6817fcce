"""One user's memories as search sees them: a cache of Postgres that can be thrown away."""

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from storage import conversation_index, keyword_scores
from storage.change_feed import Change, Chunks, Fingerprint
from storage.columns import Columns
from storage.keyword_index import NOBODY, KeywordField
from storage.memory_store import Filters
from storage.packed_terms import Packed, hashes_of
from storage.vector_index import VectorIndex

SIDES = ("prompt", "response")
# What a memory costs beside its columns: its entry in the dictionary of ids.
_DICTIONARY_BYTES = 200


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for each slot, arrays of shape (slots,); a similarity of -1 means unknown.

    `terms` counts those of the query. `order` lists slots: those of each conversation one after the
    other, as it went. `cosines` are of the chunks, and `chunk_slots` says whose each is; a slot of
    -1 is nobody's. `held` has the numbers of the query's terms above slots that hold them,
    `codes` those of the terms that are codes.
    """

    terms: int
    allowed: np.ndarray
    keywords: dict[str, np.ndarray]
    coverage: np.ndarray
    similarity: dict[str, np.ndarray]
    cosines: np.ndarray
    chunk_slots: np.ndarray
    occurred_at: np.ndarray
    answered: np.ndarray
    conversation: np.ndarray
    held: np.ndarray
    codes: list[int]
    speaker_named: np.ndarray
    order: np.ndarray

    def conversation_words(self) -> np.ndarray:
        """What the query's words say for each one's conversation as one text."""
        return conversation_index.word_scores(self.conversation, self.held)


class UserIndex:
    """Every change moves a memory only forward: an older reading never undoes a newer one."""

    def __init__(self, dimensions: int) -> None:
        self.change_seq = 0
        self.epoch: UUID | None = None
        self.purged_through = 0
        self.purges = 0
        self._slots: dict[bytes, int] = {}
        self._memories = Columns(
            id="V16", change_seq="i8", alive="?", provider="i4", conversation="i4", occurred="f8",
            created="f8", answered="?", speaker="i4", content="i8", prompt="i4", response="i4",
        )  # fmt: skip
        self._providers: dict[str, int] = {}
        self._conversations: dict[tuple[str, str], int] = {}
        self._speakers = conversation_index.Speakers()
        self._order: np.ndarray | None = None
        self._fields = {side: KeywordField() for side in SIDES}
        self._vectors = VectorIndex(dimensions)
        self._chunks = Columns(slot="i4", side="i1", start="i4", stop="i4")

    def __len__(self) -> int:
        return int(self._memories["alive"].sum())

    @property
    def vectors(self) -> int:
        return len(self._chunks)

    @property
    def nbytes(self) -> int:
        """What this cache holds, within a few percent."""
        columns = self._memories.nbytes + self._chunks.nbytes + self._vectors.nbytes
        words = sum(field.nbytes for field in self._fields.values())
        names = 300 * len(self._conversations)
        return 10_000 + columns + words + names + _DICTIONARY_BYTES * len(self._slots)

    def ids_of(self, slots: Sequence[int]) -> list[bytes]:
        ids = self._memories["id"][np.array(slots, int)].tobytes()
        return [ids[n : n + 16] for n in range(0, len(ids), 16)]

    def apply(self, changes: Sequence[Change], chunks: Chunks | None = None) -> None:
        """Take in a page of the change feed, its texts packed, with the vectors of its memories."""
        newer = [change for change in changes if self._is_newer(change)]
        if newer:
            slots = self._put(newer)
            self._forget_chunks(slots)
            self._index_texts(newer, slots)
            self._order = None
            if chunks:
                self._add_chunks({c.id.bytes for c in newer if not c.deleted}, chunks)
        if changes:
            self.change_seq = max(self.change_seq, changes[-1].change_seq)

    def _is_newer(self, change: Change) -> bool:
        slot = self._slots.get(change.id.bytes)
        return slot is None or change.change_seq > self._memories["change_seq"][slot]

    def _put(self, changes: Sequence[Change]) -> np.ndarray:
        """Return the slots of the changes, which now say what the changes say."""
        said = self._said(changes)
        fresh = [change.id.bytes for change in changes if change.id.bytes not in self._slots]
        if fresh:
            self._slots.update({i: n for n, i in enumerate(fresh, len(self._slots))})
            nothing = dict.fromkeys(("prompt", "response"), NOBODY) | dict.fromkeys(("content",), 0)
            ids = np.frombuffer(b"".join(fresh), "V16")
            self._memories.append(len(fresh), id=ids, **nothing, **dict.fromkeys(said, 0))
        slots = np.array([self._slots[change.id.bytes] for change in changes])
        for name, values in said.items():
            self._memories[name][slots] = values
        return slots

    def _said(self, changes: Sequence[Change]) -> dict[str, list[float]]:
        providers, speakers = self._providers, self._speakers
        return {
            "change_seq": [change.change_seq for change in changes],
            "alive": [not change.deleted for change in changes],
            "answered": [change.answered for change in changes],
            "occurred": [change.occurred_at.timestamp() for change in changes],
            "created": [change.created_at.timestamp() for change in changes],
            "provider": [providers.setdefault(c.provider, len(providers)) for c in changes],
            "conversation": [self._conversation_of(change) for change in changes],
            "speaker": [speakers.number(c.packed.speaker if c.packed else None) for c in changes],
        }

    def _conversation_of(self, change: Change) -> int:
        if change.conversation_id is None or change.deleted:
            return NOBODY
        numbers = self._conversations
        return numbers.setdefault((change.provider, change.conversation_id), len(numbers))

    def _index_texts(self, changes: Sequence[Change], slots: np.ndarray) -> None:
        """Renew the words of those whose texts or dates are others than before."""
        contents = np.array([_content(change) for change in changes])
        changed = contents != self._memories["content"][slots]
        if not changed.any():
            return
        slots = slots[changed]
        self._memories["content"][slots] = contents[changed]
        packed = [
            change.packed or Packed((0, 0), b"", b"", None)
            for change, is_changed in zip(changes, changed.tolist(), strict=True)
            if is_changed
        ]
        terms = np.frombuffer(b"".join(item.terms for item in packed), "<u4")
        counts = np.frombuffer(b"".join(item.counts for item in packed), np.uint8).reshape(-1, 2)
        each = np.array([len(item.terms) // 4 for item in packed], np.int64)
        lengths = np.array([item.lengths for item in packed]).reshape(-1, 2)
        for n, side in enumerate(SIDES):
            documents = self._memories[side][slots]
            self._fields[side].remove(documents[documents != NOBODY])
            self._memories[side][slots] = self._fields[side].add(
                slots, lengths[:, n], each, terms, counts[:, n]
            )

    def _forget_chunks(self, slots: np.ndarray) -> None:
        if not len(self._chunks):
            return
        gone = np.zeros(len(self._memories) + 1, dtype=bool)
        gone[slots] = True  # -1 reads the last one, which stays False
        self._chunks["slot"][gone[self._chunks["slot"]]] = NOBODY

    def _add_chunks(self, applied: Set[bytes], chunks: Chunks) -> None:
        slots = np.array([self._slots[i] if i in applied else NOBODY for i in chunks.ids], int)
        fresh = slots != NOBODY
        self._vectors.add(chunks.vectors[fresh])
        self._chunks.append(
            int(fresh.sum()),
            slot=slots[fresh],
            side=chunks.sides[fresh],
            start=chunks.starts[fresh],
            stop=chunks.stops[fresh],
        )

    def tidy(self) -> None:
        """Make what was added quick to search, and give back the room of what is gone.

        May take a tenth of a second for 50,000 chunks: call it in a thread.
        """
        for side, field in self._fields.items():
            if field.wasteful:
                documents = self._memories[side]
                known = documents != NOBODY
                documents[known] = field.compact()[documents[known]]
            field.tidy()
        kept = self._chunks["slot"] != NOBODY
        gone = len(kept) - np.count_nonzero(kept)
        if gone > max(1_000, len(kept) // 4):
            self._vectors.keep(kept)
            self._chunks.keep(kept)

    def fingerprint(self) -> Fingerprint:
        alive = self._memories["alive"]
        numbers, ids = self._memories["change_seq"][alive], self._memories["id"][alive]
        order = np.argsort(numbers)
        listed = np.rec.fromarrays([ids[order], numbers[order].astype(">i8")])
        chunks = int((self._chunks["slot"] != NOBODY).sum())
        return Fingerprint(hashlib.sha256(listed.tobytes()).digest(), chunks)

    def chunk_places(self, numbers: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return the side of each chunk and its start and stop in that text."""
        at = np.array(numbers, int)
        columns = (self._chunks[name][at].tolist() for name in ("side", "start", "stop"))
        return [(SIDES[side], start, stop) for side, start, stop in zip(*columns, strict=True)]

    def evidence(
        self, terms: Counter[str], vector: np.ndarray | None, filters: Filters
    ) -> Evidence:
        """Score every memory against the query's terms and vector (or None, where unknown)."""
        memories, slots = self._memories, len(self._memories)
        cosines, chunk_slots = np.empty(0, np.float32), np.empty(0, np.intp)
        if vector is not None:
            # All of them, since the ranking counts from the least similar one.
            cosines, chunk_slots = self._vectors.cosines(vector), self._chunks["slot"]
        hashes = hashes_of(terms)
        found = {side: field.find(hashes) for side, field in self._fields.items()}
        words = keyword_scores.score(terms, found, slots)
        conversation = memories["conversation"]
        if self._order is None:
            said = memories["occurred"], memories["created"]
            self._order = conversation_index.in_order(conversation, *said)
        return Evidence(
            terms=len(terms),
            allowed=self._allowed(filters),
            keywords=words.by_side,
            coverage=words.coverage,
            similarity=best_by_slot(cosines, chunk_slots, self._chunks["side"], slots),
            cosines=cosines,
            chunk_slots=chunk_slots,
            occurred_at=memories["occurred"],
            answered=memories["answered"],
            conversation=conversation,
            held=words.held,
            codes=words.codes,
            speaker_named=self._speakers.named(memories["speaker"], hashes.tolist()),
            order=self._order,
        )

    def _allowed(self, filters: Filters) -> np.ndarray:
        allowed: np.ndarray = self._memories["alive"].copy()
        occurred = self._memories["occurred"]
        if filters.provider is not None:
            wanted = self._providers.get(filters.provider, NOBODY)
            allowed &= self._memories["provider"] == wanted
        if filters.conversation_id is not None:
            numbers = [
                n for (_, i), n in self._conversations.items() if i == filters.conversation_id
            ]
            allowed &= np.isin(self._memories["conversation"], numbers)
        if filters.after is not None:
            allowed &= occurred >= filters.after.timestamp()
        if filters.before is not None:
            allowed &= occurred < filters.before.timestamp()
        return allowed


def best_by_slot(
    cosines: np.ndarray, slot_of: np.ndarray, side_of: np.ndarray, slots: int
) -> dict[str, np.ndarray]:
    """Return each side's best cosine of each slot, or -1; a slot of -1 is nobody's."""
    best = np.full(len(SIDES) * (slots + 1), -1.0, dtype=np.float32)
    if len(cosines):
        # Nobody's are counted for one slot more, the last one.
        np.maximum.at(best, slot_of + np.intp(slots + 1) * side_of, cosines)
    return {side: best[n * (slots + 1) :][:slots] for n, side in enumerate(SIDES)}


def nearest_chunks(evidence: Evidence, slots: Sequence[int]) -> dict[int, int]:
    """Return the number of the nearest chunk of each of the slots that have any."""
    wanted = np.zeros(len(evidence.allowed) + 1, dtype=bool)
    wanted[slots] = True  # -1 reads the last one, which stays False
    here = np.flatnonzero(wanted[evidence.chunk_slots])
    furthest_first = here[np.argsort(evidence.cosines[here], kind="stable")]
    of = evidence.chunk_slots[furthest_first]
    return dict(zip(of.tolist(), furthest_first.tolist(), strict=True))


def _content(change: Change) -> int:
    """A number of what the words are made of; 0 for nothing, and for what nobody has packed."""
    unknown = change.deleted or change.packed is None
    return 0 if unknown else hash((change.content_hash, change.occurred_at))
