"""What a query's words say for each memory: BM25 of two fields, coverage, conversations' words."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from storage.keyword_index import Field

# Okapi BM25 (Robertson & Zaragoza 2009). b near 1 keeps long answers from drowning short prompts.
K1, B = 1.2, 0.9


@dataclass(frozen=True, slots=True)
class KeywordScores:
    """Arrays of shape (slots,): BM25 by side, and the share of the query's rarity that is held.

    `held`, shape (terms, slots), says whether either side holds a term.
    """

    by_side: dict[str, np.ndarray]
    coverage: np.ndarray
    held: np.ndarray


def score(terms: Counter[str], fields: Mapping[str, Field], slots: int) -> KeywordScores:
    rarities = [
        max(_rarity(len(field.found[n].slots), field.texts) for field in fields.values())
        for n in range(len(terms))
    ]
    return KeywordScores(
        {side: _bm25(terms, field, slots) for side, field in fields.items()},
        np.maximum(*(_coverage(rarities, field, slots) for field in fields.values())),
        _held(len(terms), fields, slots),
    )


def _rarity(frequency: int, texts: int) -> float:
    """Inverse document frequency; a term that no memory holds is the rarest."""
    return math.log(1 + (texts - frequency + 0.5) / (frequency + 0.5))


def _bm25(terms: Counter[str], field: Field, slots: int) -> np.ndarray:
    scores = np.zeros(slots, dtype=np.float32)
    for found, times_asked in zip(field.found, terms.values(), strict=True):
        weight = _rarity(len(found.slots), field.texts) * times_asked
        norm = K1 * (1 - B + B * found.lengths / max(field.mean_length, 1.0))
        scores[found.slots] += weight * found.times * (K1 + 1) / (found.times + norm)
    return scores


def _coverage(rarities: list[float], field: Field, slots: int) -> np.ndarray:
    shares = np.zeros(slots, dtype=np.float32)
    total = sum(rarities) or 1.0
    for found, rarity in zip(field.found, rarities, strict=True):
        shares[found.slots] += rarity / total
    return shares


def _held(terms: int, fields: Mapping[str, Field], slots: int) -> np.ndarray:
    held = np.zeros((terms, slots), dtype=bool)
    for field in fields.values():
        for term, found in enumerate(field.found):
            held[term, found.slots] = True
    return held
