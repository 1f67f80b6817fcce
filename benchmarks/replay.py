"""Replay recorded chats through a running server as the extension would, then ask about them.

usage: python benchmarks/replay.py DATA_DIR [--set beam100k-dev] [--url http://127.0.0.1:8000]

DATA_DIR holds SET.messages.jsonl.gz (conv, id, role, content) and SET.questions.jsonl.gz (conv,
ability, question, source_ids). Each conversation is a user of its own; a prompt and its answer are
one memory. Questions without evidence do not count. R@k is the share of a question's evidence
memories among the first k hits, MRR the mean of 1 / rank of the first one.
"""

import argparse
import asyncio
import gzip
import json
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

sys.path.pop(0)  # this folder, whose http.py would stand in for the standard library's

import httpx

# Their evidence is dozens of messages, or none: no measure for a list of ten.
NOT_POINTED = {"abstention", "event_ordering", "summarization"}
AT_ONCE = 4


@dataclass
class Turn:
    prompt: str
    response: str
    message_ids: set[int]
    memory_id: str = field(default_factory=lambda: str(uuid4()))


@dataclass
class Timed:
    saves: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)


def rows_of(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def turns_of(messages: list[dict]) -> list[Turn]:
    """Pair each user's message with the assistant's that follows it."""
    turns: list[Turn] = []
    for message in messages:
        if message["role"] == "user":
            turns.append(Turn(message["content"], "", {message["id"]}))
        elif turns:
            turns[-1].response = message["content"]
            turns[-1].message_ids.add(message["id"])
    return turns


async def timed_post(client: httpx.AsyncClient, url: str, times: list[float], **body) -> dict:
    start = time.perf_counter()
    answer = await client.post(url, json=body)
    times.append((time.perf_counter() - start) * 1000)
    answer.raise_for_status()
    return answer.json()["data"]


async def sign_up(url: str) -> httpx.AsyncClient:
    client = httpx.AsyncClient(base_url=url, timeout=60)
    body = {"email": f"replay-{uuid4()}@example.com", "password": str(uuid4())}
    answer = await client.post("/auth/v1/signup", json=body)
    answer.raise_for_status()
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


async def save(client: httpx.AsyncClient, name: str, turns: list[Turn], timed: Timed) -> None:
    for turn in turns:
        where = {"provider": "chatgpt", "conversation_id": name}
        prompt = {"id": turn.memory_id, "prompt": turn.prompt, **where}
        await timed_post(client, "/save-prompt", timed.saves, **prompt)
        if turn.response:
            answer = {"memory_id": turn.memory_id, "response": turn.response, **where}
            await timed_post(client, "/save-response", timed.saves, **answer)


async def drain(url: str) -> tuple[int, float]:
    """Wait for the embedding backlog; return how many memories it held and the seconds."""
    start, first = time.perf_counter(), None
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while True:
            waiting = (await client.get("/health")).json()["data"]["embedding"]["waiting"]
            first = waiting if first is None else first
            if not waiting:
                return first, time.perf_counter() - start
            await asyncio.sleep(1)


def score(found: list[str], wanted: set[str]) -> dict[str, float]:
    ranks = [n for n, memory_id in enumerate(found, 1) if memory_id in wanted]
    return {
        "R@5": sum(n <= 5 for n in ranks) / len(wanted),
        "R@10": sum(n <= 10 for n in ranks) / len(wanted),
        "MRR": 1 / ranks[0] if ranks else 0.0,
    }


async def ask(
    client: httpx.AsyncClient, turns: list[Turn], questions: list[dict], timed: Timed
) -> list[tuple[str, dict[str, float]]]:
    of_message = {number: turn.memory_id for turn in turns for number in turn.message_ids}
    scores = []
    for question in questions:
        wanted = {of_message[n] for n in question["source_ids"] if n in of_message}
        if question["ability"] in NOT_POINTED or not wanted:
            continue
        body = {"query": question["question"], "limit": 10}
        data = await timed_post(client, "/search", timed.searches, **body)
        found = [hit["memory"]["id"] for hit in data["hits"]]
        scores.append((question["ability"], score(found, wanted)))
    return scores


def grouped(rows: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        groups[row["conv"]].append(row)
    return groups


async def replay(data_dir: Path, name: str, url: str) -> None:
    messages = grouped(rows_of(data_dir / f"{name}.messages.jsonl.gz"))
    questions = grouped(rows_of(data_dir / f"{name}.questions.jsonl.gz"))
    turns = {conv: turns_of(rows) for conv, rows in messages.items()}
    clients = {conv: await sign_up(url) for conv in turns}
    timed = Timed()
    turn_to_save = asyncio.Semaphore(AT_ONCE)

    async def save_one(conv: str) -> None:
        async with turn_to_save:
            await save(clients[conv], conv, turns[conv], timed)

    start = time.perf_counter()
    await asyncio.gather(*(save_one(conv) for conv in turns))
    saving = time.perf_counter() - start
    waiting, draining = await drain(url)
    scores = [
        item
        for conv in turns
        for item in await ask(clients[conv], turns[conv], questions[conv], timed)
    ]
    for client in clients.values():
        await client.aclose()
    memories = sum(map(len, turns.values()))
    print_table(name, memories, saving, waiting, draining, timed, scores)


def print_table(name, memories, saving, waiting, draining, timed, scores) -> None:
    def percentile(values: list[float], p: int) -> float:
        return statistics.quantiles(values, n=100)[p - 1]

    def mean(key: str, ability: str | None = None) -> float:
        return statistics.fmean(s[key] for a, s in scores if ability in (None, a))

    print(f"| {name} | |\n| --- | --- |")
    print(f"| memories, questions | {memories}, {len(scores)} |")
    print(f"| saves/s | {len(timed.saves) / saving:.0f} |")
    print(
        f"| save p50 / p95 ms | {percentile(timed.saves, 50):.1f} / "
        f"{percentile(timed.saves, 95):.1f} |"
    )
    print(
        f"| backlog after saving: memories, drained at texts/s (prompts and answers) | {waiting}, "
        f"{2 * waiting / max(draining, 0.001):.1f} |"
    )
    print(
        f"| search p50 / p95 ms | {percentile(timed.searches, 50):.1f} / "
        f"{percentile(timed.searches, 95):.1f} |"
    )
    print(
        f"| **R@5 / R@10 / MRR** | **{mean('R@5'):.3f} / {mean('R@10'):.3f} / {mean('MRR'):.3f}** |"
    )
    for ability in sorted({a for a, _ in scores}):
        print(f"| {ability} R@10 | {mean('R@10', ability):.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--set", default="beam100k-dev")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    asyncio.run(replay(options.data_dir, options.set, options.url))
