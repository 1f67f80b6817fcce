"""Text to index terms: words with their stems, parts of identifiers, pairs of CJK characters."""

import re
import unicodedata
from collections.abc import Callable
from typing import TypeVar

import Stemmer

T = TypeVar("T")

WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
# Scripts written without spaces: kana, CJK ideographs, Thai, Lao, Khmer, Myanmar.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003134f]+"
)
# Three digits, and one that follows a letter or nothing but digits: ERR_7F3A91, sha256, a phone
# number. No measure (500ml), no year.
_CODE = re.compile(r"(?=(?:\w*\d){3})(?:\w*[^\W\d]\d\w*|\d{5,})")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_ARABIC = re.compile(r"[\u0600-\u06ff]")
LONGEST_TERM = 64
MOST_WORDS = 100_000
# Latin letters without their marks: a person who types "Muller" looks for "Müller". Those that
# Unicode does not take apart are written as their languages do without them.
_UNMARKED = {
    code: re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", chr(code)))
    for code in (*range(0x00C0, 0x0250), *range(0x1E00, 0x1F00))
} | str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
     "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "\u0131": "i"}
)  # fmt: skip

# What nearly every English sentence holds and no question is about.
STOPWORDS = frozenset(
    word
    for line in (
        "a about am an and any are as at be been being but by can could did do does doing for from",
        "had has have having he her here hers him his how i if in into is it its just me my no nor",
        "not of off on or our ours out over own s she should so some such t than that the their",
        "theirs them then there these they this those through to too under until up was we were",
        "what when where which while who whom why will with would you your yours ll re ve d m",
    )
    for word in line.split()
)

# Without caches of their own: the terms are cached below.
_STEMMERS = {name: Stemmer.Stemmer(name, 0).stemWord for name in ("english", "russian", "arabic")}


class Remembered(dict[str, T]):
    """What was made of words before. To find it in an `lru_cache` takes three times as long."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, word: str) -> T:
        made = self._make(word)
        # Long ones are not remembered: a few could be a megabyte each.
        if len(word) <= LONGEST_TERM:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = made
        return made


def terms(text: str) -> list[str]:
    """Return the terms of `text` in their order, repeats included, stop words left out."""
    return [term for word in WORD.findall(text) for term in terms_of_word(word)]


def is_code(term: str) -> bool:
    """Say whether a term is made to name one thing alone: an error, an order, a flight."""
    return _CODE.fullmatch(term) is not None


def _analyse(word: str) -> tuple[str, ...]:
    """Analyse one run of word characters; `getUserName2` gives its parts and the whole."""
    if len(word) > LONGEST_TERM:
        # A hash, a key, base64: nobody looks for its parts. Unspaced scripts are no such thing.
        head = word[:LONGEST_TERM]
        return _terms_of_long(word) if _UNSPACED.search(head) else (head.casefold(),)
    return _terms_of_short(word)


terms_of_word = Remembered(_analyse).__getitem__


def _terms_of_long(word: str) -> tuple[str, ...]:
    return tuple(_pairs_and_rest(unicodedata.normalize("NFKC", word).translate(_UNMARKED)))


def _terms_of_short(word: str) -> tuple[str, ...]:
    if not word.isascii():
        word = unicodedata.normalize("NFKC", word).translate(_UNMARKED)
        if _UNSPACED.search(word):
            return tuple(_pairs_and_rest(word))
    parts = _PART.findall(word)
    whole = _term(word)
    # Digits in several places make no identifier but a hash.
    if len(parts) < 2 or sum(part.isdigit() for part in parts) > 1:
        return () if whole in STOPWORDS else (whole,)
    found = [term for part in parts if (term := _term(part)) not in STOPWORDS]
    return tuple(dict.fromkeys([*found, whole]))


def _term(word: str) -> str:
    folded = word.casefold()
    if folded in STOPWORDS:
        return folded
    if not folded.isalpha():
        return folded[:LONGEST_TERM]
    if _CYRILLIC.search(folded):
        return str(_STEMMERS["russian"](folded))[:LONGEST_TERM]
    if _ARABIC.search(folded):
        return str(_STEMMERS["arabic"](folded))[:LONGEST_TERM]
    return str(_STEMMERS["english"](folded))[:LONGEST_TERM]


def _pairs_and_rest(word: str) -> list[str]:
    found: list[str] = []
    end = 0
    for run in _UNSPACED.finditer(word):
        found += [_term(part) for part in _PART.findall(word[end : run.start()])]
        characters = run.group()
        found += [characters[i : i + 2] for i in range(len(characters) - 1)] or [characters]
        end = run.end()
    return found + [_term(part) for part in _PART.findall(word[end:])]
