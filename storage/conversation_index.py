"""Which memories belong to one conversation, in what order, and who speaks in them."""

from collections.abc import Collection, Iterable

import numpy as np

# How often a word must fall in a conversation before more of it counts little; as BM25's k1.
SATURATION = 1.2
NOBODY = -1


def in_order(conversation: np.ndarray, occurred: np.ndarray, created: np.ndarray) -> np.ndarray:
    """Return all slots of a conversation, one conversation after the other, each as it went."""
    order = np.lexsort((created, occurred, conversation))
    listed: np.ndarray = order[conversation[order] != NOBODY]
    return listed


def word_scores(conversation: np.ndarray, held: Iterable[np.ndarray]) -> np.ndarray:
    """Score each slot's conversation as one text: BM25 without a length, shape (slots,).

    `conversation` numbers them from 0; `held` says of each term which slots hold it.
    """
    known = conversation != NOBODY
    count = int(conversation.max(initial=NOBODY)) + 1
    alive = int((np.bincount(conversation[known], minlength=count) > 0).sum())
    scores = np.zeros(count + 1)
    for slots in held:
        times = np.bincount(conversation[slots & known], minlength=count)
        frequency = int((times > 0).sum())
        rarity = np.log(1 + (alive - frequency + 0.5) / (frequency + 0.5))
        scores[:count] += rarity * times / (times + SATURATION)
    by_slot: np.ndarray = scores[conversation]  # -1 reads the last one, which stays 0
    return by_slot


class Speakers:
    """The names that transcripts' lines begin with, as hashes of their words."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def number(self, name: bytes | None) -> int:
        return self._numbers.setdefault(name, len(self._numbers)) if name else NOBODY

    def named(self, of_slot: np.ndarray, wanted: Collection[int]) -> np.ndarray:
        """Return which slots are said by somebody whose name is among the terms' hashes."""
        among = set(wanted)
        numbers = [
            number
            for name, number in self._numbers.items()
            if among & set(np.frombuffer(name, "<u4").tolist())
        ]
        return np.isin(of_slot, numbers)
