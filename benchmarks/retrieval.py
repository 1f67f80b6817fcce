"""How well the product finds the evidence of questions about recorded conversations.

usage: python benchmarks/retrieval.py DATA_DIR [--set NAME] [--out FILE] [--against FILE]
                                      [--publish]

Stores each conversation of the sets under DATA_DIR (LoCoMo, BEAM and LongMemEval formats, see
conversations.py) as a user of its own in a Postgres of its own, through the save path and the
embedding worker, and asks through core.retrieval. Three baselines rank the same evidence: words
only (BM25), meaning only, and both by reciprocal rank. Prints tables; FILE holds a line a question.
The last published run is beside this file, question by question without its words, and is compared
with always; `--publish` writes it anew.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

# Not this folder, whose http.py would stand in for the standard library's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import conversations, measures
from benchmarks.conversations import Conversation, Question, Turn
from benchmarks.measures import MEASURES, mean
from core.capture import Capture
from core.embed_local import LocalEmbedder
from core.embedding_worker import EmbeddingWorker
from core.minilm import prepare_in_child
from core.ranking import Rank, Ranked, rank
from core.retrieval import Retrieval
from core.save_queue import write_together
from core.time_hints import Period
from storage import embedding_queue
from storage.database import Pool, open_pool
from storage.embedded_postgres import embedded_postgres
from storage.ids import uuid7
from storage.memory_store import Filters
from storage.migrate import migrate
from storage.user_index import Evidence

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "benchmarks" / "retrieval_published.json"
OURS = "Memory Layer"
# Enough to name five sessions by their best memories; ranks beyond it count as not found.
DEPTH = 100
TURNS_A_BATCH = 100
CACHE_BYTES = 2**31
# What RRF is called with everywhere (Cormack, Clarke & Büttcher 2009).
RRF_K = 60


@dataclass
class Stored:
    user_id: UUID
    conversation: Conversation
    labels: dict[UUID, str]


def by_words(evidence: Evidence) -> np.ndarray:
    return np.sum(list(evidence.keywords.values()), axis=0)


def by_meaning(evidence: Evidence) -> np.ndarray:
    return np.max(list(evidence.similarity.values()), axis=0)


def by_reciprocal_rank(evidence: Evidence) -> np.ndarray:
    scores = by_words(evidence), by_meaning(evidence)
    orders = (np.argsort(-score, kind="stable") for score in scores)
    return np.sum([1 / (RRF_K + 1 + np.argsort(order)) for order in orders], axis=0)


def baseline(
    score: Callable[[Evidence], np.ndarray], evidence: Evidence, limit: int, _: Period | None
) -> list[Ranked]:
    scores = score(evidence)
    return [
        Ranked(int(slot), float(scores[slot]), False, None, 0.0, "prompt")
        for slot in np.argsort(-scores, kind="stable")[:limit]
    ]


SYSTEMS: dict[str, Rank] = {
    OURS: rank,
    "BM25": partial(baseline, by_words),
    "dense": partial(baseline, by_meaning),
    "RRF k=60": partial(baseline, by_reciprocal_rank),
}


async def store(pool: Pool, conversation: Conversation) -> Stored:
    stored = Stored(uuid4(), conversation, {})
    turns = conversation.turns
    for start in range(0, len(turns), TURNS_A_BATCH):
        captures: list[Capture] = []
        for turn in turns[start : start + TURNS_A_BATCH]:
            memory_id = uuid7()
            stored.labels[memory_id] = turn.label
            captures += captures_of(stored.user_id, memory_id, turn)
        for answer in await write_together(pool, captures):
            if isinstance(answer, Exception):
                raise answer
    return stored


def captures_of(user_id: UUID, memory_id: UUID, turn: Turn) -> list[Capture]:
    sides = (("prompt", turn.prompt, "waiting"), ("response", turn.response, "complete"))
    return [
        Capture(
            *(user_id, memory_id, side, text, status),
            provider="chatgpt",
            conversation_id=turn.session,
            occurred_at=turn.occurred_at,
        )
        for side, text, status in sides
        if text
    ]


async def embed_all(pool: Pool, embedder: LocalEmbedder) -> None:
    worker = asyncio.create_task(EmbeddingWorker(pool, embedder).run())
    while (await embedding_queue.backlog(pool)).waiting:
        if worker.done():
            worker.result()
        await asyncio.sleep(0.5)
    worker.cancel()
    await asyncio.wait([worker])


async def ask(retrieval: Retrieval, stored: Stored, question: Question) -> dict[str, float]:
    recall = await retrieval.recall(
        stored.user_id, question.text, DEPTH, Filters(), question.asked_at
    )
    found = [stored.labels[hit.memory.id] for hit in recall.hits]
    sessions = [str(hit.memory.conversation_id) for hit in recall.hits]
    turn_scores = measures.of_turns(found, question.turns) if question.turns else {}
    return turn_scores | measures.of_sessions(sessions, question.sessions)


async def ask_all(
    name: str, everyone: list[Stored], asked: dict[str, Retrieval]
) -> tuple[list[dict], list[float]]:
    """Return a row for each question, and the seconds each took ours, the embedding included."""
    rows, seconds = [], []
    for stored in everyone:
        for number, question in enumerate(stored.conversation.questions):
            scores = {}
            for system, retrieval in asked.items():
                start = time.perf_counter()
                scores[system] = await ask(retrieval, stored, question)
                if system == OURS:
                    seconds.append(time.perf_counter() - start)
            rows.append(
                {
                    "set": name,
                    "conversation": stored.conversation.name,
                    "number": number,
                    "question": question.text,
                    "category": question.category,
                    "scores": scores,
                }
            )
    return rows, seconds


def print_set(name: str, everyone: list[Stored], rows: list[dict], seconds: list[float]) -> None:
    memories = sum(len(stored.labels) for stored in everyone)
    print(f"\n## {name}: {len(everyone)} people, {memories} memories, {len(rows)} questions\n")
    print(f"| | questions | {' | '.join(MEASURES)} |\n| --- | --- |{' --- |' * len(MEASURES)}")
    for system in SYSTEMS:
        print_line(system, [row["scores"][system] for row in rows])
    categories = sorted({row["category"] for row in rows})
    pointed = [row["scores"][OURS] for row in rows if row["category"] != "adversarial"]
    if len(pointed) < len(rows):
        print_line(f"{OURS}, without adversarial", pointed)
    for category in categories:
        print_line(category, [r["scores"][OURS] for r in rows if r["category"] == category])
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    print(f"\nA search for {DEPTH} memories took {p50:.1f} ms (p50), {p95:.1f} ms (p95).")


def print_line(name: str, scores: list[dict[str, float]]) -> None:
    cells = " | ".join(f"{mean(scores, measure):.3f}" for measure in MEASURES)
    print(f"| {name} | {len(scores)} | {cells} |")


def print_differences(title: str, pairs: list[tuple[dict, dict]]) -> None:
    """Show by how much the first of each pair is better, and the 95 % interval of that."""
    for measure in ("R@10", "MRR", "any@5"):
        both = [(a[measure], b[measure]) for a, b in pairs if measure in a and measure in b]
        if both:
            mine, other = zip(*both, strict=True)
            change, low, high = measures.paired_bootstrap(mine, other)
            print(f"{title}, {measure}: {change:+.3f} [{low:+.3f}, {high:+.3f}], {len(both)} q")


def compare(rows: list[dict], against: Path | None) -> None:
    print("\nPaired bootstrap, ours less the other's, with its 95 % interval:\n")
    for system in list(SYSTEMS)[1:]:
        pairs = [(row["scores"][OURS], row["scores"][system]) for row in rows]
        print_differences(f"- {system}", pairs)
    compare_with(rows, "the last published run", read_published())
    if against:
        earlier = {key_of(row): row["scores"][OURS] for row in read_rows(against)}
        compare_with(rows, against.name, earlier)


def compare_with(rows: list[dict], name: str, earlier: dict[str, dict[str, float]]) -> None:
    same = [(row["scores"][OURS], earlier[key_of(row)]) for row in rows if key_of(row) in earlier]
    print_differences(f"- {name}", same)


def key_of(row: dict) -> str:
    """Names a question of a set without repeating its words."""
    said = json.dumps([row["set"], row["conversation"], row["number"], row["question"]])
    return base64.urlsafe_b64encode(hashlib.sha256(said.encode()).digest()).decode()[:12]


def read_published() -> dict[str, dict[str, float]]:
    if not PUBLISHED.exists():
        return {}
    published = json.loads(PUBLISHED.read_text("utf-8"))
    names = published["measures"]
    return {
        key: {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for key, values in published["questions"].items()
    }


def publish(rows: list[dict]) -> None:
    """Write what the sets of this run have come to; the other sets' figures stay."""
    scores = read_published() | {key_of(row): row["scores"][OURS] for row in rows}
    lines = [
        f'"{key}": {json.dumps([rounded(of.get(name)) for name in MEASURES])}'
        for key, of in sorted(scores.items())
    ]
    head = f'{{"measures": {json.dumps(MEASURES)},\n"questions": {{\n'
    PUBLISHED.write_text(head + ",\n".join(lines) + "\n}}\n", "utf-8")


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def measure(
    pool: Pool, embedder: LocalEmbedder, name: str, people: list[Conversation]
) -> tuple[list[Stored], list[dict], list[float]]:
    everyone = [await store(pool, person) for person in people]
    await embed_all(pool, embedder)
    asked = {
        system: Retrieval(pool, embedder, CACHE_BYTES, ranked) for system, ranked in SYSTEMS.items()
    }
    rows, seconds = await ask_all(name, everyone, asked)
    for retrieval in asked.values():
        retrieval.close()
    return everyone, rows, seconds


async def run(options: argparse.Namespace) -> None:
    sets = conversations.load(options.data_dir)
    chosen = {name: sets[name] for name in options.set or sets}
    await asyncio.to_thread(prepare_in_child, options.models)
    embedder = LocalEmbedder(options.models)
    all_rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_postgres(Path(folder) / "data") as url:
            await migrate(url)
            async with open_pool(url, 1, 4) as pool:
                for name, people in chosen.items():
                    everyone, rows, seconds = await measure(pool, embedder, name, people)
                    print_set(name, everyone, rows, seconds)
                    compare(rows, options.against)
                    sys.stdout.flush()
                    all_rows += rows
    await embedder.aclose()
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in all_rows), "utf-8")
    if options.publish:
        publish(all_rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--set", action="append", help="only this set; may be given again")
    parser.add_argument("--out", type=Path, help="write a JSON line for each question")
    parser.add_argument("--against", type=Path, help="compare with an earlier --out")
    parser.add_argument("--publish", action="store_true", help="make this the published run")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    asyncio.run(run(parser.parse_args()))
