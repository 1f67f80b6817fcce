"""A past of 500 MB: how fast it is here, in how much memory, and who feels it meanwhile.

usage: python benchmarks/import.py [--megabytes 500] [--embedder none] [--seconds 20]

Generates a ChatGPT export of 100,000 conversations, uploads it to a server on a database of its
own, and watches the import: turns a second, and the resident memory of the process that imports.
Before and during it, another person saves and searches at a steady pace; the ratio of the 95th
percentiles is what they feel.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
# Instead of this folder, whose http.py would stand in for the standard library's.
sys.path[0] = str(ROOT)

import httpx  # noqa: E402
import psutil  # noqa: E402

from benchmarks.measures import until_ready  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402

CONVERSATIONS = 100_000
TURNS = 3
SAVES_A_SECOND, SEARCHES_A_SECOND = 10, 5
# Stands in the first message alone: the very first search must find it.
RARE = "zyzzyva"
MOST_RATIO, LEAST_TURNS, MOST_MEMORY_MB = 1.5, 2_000, 300


def words(rng: random.Random) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ai", "ü")]
    return ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(30_000)]


def write_export(path: Path, megabytes: int) -> int:
    """Write conversations until the file is so large; return how many turns it has."""
    rng = random.Random(7)
    vocabulary = words(rng)
    # Zipf's law, roughly: a few words are everywhere.
    weights = [1 / (n + 10) for n in range(len(vocabulary))]
    sentences = [" ".join(rng.choices(vocabulary, weights, k=12)) for _ in range(40_000)]
    per_message = max(1, megabytes * 1_000_000 // (CONVERSATIONS * TURNS * 2) - 430)

    rare = [RARE]

    def text() -> str:
        length = int(rng.uniform(0.2, 1.8) * per_message / 75) + 1
        return ". ".join([*rng.choices(sentences, k=length), *(rare.pop() for _ in rare[:])])

    turns, limit = 0, megabytes * 1_000_000
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        while file.tell() < limit:
            file.write("" if not turns else ",")
            json.dump(conversation(rng, text), file, ensure_ascii=False)
            turns += TURNS
        file.write("]")
    return turns


def conversation(rng: random.Random, text) -> dict[str, object]:
    time, parent = rng.uniform(1_680_000_000, 1_760_000_000), "root"
    mapping: dict[str, object] = {"root": {"id": "root", "message": None, "parent": None}}
    for turn in range(TURNS):
        for role in ("user", "assistant"):
            name = str(uuid4())
            message = {
                "id": name,
                "author": {"role": role, "name": None, "metadata": {}},
                "create_time": time + turn * 60,
                "content": {"content_type": "text", "parts": [text()]},
                "status": "finished_successfully",
                "metadata": {"model_slug": "gpt-4o"} if role == "assistant" else {},
                "recipient": "all",
            }
            mapping[name] = {"id": name, "message": message, "parent": parent, "children": []}
            parent = name
    return {
        "title": text()[:40],
        "create_time": time,
        "mapping": mapping,
        "current_node": parent,
        "conversation_id": str(uuid4()),
    }


async def signed_up(client: httpx.AsyncClient) -> dict[str, str]:
    body = {"email": f"{uuid4().hex}@example.com", "password": "correct horse battery"}
    answer = await client.post("/auth/v1/signup", json=body)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


class Neighbour:
    """Saves and searches at a steady pace, whatever else goes on."""

    def __init__(self, client: httpx.AsyncClient, user: dict[str, str]) -> None:
        self._client = client
        self._user = user
        self.took: dict[str, list[float]] = {"save": [], "search": []}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._at("save", SAVES_A_SECOND))
            group.create_task(self._at("search", SEARCHES_A_SECOND))

    async def _at(self, kind: str, a_second: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / a_second
            await asyncio.sleep(due - loop.time())
            began = time.perf_counter()
            if kind == "save":
                body = {"prompt": f"walrus number {began}", "provider": "claude"}
                answer = await self._client.post("/save-prompt", json=body, headers=self._user)
            else:
                body = {"query": "walrus"}
                answer = await self._client.post("/search", json=body, headers=self._user)
            assert answer.is_success, answer.text
            self.took[kind].append((time.perf_counter() - began) * 1000)

    def percentiles(self) -> dict[str, tuple[float, float]]:
        taken, self.took = self.took, {"save": [], "search": []}
        return {
            kind: (sorted(times)[len(times) // 2], sorted(times)[int(len(times) * 0.95)])
            for kind, times in taken.items()
        }


async def chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


async def watch(
    client: httpx.AsyncClient, user: dict[str, str], job_id: str, server: psutil.Process
) -> tuple[dict[str, object], float, float, float]:
    """Wait for the import; return it, its seconds, and of its process the most memory in MB and
    the CPU seconds."""
    began, process, most, cpu = None, None, 0.0, 0.0
    while True:
        job = (await client.get(f"/import/{job_id}", headers=user)).json()["data"]
        if job["state"] == "running" and began is None:
            began = time.perf_counter()
        try:
            # Looked for once: it takes milliseconds, in which the neighbour here would wait.
            process = process or importing(server)
            if process:
                most = max(most, process.memory_info().rss / 2**20)
                cpu = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            pass
        if job["state"] not in ("queued", "running"):
            return job, time.perf_counter() - (began or 0), most, cpu
        await asyncio.sleep(0.5)


def importing(server: psutil.Process) -> psutil.Process | None:
    found = (child for child in server.children() if "core.importing" in child.cmdline())
    return next(found, None)


async def measure(arguments: argparse.Namespace, url: str, folder: Path) -> None:
    export = folder / "conversations.json"
    turns = await asyncio.to_thread(write_export, export, arguments.megabytes)
    print(f"{export.stat().st_size / 1e6:.0f} MB, {turns} turns", flush=True)
    port = 8_377
    settings = {"PORT": str(port), "DATABASE_URL": url, "EMBEDDER": arguments.embedder}
    settings |= {"LOG_LEVEL": "warning", "DATA_DIR": str(folder)}
    settings |= {"ENTERPRISE_PER_MINUTE": "1000000", "ENTERPRISE_PER_DAY": "10000000"}
    command = [sys.executable, str(ROOT / "main.py")]
    server = subprocess.Popen(command, env=os.environ | settings, cwd=ROOT)  # noqa: ASYNC220
    try:
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, timeout=600) as client:
            await until_ready(client)
            await run(arguments, client, export, turns, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()


async def run(
    arguments: argparse.Namespace,
    client: httpx.AsyncClient,
    export: Path,
    turns: int,
    server: psutil.Process,
) -> None:
    person, other = await signed_up(client), await signed_up(client)
    neighbour = Neighbour(client, other)
    living = asyncio.create_task(neighbour.run())
    await asyncio.sleep(5)
    neighbour.percentiles()
    await asyncio.sleep(arguments.seconds)
    before = neighbour.percentiles()

    began = time.perf_counter()
    answer = await client.post("/import", content=chunks(export), headers=person)
    uploaded = time.perf_counter() - began
    neighbour.percentiles()
    job, seconds, memory, cpu = await watch(client, person, answer.json()["data"]["id"], server)
    during = neighbour.percentiles()
    living.cancel()

    assert job["state"] == "done", job
    assert job["imported"] == turns, job
    began = time.perf_counter()
    found = await client.post("/search", json={"query": RARE}, headers=person)
    searched = time.perf_counter() - began
    print(f"uploaded in {uploaded:.1f} s, imported in {seconds:.1f} s")
    print(f"turns a second: {turns / seconds:.0f} (at least {LEAST_TURNS})")
    print(f"turns a CPU second of its process: {turns / cpu:.0f}")
    print(f"resident memory of the import: {memory:.0f} MB (at most {MOST_MEMORY_MB})")
    print(f"resident memory of the server: {server.memory_info().rss / 2**20:.0f} MB")
    for kind in before:
        ratio = during[kind][1] / before[kind][1]
        print(
            f"{kind}: p50 {before[kind][0]:.1f} -> {during[kind][0]:.1f} ms, "
            f"p95 {before[kind][1]:.1f} -> {during[kind][1]:.1f} ms, "
            f"ratio {ratio:.2f} (at most {MOST_RATIO})"
        )
    hits = len(found.json()["data"]["hits"]) if found.is_success else found.status_code
    print(f"first search, for a word of one turn: {hits} hits (1) in {searched:.1f} s")
    print(f"waiting for their vectors: {job['to_embed']}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--embedder", default="none")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlimport-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(name) / "data", print) as url:
            await measure(arguments, url, Path(name))


if __name__ == "__main__":
    asyncio.run(main())
