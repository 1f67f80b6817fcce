"""Which memories belong to one conversation, in what order, and who speaks in them."""

from collections.abc import Collection

import numpy as np

# How often a word must fall in a conversation before more of it counts little; as BM25's k1.
SATURATION = 1.2
NOBODY = -1
# Terms times slots that are looked at together: a query of thousands of words, of a person with a
# hundred thousand memories, would fill a gigabyte.
MOST_CELLS = 1_000_000


def in_order(conversation: np.ndarray, occurred: np.ndarray, created: np.ndarray) -> np.ndarray:
    """Return all slots of a conversation, one conversation after the other, each as it went."""
    order = np.lexsort((created, occurred, conversation))
    listed: np.ndarray = order[conversation[order] != NOBODY]
    return listed


def word_scores(conversation: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Score each slot's conversation as one text: BM25 without a length, shape (slots,).

    `conversation` numbers them from 0. `held`, shape (2, pairs), has numbers of terms above slots
    that hold them; a pair may come twice.
    """
    known = np.flatnonzero(conversation != NOBODY)
    of = conversation[known]
    count = int(of.max(initial=NOBODY)) + 1
    alive = np.count_nonzero(np.bincount(of, minlength=count))
    terms, at_once = int(held[0].max(initial=-1)) + 1, MOST_CELLS // max(len(conversation), 1) + 1
    scores = np.zeros(count + 1)
    for start in range(0, terms, at_once):
        here = min(at_once, terms - start)
        holds = np.zeros((here, len(conversation)), dtype=bool)
        number, slot = held[:, (held[0] >= start) & (held[0] < start + here)]
        holds[number - start, slot] = True
        term, place = np.nonzero(holds[:, known])
        times = np.bincount(term * count + of[place], minlength=here * count)
        times = times.reshape(here, count)
        frequency = np.count_nonzero(times, axis=1)
        rarity = np.log(1 + (alive - frequency + 0.5) / (frequency + 0.5))
        for score in rarity[:, np.newaxis] * times / (times + SATURATION):
            scores[:count] += score
    by_slot: np.ndarray = scores[conversation]  # -1 reads the last one, which stays 0
    return by_slot


class Speakers:
    """The names that transcripts' lines begin with, as hashes of their words."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._names: list[frozenset[int]] = []

    def number(self, name: bytes | None) -> int:
        if not name:
            return NOBODY
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(frozenset(np.frombuffer(name, "<u4").tolist()))
        return self._numbers[name]

    def named(self, of_slot: np.ndarray, wanted: Collection[int]) -> np.ndarray:
        """Return which slots are said by somebody whose name is among the terms' hashes."""
        among = set(wanted)
        named = [not name.isdisjoint(among) for name in self._names]
        said: np.ndarray = np.array([*named, False])[of_slot]  # -1 reads the last one
        return said
