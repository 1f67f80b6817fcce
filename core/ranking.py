"""From evidence to an order of memories: pure functions, and every weight of the ranking."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from core.time_hints import Period
from storage.user_index import Evidence

# What each weight earns stands in docs/benchmarks.md, "What each weight earns".
# Two fields, each by words and by meaning. People search for what they asked more than for what
# was answered, and long answers mention everything: hence 3 : 1 and 2 : 1 for the prompt.
KEYWORD_WEIGHT = {"prompt": 0.3, "response": 0.1}
SIMILARITY_WEIGHT = {"prompt": 0.4, "response": 0.2}
# A prompt and its answer stand for themselves. What has no answer is a turn among others, and
# what was said around it says what it is about: shares of the score of the one next to it and of
# the one after that, to either side,
NEIGHBOUR_WEIGHT = (0.15, 0.05)
# of the mean of the best three memories of its conversation,
CONVERSATION_WEIGHT = 0.1
CONVERSATION_BEST = 3
# and of the query's words that fall anywhere in its conversation, rare ones counting more.
CONVERSATION_WORDS_WEIGHT = 0.3
# Who is named in a query is more often the one who spoke than the one spoken of.
SPEAKER_WEIGHT = 0.1
# A time that the query names: a strong hint and no filter, as people remember dates badly and
# talk of things before and after they happen.
TIME_WEIGHT = 0.2

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
    """`time` and `conversation` are what these two added to the score."""

    slot: int
    score: float
    relevant: bool
    dense: float | None
    lexical: float
    matched: Literal["prompt", "response"]
    time: float = 0.0
    conversation: float = 0.0


# Orders the evidence, given the period that the query names: the best `limit`, best first.
Rank: TypeAlias = Callable[[Evidence, int, Period | None], list[Ranked]]


def rank(evidence: Evidence, limit: int, period: Period | None = None) -> list[Ranked]:
    """Return the best `limit` slots, best first; equal scores by time, newest first."""
    candidates = np.flatnonzero(evidence.allowed & _has_evidence(evidence))
    if not len(candidates):
        return []
    parts = _weighted(evidence, candidates)
    own = np.sum(list(parts.values()), axis=0)
    extra = {
        "time": TIME_WEIGHT * _within(evidence.occurred_at, period)[candidates],
        "conversation": _context(evidence, candidates, own),
    }
    score = own + _speaker(evidence)[candidates] + sum(extra.values())
    best = _best(score, evidence.occurred_at[candidates], limit)
    return _listed(
        evidence,
        candidates[best],
        score[best],
        {key: part[best].astype(float) for key, part in parts.items()},
        {key: part[best] for key, part in extra.items()},
    )


def _best(score: np.ndarray, occurred_at: np.ndarray, limit: int) -> np.ndarray:
    """Return where the best are, in order; only those that can be among them are sorted."""
    least = np.partition(score, -limit)[-limit] if len(score) > limit else -np.inf
    near = np.flatnonzero(score >= least)
    return near[np.lexsort((near, -occurred_at[near], -score[near]))[:limit]]


def _has_evidence(evidence: Evidence) -> np.ndarray:
    words = [scores > 0 for scores in evidence.keywords.values()]
    vectors = [cosines > -1 for cosines in evidence.similarity.values()]
    found: np.ndarray = np.logical_or.reduce(words + vectors)
    return found


def _weighted(evidence: Evidence, candidates: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    parts = {}
    for side, weight in KEYWORD_WEIGHT.items():
        parts[side, "lexical"] = weight * _scaled(evidence.keywords[side][candidates])
    words = _words_for_meaning(evidence, candidates)
    for side, weight in SIMILARITY_WEIGHT.items():
        known = _scaled_known(evidence.similarity[side][candidates])
        said = evidence.keywords[side][candidates] > 0
        parts[side, "dense"] = weight * np.where(said, np.maximum(known, words), known)
    return parts


def _words_for_meaning(evidence: Evidence, candidates: np.ndarray) -> np.ndarray:
    """What is not embedded yet among others that are must not stand behind all of them: its share
    of the query's words counts as its meaning too."""
    known = [cosines[candidates] > -1 for cosines in evidence.similarity.values()]
    waiting = ~np.logical_or.reduce(known)
    return np.where(waiting & ~waiting.all(), evidence.coverage[candidates], 0.0)


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


def _speaker(evidence: Evidence) -> np.ndarray:
    """What was answered by an assistant begins with no speaker's name, but perhaps with a title."""
    named: np.ndarray = evidence.speaker_named & ~evidence.answered
    return SPEAKER_WEIGHT * named


def _within(occurred_at: np.ndarray, period: Period | None) -> np.ndarray:
    if period is None:
        return np.zeros(len(occurred_at))
    start, stop = (moment.timestamp() for moment in period)
    return ((occurred_at >= start) & (occurred_at < stop)).astype(float)


def _context(evidence: Evidence, candidates: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return what the rest of its conversation adds to each candidate's score."""
    leaning = ~evidence.answered[candidates] & (evidence.conversation[candidates] >= 0)
    if not leaning.any():
        return np.zeros(len(candidates))
    score = np.zeros(len(evidence.allowed))
    score[candidates] = own
    near = beside(score, evidence.order, evidence.conversation)
    whole = best_of_conversation(
        (score + near + _speaker(evidence))[candidates],
        evidence.conversation[candidates],
    )
    words = _spread(evidence.conversation_words()[candidates])
    added = near[candidates] + CONVERSATION_WEIGHT * _spread(whole)
    return np.where(leaning, added + CONVERSATION_WORDS_WEIGHT * words, 0.0)


def beside(score: np.ndarray, order: np.ndarray, conversation: np.ndarray) -> np.ndarray:
    """Return each slot's share of the scores next to it in its conversation, shape (slots,)."""
    shares = np.zeros(len(order))
    along, of = score[order], conversation[order]
    for distance, weight in enumerate(NEIGHBOUR_WEIGHT, 1):
        same = of[distance:] == of[:-distance]
        shares[distance:] += weight * np.where(same, along[:-distance], 0)
        shares[:-distance] += weight * np.where(same, along[distance:], 0)
    found = np.zeros(len(score))
    found[order] = shares
    return found


def best_of_conversation(score: np.ndarray, conversation: np.ndarray) -> np.ndarray:
    """Return the mean of the CONVERSATION_BEST best of each one's conversation; those that are
    fewer count as if the missing had none."""
    order = np.lexsort((-score, conversation))
    groups, starts, sizes = np.unique(conversation[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    best = np.where(place < CONVERSATION_BEST, score[order], 0)
    mean = np.add.reduceat(best, starts) / CONVERSATION_BEST
    return np.where(conversation >= 0, mean[np.searchsorted(groups, conversation)], 0.0)


def _spread(values: np.ndarray) -> np.ndarray:
    """Scale to 0 … 1; all alike say nothing."""
    least, best = float(values.min()), float(values.max())
    return (values - least) / (best - least) if best > least else np.zeros_like(values)


def _listed(
    evidence: Evidence,
    slots: np.ndarray,
    scores: np.ndarray,
    parts: dict[tuple[str, str], np.ndarray],
    extra: dict[str, np.ndarray],
) -> list[Ranked]:
    """All arrays have the shape of `slots`, and its order."""
    prompt = sum(part for (side, _), part in parts.items() if side == "prompt")
    columns = (
        slots,
        scores,
        np.maximum(*(cosines[slots] for cosines in evidence.similarity.values())),
        evidence.coverage[slots],
        np.asarray(prompt >= sum(parts.values()) - prompt),
        extra["time"],
        extra["conversation"],
    )
    return [
        Ranked(
            slot=slot,
            score=round(score, 6),
            relevant=_is_relevant(cosine, coverage),
            dense=round(cosine, 4) if cosine > -1 else None,
            lexical=round(coverage, 4),
            matched="prompt" if of_prompt else "response",
            time=round(time, 4),
            conversation=round(conversation, 4),
        )
        for slot, score, cosine, coverage, of_prompt, time, conversation in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]


def _is_relevant(cosine: float, coverage: float) -> bool:
    if cosine == -1:
        return coverage >= RELEVANT_WORDS_ALONE
    return cosine + COVERAGE_COUNTS * coverage >= RELEVANT or coverage >= RELEVANT_WORDS
