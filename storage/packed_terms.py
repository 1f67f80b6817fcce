"""The terms of a memory as numbers: what the keyword indexes and the database keep of its words."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain, repeat

import numpy as np

from storage.analyzer import WORD, Remembered, terms, terms_of_word

# Raise it with every change of the analyzer or of what is packed: all is packed anew then.
ANALYZER = 2
# More of the same word says nothing more; BM25 is flat long before.
MOST_TIMES = 255
# "Anna Berg: see you at noon", as transcripts of several people say who speaks.
_SPEAKER = re.compile(r"\s*([^\W\d_][\w.'’-]*(?: [^\W\d_][\w.'’-]*){0,2}): \S")  # noqa: RUF001
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, slots=True)
class Packed:
    """`lengths` of prompt and response in terms; `terms` and `counts` as in the table keywords."""

    lengths: tuple[int, int]
    terms: bytes
    counts: bytes
    speaker: bytes | None


@lru_cache(maxsize=100_000)
def hash_of(term: str) -> int:
    """32 bits: one query in some hundred thousand words meets another word's hash."""
    return zlib.crc32(term.encode())


_hashes_of_word = Remembered(
    lambda word: tuple(hash_of(term) for term in terms_of_word(word))
).__getitem__


def hashes_of(listed: Iterable[str]) -> np.ndarray:
    return np.array([hash_of(term) for term in listed], dtype="<u4")


def pack(prompt: str | None, response: str | None, occurred_at: datetime) -> Packed:
    """Analyse both sides, each with the month and year as a person would say when it was."""
    # The number of the day stands in too many texts.
    date = f"{_MONTHS[occurred_at.month - 1]} {occurred_at.year}"
    sides = [_counted(f"{date} {text}" if text else "") for text in (prompt, response)]
    hashed = list(dict.fromkeys(chain(*sides)))
    # Here and in `_counted` no word goes through a loop of Python's own.
    counts = np.array([[*map(side.get, hashed, repeat(0))] for side in sides], dtype=np.int64).T
    named = _SPEAKER.match(prompt or "")
    lengths = counts.sum(axis=0).tolist()
    return Packed(
        (lengths[0], lengths[1]),
        np.array(hashed, dtype="<u4").tobytes(),
        np.minimum(counts, MOST_TIMES).astype(np.uint8).tobytes(),
        hashes_of(terms(named[1])).tobytes() or None if named else None,
    )


def _counted(text: str) -> Counter[int]:
    """Return how often each term occurs, by its hash."""
    return Counter(chain.from_iterable(map(_hashes_of_word, WORD.findall(text))))
