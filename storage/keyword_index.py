"""Which memories hold a term, over one field of one user's memories: sorted segments of numbers."""

from dataclasses import dataclass

import numpy as np

from storage.columns import Columns

# A posting is 24 bits of document and 8 of how often the term occurs in it.
MOST_DOCUMENTS = 1 << 24
_TIMES = np.uint32(0xFF)
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Field:
    """Where a query's terms occur in one field: which term, by its number, in which slot's text,
    how often, and how long that is; those of the first term first. A slot has one text."""

    terms: np.ndarray
    slots: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    texts: int
    mean_length: float


class _Segment:
    """Postings sorted by term and document, which nothing changes any more."""

    def __init__(self, keys: np.ndarray) -> None:
        """Take unsorted uint64: the term's hash, then the posting."""
        keys = np.sort(keys)
        terms = (keys >> np.uint64(32)).astype(np.uint32)
        is_first = np.ones(len(terms), dtype=bool)
        is_first[1:] = terms[1:] != terms[:-1]
        first = np.flatnonzero(is_first)
        self.terms = terms[first]
        self.starts = np.append(first, len(keys)).astype(np.int32)
        self.postings = keys.astype(np.uint32)

    def __len__(self) -> int:
        return len(self.postings)

    @property
    def nbytes(self) -> int:
        return self.terms.nbytes + self.starts.nbytes + self.postings.nbytes

    def keys(self) -> np.ndarray:
        terms = np.repeat(self.terms, np.diff(self.starts))
        return terms.astype(np.uint64) << np.uint64(32) | self.postings

    def of(self, terms: np.ndarray) -> list[np.ndarray]:
        """Return the postings of each term."""
        at = np.minimum(self.terms.searchsorted(terms), len(self.terms) - 1)
        # What is not here ends where it starts.
        starts, stops = self.starts[at], self.starts[at + (self.terms[at] == terms)]
        return [self.postings[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]


class KeywordField:
    """Documents are numbered as they come; each belongs to a slot, the memory's place."""

    def __init__(self) -> None:
        self._documents = Columns(slot="i4", length="f4")
        self._segments: list[_Segment] = []
        self._alive = self._length = 0  # how many texts, and the terms of all of them

    @property
    def nbytes(self) -> int:
        return self._documents.nbytes + sum(segment.nbytes for segment in self._segments)

    @property
    def wasteful(self) -> bool:
        dead = len(self._documents) - self._alive
        return (dead > 200 and dead > self._alive) or len(self._documents) > MOST_DOCUMENTS // 2

    def add(
        self, slots: np.ndarray, lengths: np.ndarray, each: np.ndarray, terms: np.ndarray,
        times: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Index texts, each with the next `each` of the terms; return their numbers, or NOBODY.

        Lengths and times of 0 say that this side has no text and does not hold the term.
        """
        present = lengths > 0
        count = int(np.count_nonzero(present))
        numbers = np.full(len(slots), NOBODY)
        if not count:
            return numbers
        numbers[present] = np.arange(count) + len(self._documents)
        self._documents.append(count, slot=slots[present], length=lengths[present])
        self._alive += count
        self._length += int(lengths.sum())
        held = times > 0
        keys = _keys(terms[held], np.repeat(numbers, each)[held], times[held])
        if len(keys):
            self._segments.append(_Segment(keys))
        return numbers

    def remove(self, documents: np.ndarray) -> None:
        """Leave the postings and make them count for nobody."""
        if not len(documents):
            return
        self._documents["slot"][documents] = NOBODY
        self._alive -= len(documents)
        self._length -= int(self._documents["length"][documents].sum(dtype=float))

    def compact(self) -> np.ndarray:
        """Drop what was removed; return the new number of each document that is left."""
        alive = self._documents["slot"] != NOBODY
        renumbered = np.cumsum(alive) - 1
        keys = np.concatenate([segment.keys() for segment in self._segments])
        documents = (keys >> np.uint64(8)).astype(np.uint32) & np.uint32(MOST_DOCUMENTS - 1)
        kept, numbers = alive[documents], renumbered[documents]
        terms, times = (keys >> np.uint64(32))[kept], (keys & np.uint64(0xFF))[kept]
        self._segments = [_Segment(_keys(terms, numbers[kept], times))] if kept.any() else []
        self._documents.keep(alive)
        return renumbered

    def tidy(self) -> None:
        """Merge the last segments until each is twice the next: few to look into, few merges."""
        start, postings = len(self._segments), 0
        while start and (not postings or len(self._segments[start - 1]) < 2 * postings):
            start -= 1
            postings += len(self._segments[start])
        if len(self._segments) - start > 1:
            merged = np.concatenate([segment.keys() for segment in self._segments[start:]])
            self._segments[start:] = [_Segment(merged)]

    def find(self, terms: np.ndarray) -> Field:
        """Look up the terms' hashes in all texts that are alive."""
        in_segments = [segment.of(terms) for segment in self._segments]
        by_term = list(zip(*in_segments, strict=True)) or [()] * len(terms)
        parts = [postings for of_term in by_term for postings in of_term]
        postings = np.concatenate([np.empty(0, np.uint32), *parts])
        counts = [sum(map(len, of_term)) for of_term in by_term]
        numbers = np.repeat(np.arange(len(terms)), counts)
        documents = postings >> np.uint32(8)
        slots = self._documents["slot"][documents]
        if self._alive < len(self._documents):
            alive = slots != NOBODY
            numbers, slots = numbers[alive], slots[alive]
            documents, postings = documents[alive], postings[alive]
        return Field(
            numbers,
            slots,
            (postings & _TIMES).astype(np.float32),
            self._documents["length"][documents],
            self._alive,
            self._length / self._alive if self._alive else 0.0,
        )


def _keys(terms: np.ndarray, documents: np.ndarray, times: np.ndarray) -> np.ndarray:
    postings = documents.astype(np.uint64) << np.uint64(8) | times
    keys: np.ndarray = terms.astype(np.uint64) << np.uint64(32) | postings
    return keys
