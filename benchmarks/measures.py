"""How good a ranking is, what a difference is worth, and when a server can be measured."""

import asyncio
import math
from collections.abc import Sequence

import httpx
import numpy as np

MEASURES = ("R@5", "R@10", "hit@5", "hit@10", "MRR", "nDCG@10", "any@5", "all@5")


def of_turns(found: Sequence[str], wanted: frozenset[str]) -> dict[str, float]:
    """R@k is the share of the wanted in the first k, hit@k whether any of them is there."""
    ranks = [n for n, label in enumerate(found, 1) if label in wanted]
    gain = sum(1 / math.log2(n + 1) for n in ranks if n <= 10)
    ideal = sum(1 / math.log2(n + 1) for n in range(1, min(len(wanted), 10) + 1))
    return {
        "R@5": sum(n <= 5 for n in ranks) / len(wanted),
        "R@10": sum(n <= 10 for n in ranks) / len(wanted),
        "hit@5": float(any(n <= 5 for n in ranks)),
        "hit@10": float(any(n <= 10 for n in ranks)),
        "MRR": 1 / ranks[0] if ranks else 0.0,
        "nDCG@10": gain / ideal,
    }


def of_sessions(found: Sequence[str], wanted: frozenset[str]) -> dict[str, float]:
    """A session ranks by its best memory: any@5, whether one of the wanted is in the first five;
    all@5, whether all of them are (of more than five wanted: five)."""
    first = set(list(dict.fromkeys(found))[:5])
    inside = len(first & wanted)
    return {"any@5": float(inside > 0), "all@5": float(inside >= min(len(wanted), 5))}


def mean(scores: Sequence[dict[str, float]], measure: str) -> float:
    values = [score[measure] for score in scores if measure in score]
    return float(np.mean(values)) if values else math.nan


def paired_bootstrap(
    ours: Sequence[float], theirs: Sequence[float], rounds: int = 10_000
) -> tuple[float, float, float]:
    """Return the mean difference and its 95 % interval over resampled questions; fixed seed."""
    difference = np.array(ours) - np.array(theirs)
    rng = np.random.default_rng(7)
    means = np.concatenate(
        [
            difference[rng.integers(0, len(difference), (100, len(difference)))].mean(axis=1)
            for _ in range(rounds // 100)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


async def until_ready(client: httpx.AsyncClient) -> None:
    for _ in range(600):
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the server did not start")
