"""What search answers with: each thing once, and of two answers to the same the newer first."""

import re
from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import combinations
from typing import Literal, TypeAlias
from uuid import UUID

from core.ranking import Ranked
from core.snippets import Segment, snippet
from storage.analyzer import terms_of_word
from storage.memory_store import Memory

# Near-duplicates have nearly the same words on both sides; so much of a long text tells.
DUPLICATE = 0.9
COMPARED = 2_000  # characters
# Two passages answer the same when they hold the same words of the query, at least half of these,
# and resemble each other. On BEAM's and LoCoMo's questions this moves next to nothing; a weaker
# likeness (0.3) puts memories first that only speak of the same thing, and costs MRR .02 and .002.
SAME_QUERY_WORDS = 0.6
SHARE_OF_QUERY = 0.5
ALIKE = 0.4

# Where a part of a text stands: side, start, stop.
Place: TypeAlias = tuple[str, int, int]

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Why:
    """`dense` is the best cosine, or None while not embedded; `lexical` the share of the query's
    rare words that one side of the memory holds. `time` and `conversation` are what the time
    named in the query and the rest of its conversation added to the score."""

    dense: float | None
    lexical: float
    time: float
    conversation: float


@dataclass(frozen=True, slots=True)
class Hit:
    """`duplicates` are memories that say nearly the same and are not shown for themselves. `newer`
    is another hit that answers the same and was said later: it stands above this one."""

    memory: Memory
    score: float
    relevant: bool
    matched: Literal["prompt", "response"]
    snippet: list[Segment]
    why: Why
    duplicates: list[UUID] = field(default_factory=list)
    newer: UUID | None = None


def _why(ranked: Ranked) -> Why:
    return Why(
        None if ranked.dense is None else round(ranked.dense, 4),
        round(ranked.lexical, 4),
        round(ranked.time, 4),
        round(ranked.conversation, 4),
    )


class Shown:
    """Memories, the best first, with near-duplicates at the place of the best of them, as the
    newest that matches as well."""

    def __init__(self) -> None:
        self._found: list[_Found] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, memory: Memory, ranked: Ranked, nearest: Place | None) -> None:
        here = _Found(memory, ranked, nearest)
        place = next((n for n, other in enumerate(self._found) if here.resembles(other)), None)
        if place is None:
            self._found.append(here)
        elif here.replaces(self._found[place]):
            here.take_in(self._found[place])
            self._found[place] = here
        else:
            self._found[place].take_in(here)

    def hits(self, query_terms: Set[str]) -> list[Hit]:
        return [found.hit(query_terms) for found in self._found]


class _Found:
    """A memory that is shown, for itself or with others that say nearly the same."""

    def __init__(self, memory: Memory, ranked: Ranked, nearest: Place | None) -> None:
        self._memory, self._ranked, self._nearest = memory, ranked, nearest
        self._prompt, self._response = _Text(memory.prompt or ""), _Text(memory.response or "")
        self._score, self._relevant = ranked.score, ranked.relevant
        self._duplicates: list[UUID] = []

    def resembles(self, other: "_Found") -> bool:
        # What is much longer or shorter on one side needs no words taken apart.
        return (
            self._prompt.least <= other._prompt.length
            and other._prompt.least <= self._prompt.length
            and self._response.least <= other._response.length
            and other._response.least <= self._response.length
            and self._prompt.resembles(other._prompt)
            and self._response.resembles(other._response)
        )

    def replaces(self, better: "_Found") -> bool:
        newer = self._memory.occurred_at > better._memory.occurred_at
        return newer and round(self._ranked.lexical, 4) >= round(better._ranked.lexical, 4)

    def take_in(self, other: "_Found") -> None:
        """Stand for both, with the score of the better one."""
        self._score = max(self._score, other._score)
        self._relevant |= other._relevant
        self._duplicates += [other._memory.id, *other._duplicates]

    def hit(self, query_terms: Set[str]) -> Hit:
        item, side, place = self._ranked, self._ranked.matched, None
        texts = {"prompt": self._prompt.text, "response": self._response.text}
        if not texts[side]:
            side = "prompt" if texts["prompt"] else "response"
        if self._nearest and self._nearest[0] == side:
            place = self._nearest[1:]
        return Hit(
            memory=self._memory,
            score=round(self._score, 6),
            relevant=self._relevant,
            matched=side,
            snippet=snippet(texts[side], query_terms, place),
            why=_why(item),
            duplicates=self._duplicates,
        )


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text
        self.length = len(text)
        self.least = DUPLICATE * self.length

    @cached_property
    def _words(self) -> set[str]:
        return _words(self.text[:COMPARED])

    @cached_property
    def _numbers(self) -> set[str]:
        return {word for word in self._words if not word.isalpha() and _DIGIT.search(word)}

    def resembles(self, other: "_Text") -> bool:
        if self.text == other.text:
            return True
        # Another number is another fact.
        return _overlap(self._words, other._words) >= DUPLICATE and self._numbers == other._numbers


def newer_first(hits: list[Hit], query_terms: Set[str]) -> list[Hit]:
    """Move a hit above an older one that answers the same, and let the older one say so."""
    newer = _newer(hits, query_terms)
    if not newer:
        return hits
    ordered: list[int] = []
    for n in range(len(hits)):
        below = (place for place, other in enumerate(ordered) if n in newer.get(other, ()))
        ordered.insert(next(below, len(ordered)), n)
    newest = {
        n: max((m for m in ordered if m in others), key=lambda m: _said_at(hits[m]))
        for n, others in newer.items()
    }
    return [
        replace(hits[n], newer=hits[newest[n]].memory.id) if n in newest else hits[n]
        for n in ordered
    ]


def _newer(hits: list[Hit], query_terms: Set[str]) -> dict[int, set[int]]:
    """Return which of the hits, by their numbers, answer the same as one of them and are newer."""
    found: dict[int, set[int]] = {}
    least = max(1, SHARE_OF_QUERY * len(query_terms))
    asked = {n: _asked(hit) & query_terms for n, hit in enumerate(hits)}
    passages = [_Passage(n, hits[n], held) for n, held in asked.items() if len(held) >= least]
    for a, b in combinations(passages, 2):
        if a.answers_the_same(b, least) and a.said_at != b.said_at:
            older, newer = (a, b) if a.said_at < b.said_at else (b, a)
            found.setdefault(older.number, set()).add(newer.number)
    return found


def _asked(hit: Hit) -> set[str]:
    marked = {segment.text for segment in hit.snippet if segment.match}
    return {term for word in marked for term in terms_of_word(word)}


class _Passage:
    """What is shown of a hit, and which of the query's terms are in it."""

    def __init__(self, number: int, hit: Hit, asked: Set[str]) -> None:
        self.number, self.asked = number, asked
        self.said_at = _said_at(hit)
        self._hit = hit

    @cached_property
    def _words(self) -> set[str]:
        return _words("".join(segment.text for segment in self._hit.snippet))

    def answers_the_same(self, other: "_Passage", least: float) -> bool:
        both = len(self.asked & other.asked)
        either = len(self.asked) + len(other.asked) - both
        return (
            both >= least
            and both >= SAME_QUERY_WORDS * either
            and self._hit.matched == other._hit.matched
            and _overlap(self._words, other._words) >= ALIKE
        )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _overlap(a: Set[str], b: Set[str]) -> float:
    """Return the share of the words of both that both have (Jaccard)."""
    both = len(a & b)
    return both / (len(a) + len(b) - both) if a or b else 1.0


def _said_at(hit: Hit) -> datetime:
    return hit.memory.occurred_at
