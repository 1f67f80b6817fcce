"""From evidence to an order of memories: pure functions, and every weight of the ranking."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from storage.user_index import Evidence

# Two fields, each by words and by meaning. People search for what they asked more than for what
# was answered, and long answers mention everything: hence 2 : 1 and 3 : 1 for the prompt.
# Measured in docs/benchmarks.md.
KEYWORD_WEIGHT = {"prompt": 0.3, "response": 0.1}
SIMILARITY_WEIGHT = {"prompt": 0.4, "response": 0.2}

# A hit is relevant when its cosine and the share of the query's rare words that it holds add up,
# or when it holds (nearly) all of these words. Calibrated on the BEAM developers' chats: 91 % of
# the evidence found is relevant, and 5 % of what other people's questions find here.
COVERAGE_COUNTS = 0.4
RELEVANT = 0.6
RELEVANT_WORDS = 0.9
# Without a vector yet, words decide alone.
RELEVANT_WORDS_ALONE = 0.6


@dataclass(frozen=True, slots=True)
class Ranked:
    slot: int
    score: float
    relevant: bool
    dense: float | None
    lexical: float
    matched: str


# Orders the evidence: the best `limit` slots, best first.
Rank: TypeAlias = Callable[[Evidence, int], list[Ranked]]


def rank(evidence: Evidence, limit: int) -> list[Ranked]:
    """Return the best `limit` slots, best first; equal scores by time, newest first."""
    candidates = np.flatnonzero(evidence.allowed & _has_evidence(evidence))
    if not len(candidates):
        return []
    parts = _weighted(evidence, candidates)
    score = np.sum(list(parts.values()), axis=0)
    order = np.lexsort((candidates, -evidence.occurred_at[candidates], -score))[:limit]
    return [
        _ranked(evidence, int(candidates[n]), float(score[n]), {k: v[n] for k, v in parts.items()})
        for n in order
    ]


def _has_evidence(evidence: Evidence) -> np.ndarray:
    found = evidence.best_chunk >= 0
    for scores in evidence.keywords.values():
        found = found | (scores > 0)
    return found


def _weighted(evidence: Evidence, candidates: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    parts = {}
    for side, weight in KEYWORD_WEIGHT.items():
        parts[side, "lexical"] = weight * _scaled(evidence.keywords[side][candidates])
    for side, weight in SIMILARITY_WEIGHT.items():
        parts[side, "dense"] = weight * _scaled_known(evidence.similarity[side][candidates])
    return parts


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scale to 0 … 1 by the best; 0 is a true zero for word scores."""
    best = float(values.max())
    return values / best if best > 0 else values


def _scaled_known(values: np.ndarray) -> np.ndarray:
    """Scale known cosines to 0 … 1; what has no vector yet counts as the least of them."""
    known = values > -1
    if not known.any():
        return np.zeros_like(values)
    least, best = float(values[known].min()), float(values[known].max())
    scaled = np.where(known, (values - least) / max(best - least, 1e-6), 0.0)
    # One memory alone is neither best nor worst of anything: let its cosine speak.
    return scaled if best > least else np.where(known, np.clip(values, 0, 1), 0.0)


def _ranked(
    evidence: Evidence, slot: int, score: float, parts: dict[tuple[str, str], float]
) -> Ranked:
    cosine = max(float(values[slot]) for values in evidence.similarity.values())
    coverage = float(evidence.coverage[slot])
    prompt = sum(value for (side, _), value in parts.items() if side == "prompt")
    return Ranked(
        slot=slot,
        score=round(score, 6),
        relevant=_is_relevant(cosine, coverage),
        dense=round(cosine, 4) if cosine > -1 else None,
        lexical=round(coverage, 4),
        matched="prompt" if prompt >= score - prompt else "response",
    )


def _is_relevant(cosine: float, coverage: float) -> bool:
    if cosine == -1:
        return coverage >= RELEVANT_WORDS_ALONE
    return cosine + COVERAGE_COUNTS * coverage >= RELEVANT or coverage >= RELEVANT_WORDS
