"""The part of a text that answers a query, as segments that a client can highlight."""

import re
from collections.abc import Set
from dataclasses import dataclass

from storage.analyzer import terms_of_word

_WORD = re.compile(r"\w+")
LENGTH = 240
# Searching a megabyte for the best place would hold up everybody.
MOST_SEARCHED = 50_000


@dataclass(slots=True)
class Segment:
    text: str
    match: bool


def snippet(text: str, wanted: Set[str], place: tuple[int, int] | None) -> list[Segment]:
    """Cut about LENGTH characters around the most matches, and mark them.

    `place` is the part of `text` whose meaning is nearest; the matches are sought there first.
    """
    start, stop = place or (0, len(text))
    found = _matches(text, wanted, start, min(stop, start + MOST_SEARCHED))
    if not found and (start > 0 or stop < len(text)):
        found = _matches(text, wanted, 0, min(len(text), MOST_SEARCHED))
    begin, end = _window(text, found, start)
    return _segments(text, begin, end, [m for m in found if begin <= m[0] and m[1] <= end])


def _matches(text: str, wanted: Set[str], start: int, stop: int) -> list[tuple[int, int]]:
    if not wanted:
        return []
    words = _WORD.findall(text, start, stop)
    matching = {word for word in set(words) if not wanted.isdisjoint(terms_of_word(word))}
    found: list[tuple[int, int]] = []
    # A match object of each word would cost more than all of the rest.
    for word in filter(matching.__contains__, words):
        found.append(_next(text, word, start, stop))
        start = found[-1][1]
    return found


def _next(text: str, word: str, start: int, stop: int) -> tuple[int, int]:
    """Return where `word`, which is there, stands next as a whole; a word may begin at `start`."""
    at = start
    while True:
        begin = text.index(word, at, stop)
        end = begin + len(word)
        more = _WORD.match(text, end, stop)
        if not more and (begin == start or not _WORD.match(text, begin - 1, begin)):
            return begin, end
        at = more.end() if more else end


def _window(text: str, found: list[tuple[int, int]], start: int) -> tuple[int, int]:
    """Choose the window that holds most matches, the first of equals, cut at spaces."""
    if len(text) <= LENGTH:
        return 0, len(text)
    best, most, last = start, 0, 0
    for first, (begin, _) in enumerate(found):
        last = max(last, first)
        while last < len(found) and found[last][1] <= begin + LENGTH * 2 // 3:
            last += 1
        if last - first > most:
            best, most = begin, last - first
    begin = max(0, min(best - (LENGTH // 4 if most else 0), len(text) - LENGTH))
    end = begin + LENGTH
    if begin and (space := text.find(" ", begin, begin + 20)) >= 0:
        begin = space + 1
    if end < len(text) and (space := text.rfind(" ", end - 20, end)) > begin:
        end = space
    return begin, end


def _segments(text: str, begin: int, end: int, found: list[tuple[int, int]]) -> list[Segment]:
    segments: list[Segment] = []
    at = begin
    for start, stop in found:
        if start > at:
            segments.append(Segment(text[at:start], False))
        segments.append(Segment(text[start:stop], True))
        at = stop
    if at < end:
        segments.append(Segment(text[at:end], False))
    return segments
