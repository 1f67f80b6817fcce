"""Which memories belong to one conversation, in what order, and who speaks in them."""

import re
from array import array
from collections.abc import Iterable

import numpy as np

from storage.analyzer import terms
from storage.change_feed import Change

# How often a word must fall in a conversation before more of it counts little; as BM25's k1.
SATURATION = 1.2
# "Anna Berg: see you at noon", as transcripts of several people say who speaks.
_SPEAKER = re.compile(r"\s*([^\W\d_][\w.'’-]*(?: [^\W\d_][\w.'’-]*){0,2}): \S")  # noqa: RUF001
NOBODY = -1


class ConversationIndex:
    """One entry for each slot, a memory's place; -1 is no conversation and no speaker."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._of_slot = array("i")
        self._said_at: list[tuple[float, float]] = []
        self._speakers: dict[tuple[str, ...], int] = {}
        self._speaker_of_slot = array("i")
        self._order: np.ndarray | None = None

    def put(self, slot: int, change: Change) -> None:
        """Take in a memory as it stands; slots come in order the first time."""
        if slot == len(self._of_slot):
            self._of_slot.append(NOBODY)
            self._speaker_of_slot.append(NOBODY)
            self._said_at.append((0.0, 0.0))
        key = (change.provider, change.conversation_id or "")
        listed = change.conversation_id is not None and not change.deleted
        self._of_slot[slot] = self._numbers.setdefault(key, len(self._numbers)) if listed else -1
        self._said_at[slot] = (change.occurred_at.timestamp(), change.created_at.timestamp())
        self._speaker_of_slot[slot] = self._speaker(change.prompt or "")
        self._order = None

    def _speaker(self, text: str) -> int:
        match = _SPEAKER.match(text)
        name = tuple(terms(match[1])) if match else ()
        return self._speakers.setdefault(name, len(self._speakers)) if name else NOBODY

    @property
    def of_slot(self) -> np.ndarray:
        return np.array(self._of_slot)

    @property
    def order(self) -> np.ndarray:
        """All slots of a conversation, one conversation after the other, each in its order."""
        if self._order is None:
            said = np.array(self._said_at).reshape(-1, 2)
            order = np.lexsort((said[:, 1], said[:, 0], self.of_slot))
            self._order = order[self.of_slot[order] != NOBODY]
        return self._order

    def named(self, wanted: Iterable[str]) -> np.ndarray:
        """Return which slots are said by somebody whose name is among the terms."""
        among = set(wanted)
        numbers = [number for name, number in self._speakers.items() if among & set(name)]
        return np.isin(np.array(self._speaker_of_slot), numbers)

    def words(self, held: Iterable[np.ndarray]) -> np.ndarray:
        """Score each slot's conversation as one text: BM25 without a length, shape (slots,).

        `held` says of each term which slots hold it.
        """
        of_slot = self.of_slot
        count = len(self._numbers)
        known = of_slot != NOBODY
        alive = int((np.bincount(of_slot[known], minlength=count) > 0).sum())
        scores = np.zeros(count + 1)
        for slots in held:
            times = np.bincount(of_slot[slots & known], minlength=count)
            frequency = int((times > 0).sum())
            rarity = np.log(1 + (alive - frequency + 0.5) / (frequency + 0.5))
            scores[:count] += rarity * times / (times + SATURATION)
        by_slot: np.ndarray = scores[of_slot]  # -1 reads the last one, which stays 0
        return by_slot


def words_of_date(change: Change) -> str:
    """Return what a person would say of when it was: of its numbers the year alone, since a day's
    stands in too many texts."""
    return f"{_MONTHS[change.occurred_at.month - 1]} {change.occurred_at.year}"


_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
