"""What a query's words say for each memory: BM25 of two fields, coverage, conversations' words."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from storage.analyzer import is_code
from storage.keyword_index import Field

# Okapi BM25 (Robertson & Zaragoza 2009). b near 1 keeps long answers from drowning short prompts.
K1, B = 1.2, 0.9


@dataclass(frozen=True, slots=True)
class KeywordScores:
    """Arrays of shape (slots,): BM25 by side, and the share of the query's rarity that is held.

    `held`, shape (2, pairs), has numbers of terms above slots that hold them, on either side;
    `codes` are the numbers of those terms that name one thing alone.
    """

    by_side: dict[str, np.ndarray]
    coverage: np.ndarray
    held: np.ndarray
    codes: list[int]


def score(terms: Counter[str], fields: Mapping[str, Field], slots: int) -> KeywordScores:
    rarities = {side: _rarities(field, len(terms)) for side, field in fields.items()}
    rarest = [max(of_term) for of_term in zip(*rarities.values(), strict=True)]
    total = sum(rarest) or 1.0
    shares = np.array([rarity / total for rarity in rarest], np.float32)
    return KeywordScores(
        {side: _bm25(terms, field, rarities[side], slots) for side, field in fields.items()},
        np.maximum(*(_sums(shares[field.terms], field, slots) for field in fields.values())),
        np.concatenate([(field.terms, field.slots) for field in fields.values()], axis=1),
        [number for number, term in enumerate(terms) if is_code(term)],
    )


def _rarities(field: Field, terms: int) -> list[float]:
    """Inverse document frequency; a term that no memory holds is the rarest."""
    return [
        math.log(1 + (field.texts - frequency + 0.5) / (frequency + 0.5))
        for frequency in np.bincount(field.terms, minlength=terms).tolist()
    ]


def _bm25(terms: Counter[str], field: Field, rarities: list[float], slots: int) -> np.ndarray:
    asked = [rarity * times for rarity, times in zip(rarities, terms.values(), strict=True)]
    weights = np.array(asked, np.float32)[field.terms]
    norm = K1 * (1 - B + B * field.lengths / max(field.mean_length, 1.0))
    return _sums(weights * field.times * (K1 + 1) / (field.times + norm), field, slots)


def _sums(values: np.ndarray, field: Field, slots: int) -> np.ndarray:
    """Add up what the terms say for each slot, in their order."""
    sums = np.zeros(slots, dtype=np.float32)
    np.add.at(sums, field.slots, values)
    return sums
