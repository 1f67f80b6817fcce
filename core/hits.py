"""What search answers with: each thing once, and of two answers to the same the newer first."""

import re
from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Literal
from uuid import UUID

from core.snippets import Segment
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


class Shown:
    """Hits, the best first, with near-duplicates at the place of the best of them, as the newest
    that matches as well."""

    def __init__(self) -> None:
        self.hits: list[Hit] = []
        self._said: list[_Said] = []

    def add(self, hit: Hit) -> None:
        here = _Said(hit)
        place = next((n for n, other in enumerate(self._said) if here.resembles(other)), None)
        if place is None:
            self.hits.append(hit)
            self._said.append(here)
            return
        self.hits[place] = _together(self.hits[place], hit)
        if self.hits[place].memory is here.memory:
            self._said[place] = here


def _together(first: Hit, second: Hit) -> Hit:
    newer = _said_at(second) > _said_at(first) and second.why.lexical >= first.why.lexical
    shown, other = (second, first) if newer else (first, second)
    duplicates = [*shown.duplicates, other.memory.id, *other.duplicates]
    relevant = first.relevant or second.relevant
    return replace(shown, score=first.score, relevant=relevant, duplicates=duplicates)


class _Said:
    """Both sides of a memory, whose words are taken apart once at most."""

    def __init__(self, hit: Hit) -> None:
        self.memory = hit.memory
        self._sides = [_Text(text or "") for text in (hit.memory.prompt, hit.memory.response)]

    def resembles(self, other: "_Said") -> bool:
        return all(one.resembles(two) for one, two in zip(self._sides, other._sides, strict=True))


class _Text:
    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _words(self) -> set[str]:
        return _words(self._text[:COMPARED])

    @cached_property
    def _numbers(self) -> set[str]:
        return {word for word in self._words if not word.isalpha() and _DIGIT.search(word)}

    def resembles(self, other: "_Text") -> bool:
        a, b = self._text, other._text
        if a == b:
            return True
        if min(len(a), len(b)) < DUPLICATE * max(len(a), len(b)):
            return False
        # Another number is another fact.
        return _overlap(self._words, other._words) >= DUPLICATE and self._numbers == other._numbers


def newer_first(hits: list[Hit], query_terms: Set[str]) -> list[Hit]:
    """Move a hit above an older one that answers the same, and let the older one say so."""
    passages = {hit.memory.id: _passage(hit, query_terms) for hit in hits}

    def outdates(newer: Hit, older: Hit) -> bool:
        a, b = passages[newer.memory.id], passages[older.memory.id]
        return _said_at(newer) > _said_at(older) and _answer_the_same(a, b, len(query_terms))

    ordered: list[Hit] = []
    for hit in hits:
        below = (n for n, other in enumerate(ordered) if outdates(hit, other))
        ordered.insert(next(below, len(ordered)), hit)
    return [
        replace(hit, newer=max(newer, key=_said_at).memory.id) if newer else hit
        for hit in ordered
        for newer in [[other for other in ordered if outdates(other, hit)]]
    ]


@dataclass(frozen=True, slots=True)
class _Passage:
    """The words shown of a hit, and which of the query's terms are among them."""

    side: str
    words: Set[str]
    asked: Set[str]


def _passage(hit: Hit, query_terms: Set[str]) -> _Passage:
    words = _words("".join(segment.text for segment in hit.snippet))
    marked = (word for s in hit.snippet if s.match for word in _WORD.findall(s.text))
    asked = {term for word in marked for term in terms_of_word(word)} & query_terms
    return _Passage(hit.matched, words, asked)


def _answer_the_same(a: _Passage, b: _Passage, query_terms: int) -> bool:
    both = len(a.asked & b.asked)
    return (
        both > 0
        and a.side == b.side
        and both >= SHARE_OF_QUERY * query_terms
        and both >= SAME_QUERY_WORDS * len(a.asked | b.asked)
        and _overlap(a.words, b.words) >= ALIKE
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _overlap(a: Set[str], b: Set[str]) -> float:
    """Return the share of the words of both that both have (Jaccard)."""
    both = len(a & b)
    return both / (len(a) + len(b) - both) if a or b else 1.0


def _said_at(hit: Hit) -> datetime:
    return hit.memory.occurred_at
