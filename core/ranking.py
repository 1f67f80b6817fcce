"""From evidence to an order of memories: pure functions, and every weight of the ranking."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

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
# Who asks for a few words that hardly any memory holds remembers this one: an error code, a name.
# They mean little to an embedder, and what means more must not take the whole first page. With the
# least that words earn, as much as all meaning, for each of the few that hold (nearly) all of them.
# In whole sentences such a few are chance (BEAM: MRR -.02), but a code is none, whatever is said
# around it and whether or not any memory holds that.
EXACT_WEIGHT = 0.5
EXACT_TERMS = 4
EXACT_MOST = 3
# A time that the query names: a strong hint and no filter, as people remember dates badly and
# talk of things before and after they happen.
TIME_WEIGHT = 0.2

# A hit is relevant when its cosine and the share of the query's rare words that it holds add up,
# or when it holds (nearly) all of these words, or the code that was asked for. Calibrated on the
# BEAM developers' chats: 91 % of the evidence found is relevant, and 5 % of what other people's
# questions find here.
COVERAGE_COUNTS = 0.4
RELEVANT = 0.6
RELEVANT_WORDS = 0.9
# Without a vector yet, words decide alone.
RELEVANT_WORDS_ALONE = 0.6


class Ranked(NamedTuple):
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
    cosine = np.maximum(*evidence.similarity.values())
    candidates = np.flatnonzero(evidence.allowed & ((evidence.coverage > 0) | (cosine > -1)))
    if not len(candidates):
        return []
    parts = _weighted(evidence, candidates, cosine)
    own, speaker = np.asarray(sum(parts.values())), _speaker(evidence)
    occurred_at = evidence.occurred_at[candidates]
    time = TIME_WEIGHT * _within(occurred_at, period)
    conversation = _context(evidence, candidates, own, speaker)
    score = own + speaker[candidates] + (time + conversation)
    exact = _exact(evidence, candidates)
    score += EXACT_WEIGHT * exact
    best = _best(score, occurred_at, limit)
    slots = candidates[best]
    columns = (
        slots,
        score[best],
        cosine[slots],
        evidence.coverage[slots],
        exact[best],
        _is_of_prompt({key: part[best] for key, part in parts.items()}),
        time[best],
        conversation[best],
    )
    return [_ranked(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _best(score: np.ndarray, occurred_at: np.ndarray, limit: int) -> np.ndarray:
    """Return where the best are, in order; only those that can be among them are sorted."""
    if len(score) <= limit:
        return np.lexsort((-occurred_at, -score))
    near = np.flatnonzero(score >= np.partition(score, -limit)[-limit])
    return near[np.lexsort((-occurred_at[near], -score[near]))[:limit]]


def _weighted(
    evidence: Evidence, candidates: np.ndarray, cosine: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    said = {side: scores[candidates] for side, scores in evidence.keywords.items()}
    parts = {
        (side, "lexical"): weight * _scaled(said[side]) for side, weight in KEYWORD_WEIGHT.items()
    }
    waiting = cosine[candidates] <= -1
    others = not waiting.all() and waiting.any()
    for side, weight in SIMILARITY_WEIGHT.items():
        meant = _scaled_known(evidence.similarity[side][candidates])
        if others:
            # What is not embedded yet must not stand behind all that is: its share of the query's
            # words counts as its meaning too.
            shared = np.where(waiting & (said[side] > 0), evidence.coverage[candidates], 0.0)
            meant = np.maximum(meant, shared)
        parts[side, "dense"] = weight * meant
    return parts


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scale to 0 … 1 by the best; 0 is a true zero for word scores."""
    best = float(values.max())
    return values / best if best > 0 else values


def _scaled_known(values: np.ndarray) -> np.ndarray:
    """Scale known cosines to 0 … 1; what has no vector yet counts as the least of them."""
    known, best = values > -1, float(values.max())
    if best <= -1:
        return np.zeros(len(values), values.dtype)
    least = float(values[known].min())
    scaled = np.where(known, (values - least) / max(best - least, 1e-6), 0.0)
    # One memory alone is neither best nor worst of anything: let its cosine speak.
    return scaled if best > least else np.where(known, np.clip(values, 0, 1), 0.0)


def _speaker(evidence: Evidence) -> np.ndarray:
    """What was answered by an assistant begins with no speaker's name, but perhaps with a title."""
    named: np.ndarray = evidence.speaker_named & ~evidence.answered
    return SPEAKER_WEIGHT * named


def _exact(evidence: Evidence, candidates: np.ndarray) -> np.ndarray:
    """Say of each candidate whether it holds what only a few of them do: (nearly) all of a few
    words, or a code."""
    words = evidence.coverage[candidates] >= RELEVANT_WORDS
    few = evidence.terms <= EXACT_TERMS and np.count_nonzero(words) <= EXACT_MOST
    codes = _holds_rare_code(evidence)[candidates]
    exact: np.ndarray = words | codes if few else codes
    return exact


def _holds_rare_code(evidence: Evidence) -> np.ndarray:
    holds = np.zeros(len(evidence.allowed), dtype=bool)
    if evidence.codes:
        number, slot = evidence.held
        here = np.isin(number, evidence.codes) & evidence.allowed[slot]
        # A prompt and its answer may both hold it.
        number, slot = np.unique(evidence.held[:, here], axis=1)
        holds[slot[np.bincount(number)[number] <= EXACT_MOST]] = True
    return holds


def _within(occurred_at: np.ndarray, period: Period | None) -> np.ndarray:
    if period is None:
        return np.zeros(len(occurred_at))
    start, stop = (moment.timestamp() for moment in period)
    return ((occurred_at >= start) & (occurred_at < stop)).astype(float)


def _context(
    evidence: Evidence, candidates: np.ndarray, own: np.ndarray, speaker: np.ndarray
) -> np.ndarray:
    """Return what the rest of its conversation adds to each candidate's score."""
    conversation = evidence.conversation[candidates]
    leaning = ~evidence.answered[candidates] & (conversation >= 0)
    if not leaning.any():
        return np.zeros(len(candidates))
    score = np.zeros(len(evidence.allowed))
    score[candidates] = own
    near = beside(score, evidence.order, evidence.conversation)
    whole = best_of_conversation((score + near + speaker)[candidates], conversation)
    words = _spread(evidence.conversation_words()[candidates])
    added = near[candidates] + CONVERSATION_WEIGHT * _spread(whole)
    return np.where(leaning, added + CONVERSATION_WORDS_WEIGHT * words, 0.0)


def beside(score: np.ndarray, order: np.ndarray, conversation: np.ndarray) -> np.ndarray:
    """Return each slot's share of the scores next to it in its conversation, shape (slots,)."""
    shares = np.zeros(len(order))
    along, of = score[order], conversation[order]
    for distance, weight in enumerate(NEIGHBOUR_WEIGHT, 1):
        same, lent = of[distance:] == of[:-distance], weight * along
        shares[distance:] += same * lent[:-distance]
        shares[:-distance] += same * lent[distance:]
    found = np.zeros(len(score))
    found[order] = shares
    return found


def best_of_conversation(score: np.ndarray, conversation: np.ndarray) -> np.ndarray:
    """Return the mean of the CONVERSATION_BEST best of each one's conversation; those that are
    fewer count as if the missing had none."""
    order = np.lexsort((-score, conversation))
    of, along = conversation[order], score[order]
    first = np.ones(len(of), dtype=bool)
    first[1:] = of[1:] != of[:-1]
    starts, number = np.flatnonzero(first), np.cumsum(first) - 1
    place = np.arange(len(of)) - starts[number]
    mean = np.add.reduceat(np.where(place < CONVERSATION_BEST, along, 0), starts)
    found = np.empty(len(of))
    found[order] = (mean / CONVERSATION_BEST)[number]
    return np.where(conversation >= 0, found, 0.0)


def _spread(values: np.ndarray) -> np.ndarray:
    """Scale to 0 … 1; all alike say nothing."""
    least, best = float(values.min()), float(values.max())
    return (values - least) / (best - least) if best > least else np.zeros_like(values)


def _is_of_prompt(parts: dict[tuple[str, str], np.ndarray]) -> np.ndarray:
    prompt = sum(part.astype(float) for (side, _), part in parts.items() if side == "prompt")
    rest = sum(part.astype(float) for (side, _), part in parts.items() if side != "prompt")
    return np.asarray(prompt >= rest)


def _ranked(
    slot: int,
    score: float,
    cosine: float,
    coverage: float,
    exact: bool,
    of_prompt: bool,
    *extra: float,
) -> Ranked:
    dense = cosine if cosine > -1 else None
    side: Literal["prompt", "response"] = "prompt" if of_prompt else "response"
    relevant = exact or _is_relevant(cosine, coverage)
    return Ranked(slot, score, relevant, dense, coverage, side, *extra)


def _is_relevant(cosine: float, coverage: float) -> bool:
    if cosine == -1:
        return coverage >= RELEVANT_WORDS_ALONE
    return cosine + COVERAGE_COUNTS * coverage >= RELEVANT or coverage >= RELEVANT_WORDS
