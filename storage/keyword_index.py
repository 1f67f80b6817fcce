"""BM25 over one field of one user's memories, kept up to date in memory."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np

from storage.analyzer import term_counts

# Okapi BM25 (Robertson & Zaragoza 2009). b near 1 keeps long answers from drowning short prompts.
K1, B = 1.2, 0.9


class KeywordField:
    """Documents are numbered as they come; each belongs to a slot, the memory's place."""

    def __init__(self) -> None:
        self._postings: dict[str, tuple[array[int], array[float]]] = {}
        self._lengths: array[float] = array("f")
        self._slots: array[int] = array("i")
        self._alive = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._alive

    def add(self, slot: int, text: str) -> int:
        """Index `text` and return its document number."""
        document = len(self._slots)
        counts = term_counts(text)
        for term, times in counts.items():
            posting = self._postings.get(term)
            if posting is None:
                posting = self._postings[term] = (array("i"), array("f"))
                self.bytes += 250
            posting[0].append(document)
            posting[1].append(times)
        self._slots.append(slot)
        self._lengths.append(counts.total())
        self._alive += 1
        self.bytes += 8 * len(counts) + 8
        return document

    def remove(self, document: int) -> None:
        """Leave the postings and make them count for nobody."""
        self._slots[document] = -1
        self._alive -= 1

    @property
    def wasteful(self) -> bool:
        dead = len(self._slots) - self._alive
        return dead > 200 and dead > self._alive

    def rarity(self, term: str) -> float:
        """Inverse document frequency; a term that no memory holds is the rarest."""
        posting = self._postings.get(term)
        frequency = min(len(posting[0]), self._alive) if posting else 0
        return math.log(1 + (self._alive - frequency + 0.5) / (frequency + 0.5))

    def scores(self, terms: Counter[str], slots: int) -> np.ndarray:
        """Return each slot's BM25 score, shape (slots,); 0 where no term occurs."""
        by_document = np.zeros(len(self._slots), dtype=np.float32)
        if not self._alive:
            return np.zeros(slots, dtype=np.float32)
        lengths = np.frombuffer(self._lengths, dtype=np.float32)
        norm = K1 * (1 - B + B * lengths / max(float(lengths.mean()), 1.0))
        for term, documents, times in self._found(terms):
            weight = self.rarity(term) * terms[term]
            by_document[documents] += weight * times * (K1 + 1) / (times + norm[documents])
        return self._by_slot(by_document, slots)

    def coverage(self, rarities: dict[str, float], slots: int) -> np.ndarray:
        """Return which share of the query's rarity each slot's text holds, shape (slots,)."""
        by_document = np.zeros(len(self._slots), dtype=np.float32)
        total = sum(rarities.values()) or 1.0
        for term, documents, _ in self._found(rarities):
            by_document[documents] += rarities[term] / total
        return self._by_slot(by_document, slots)

    def holds(self, term: str, slots: int) -> np.ndarray:
        """Return whether each slot's text holds the term, shape (slots,)."""
        held = np.zeros(slots, dtype=bool)
        where = np.frombuffer(self._slots, dtype=np.int32)
        for _, documents, _ in self._found([term]):
            alive = where[documents]
            held[alive[alive >= 0]] = True
        return held

    def _found(self, terms: Iterable[str]) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
        for term in terms:
            if posting := self._postings.get(term):
                yield (
                    term,
                    np.frombuffer(posting[0], dtype=np.int32),
                    np.frombuffer(posting[1], dtype=np.float32),
                )

    def _by_slot(self, by_document: np.ndarray, slots: int) -> np.ndarray:
        scores = np.zeros(slots, dtype=np.float32)
        where = np.frombuffer(self._slots, dtype=np.int32)
        alive = where >= 0
        scores[where[alive]] = by_document[alive]
        return scores
