"""The search index: speed, memory and loading, each beside its bound, in one run.

usage: python benchmarks/index.py [--others 1000000] [--rounds 5] [--only PART]

A Postgres of its own holds people with 1,000, 10,000 and 50,000 memories, each with a prompt of 30
and an answer of 150 words (words by Zipf's law) and a vector of 384 numbers for either; and other
people's memories: 1,000 in one database, --others in another. Vectors have 64 latent dimensions.
What is compared is measured in turn. Scans and loads count by their best round, since neighbours
only ever add; what a person waits for by the median of all.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

ROOT = Path(__file__).resolve().parent.parent
# Instead of this folder, whose http.py would stand in for the standard library's.
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import http.client  # noqa: E402 (there is a http.py beside this file)

import asyncpg  # noqa: E402
import faiss  # noqa: E402
import httpx  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
import uvloop  # noqa: E402

from benchmarks.measures import until_ready  # noqa: E402
from core.config import Settings  # noqa: E402
from core.embed_local import LocalEmbedder  # noqa: E402
from core.embeddings import Span, Vectors  # noqa: E402
from core.minilm import NAME, prepare_in_child  # noqa: E402
from core.retrieval import Retrieval  # noqa: E402
from core.signing_keys import load_or_create_keys  # noqa: E402
from storage import change_feed  # noqa: E402
from storage.columns import Columns  # noqa: E402
from storage.database import Pool, acting_as, open_pool  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.memory_store import Filters  # noqa: E402
from storage.migrate import migrate  # noqa: E402
from storage.packed_terms import ANALYZER, pack  # noqa: E402
from storage.vector_index import VectorIndex, exact_cosines  # noqa: E402

DIMENSIONS = 384
PROMPT_WORDS, RESPONSE_WORDS = 30, 150
# Made-up words have 4.4 tokens each, 24 in all; questions of LoCoMo have 13 (median), of BEAM 20.
QUERY_WORDS = 5
VOCABULARY = 30_000
# So many different texts; more would only take longer to make.
TEXTS = 10_000
SMALL, MIDDLE, LARGE = 1_000, 10_000, 50_000
PLENTY = 2**32
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class Table:
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str, most: float = 0, least: float = 0) -> None:
        bound = f"≤ {most:g}" if most else f"≥ {least:g}" if least else ""
        passed = (not most or value <= most) and (not least or value >= least)
        self.rows.append((what, f"{value:,.4g} {unit}", bound, "pass" if passed else "**MISSED**"))
        print("|", " | ".join(self.rows[-1] if bound else self.rows[-1][:3]), "|", flush=True)


class Random:
    """Draws texts and vectors, the same ones in each run."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(5)
        letters = self._random.integers(97, 123, (VOCABULARY, 7), dtype=np.uint8)
        self._words = np.array([bytes(row).decode() for row in letters])
        chances = 1 / np.arange(1, VOCABULARY + 1)
        self._chances = chances / chances.sum()
        self._directions = self._random.standard_normal((64, DIMENSIONS))

    def text(self, words: int) -> str:
        return " ".join(self._random.choice(self._words, words, p=self._chances))

    def vectors(self, count: int) -> Vectors:
        drawn = self._random.standard_normal((count, 64)) @ self._directions
        drawn += 2 * self._random.standard_normal((count, DIMENSIONS))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def near(self, vectors: Vectors, count: int) -> Vectors:
        """Vectors at some distance from some of these."""
        chosen = vectors[self._random.integers(0, len(vectors), count)]
        noise = self._random.standard_normal(chosen.shape) * 0.6 / DIMENSIONS**0.5
        moved = chosen + noise
        return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


class Given:
    """An embedder that takes no time: it returns the vectors it was given in turn."""

    name, dimensions = NAME, DIMENSIONS

    def __init__(self, vectors: Vectors) -> None:
        self._vectors, self._next = vectors, 0

    def split(self, text: str, most: int) -> list[Span]:
        return [Span(0, len(text))]

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self._next = (self._next + 1) % len(self._vectors)
        return self._vectors[self._next : self._next + 1]

    async def aclose(self) -> None:
        pass


async def fill(conn: asyncpg.Connection, draw: Random, memories: int) -> tuple[UUID, Vectors]:
    """Store a person as the service would have, embedded and with packed words."""
    user_id, vectors = uuid4(), draw.vectors(2 * memories)
    texts = [(draw.text(PROMPT_WORDS), draw.text(RESPONSE_WORDS)) for _ in range(TEXTS)]
    packed = [pack(prompt, response, START) for prompt, response in texts]
    wire = np.empty((len(vectors), 4 + 4 * DIMENSIONS), np.uint8)
    wire[:, :4] = np.frombuffer(DIMENSIONS.to_bytes(2) + bytes(2), np.uint8)
    wire[:, 4:] = vectors.astype(">f4").view(np.uint8)
    schema = await conn.fetchval(
        "SELECT typnamespace::regnamespace::text FROM pg_type WHERE typname = 'vector'"
    )
    await conn.set_type_codec(
        "vector", schema=schema, format="binary", encoder=bytes, decoder=bytes
    )

    async def copy(table: str, columns: str, rows: list[tuple]) -> None:
        await conn.copy_records_to_table(
            table, schema_name="memory_layer", columns=columns.split(), records=rows
        )

    await copy("user_state", "user_id change_seq", [(user_id, memories)])
    for first in range(0, memories, 5_000):
        numbers = range(first, min(first + 5_000, memories))
        ids = [uuid4() for _ in numbers]
        of = [(i, n, *texts[n % TEXTS]) for i, n in zip(ids, numbers, strict=True)]
        common = ("complete", "chatgpt", bytes(32), START, "done", NAME)
        await copy(
            "memories",
            "user_id id prompt response conversation_id change_seq created_at"
            " status provider content_hash occurred_at embedding_state embedding_model",
            [
                (user_id, i, p, r, f"c{n // 20}", n + 1, START + timedelta(hours=n), *common)
                for i, n, p, r in of
            ],
        )
        await copy(
            "keywords",
            "user_id memory_id analyzer content_hash occurred_at prompt_length response_length"
            " terms counts",
            [
                (user_id, i, ANALYZER, bytes(32), START, *w.lengths, w.terms, w.counts)
                for i, n in zip(ids, numbers, strict=True)
                for w in [packed[n % TEXTS]]
            ],
        )
        await copy(
            "chunks",
            "user_id memory_id embedding_model ordinal role start stop embedding",
            [
                (user_id, i, NAME, side, ("prompt", "response")[side], 0, 100, wire[2 * n + side])
                for i, n in zip(ids, numbers, strict=True)
                for side in (0, 1)
            ],
        )
    await conn.execute("VACUUM ANALYZE memory_layer.memories, memory_layer.chunks")
    await conn.execute("VACUUM ANALYZE memory_layer.keywords, memory_layer.user_state")
    return user_id, vectors


async def add_others(conn: asyncpg.Connection, memories: int) -> None:
    """Other people, a thousand memories each."""
    await conn.execute(
        f"""
        INSERT INTO memory_layer.memories (user_id, id, prompt, response, status, provider,
               content_hash, occurred_at, change_seq, embedding_state)
        SELECT md5((n / 1000)::text)::uuid, md5('m' || n)::uuid, 'a prompt of another person ' || n,
               'an answer to another person ' || n, 'complete', 'claude', '\\x00',
               now() - n * interval '1 s', n % 1000 + 1, 'done'
          FROM generate_series(0, {memories - 1}) AS n;
        INSERT INTO memory_layer.user_state (user_id, change_seq)
        SELECT user_id, max(change_seq) FROM memory_layer.memories GROUP BY user_id
            ON CONFLICT DO NOTHING;
        """
    )
    await conn.execute("VACUUM ANALYZE memory_layer.memories, memory_layer.user_state")


def p50_of(rounds: int, queries: Vectors, **works: Callable[[np.ndarray], object]) -> dict:
    """Let each work answer all queries, in turn; return the median seconds of its best round."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times = []
            for query in queries:
                start = time.perf_counter()
                work(query)
                times.append(time.perf_counter() - start)
            found[name].append(statistics.median(times))
    return {name: min(medians) for name, medians in found.items()}


def nearest(cosines: np.ndarray, most: int) -> np.ndarray:
    """Return the numbers of the nearest vectors, best first."""
    best = np.flatnonzero(cosines >= np.partition(cosines, -most)[-most])
    return best[np.argsort(-cosines[best])]


def scan(table: Table, draw: Random, rounds: int) -> None:
    vectors = draw.vectors(LARGE)
    queries = draw.near(vectors, 40)
    flat, ours = faiss.IndexFlatIP(DIMENSIONS), VectorIndex(DIMENSIONS)
    floats = Columns(vector=("f4", DIMENSIONS))
    flat.add(vectors)
    for start in range(0, LARGE, 1_000):
        ours.add(vectors[start : start + 1_000])
        floats.append(1_000, vector=vectors[start : start + 1_000])
    streamed = np.ones(vectors.size, np.float32)
    took = p50_of(
        10 * rounds,
        queries,
        stream=lambda _: streamed @ streamed,
        flat=lambda query: nearest(exact_cosines(floats["vector"], query), 10),
        faiss=lambda query: flat.search(query.reshape(1, -1), 10),
        ours=lambda query: nearest(ours.cosines(query), 10),
        all=ours.cosines,
        flat_all=lambda query: flat.search(query.reshape(1, -1), LARGE),
    )
    table.add("streaming bandwidth, one thread", streamed.nbytes / took["stream"] / 1e9, "GB/s")
    table.add("50,000 vectors, flat, ten nearest, p50", took["flat"] * 1e3, "ms")
    table.add("… / (bytes / bandwidth)", took["flat"] / took["stream"], "times", most=1.5)
    table.add("… FAISS' IndexFlatIP, ten nearest, p50", took["faiss"] * 1e3, "ms")
    table.add("50,000, codes and rescoring, ten nearest, p50", took["ours"] * 1e3, "ms")
    table.add("… faster than IndexFlatIP", took["faiss"] / took["ours"], "times", least=3)
    table.add("… faster than our flat scan", took["flat"] / took["ours"], "times")
    right = flat.search(queries, 10)[1]
    same = [
        len({*map(int, row)} & {*map(int, nearest(ours.cosines(query), 10))})
        for query, row in zip(queries, right, strict=True)
    ]
    table.add("… recall@10 against exact", sum(same) / 10 / len(queries), "", least=0.99)
    table.add("… all 50,000 cosines, as the ranking asks, p50", took["all"] * 1e3, "ms")
    table.add("… faster than IndexFlatIP", took["flat_all"] / took["all"], "times")


async def p50(rounds: int, work: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        await work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def against_pgvector(
    table: Table, pool: Pool, user_id: UUID, vectors: Vectors, queries: Vectors
) -> None:
    ours = VectorIndex(DIMENSIONS)
    for start in range(0, len(vectors), 1_000):
        ours.add(vectors[start : start + 1_000])
    async with acting_as(pool, user_id) as conn:
        await conn.execute("SET LOCAL search_path = memory_layer, public, extensions")

        async def exact() -> None:
            await conn.fetch(
                "SELECT memory_id FROM memory_layer.chunks WHERE user_id = $1"
                " ORDER BY embedding <#> $2::text::vector LIMIT 10",
                user_id,
                str(queries[0].tolist()),
            )

        theirs = await p50(7, exact)
    mine = p50_of(7, queries, ours=lambda query: nearest(ours.cosines(query), 10))["ours"]
    count = f"{len(vectors):,}"
    table.add(f"pgvector exact, one user's {count}", theirs * 1e3, "ms")
    table.add("ours against it", theirs / mine, "times", least=10)


async def cold_load(table: Table, pool: Pool, user_id: UUID, chunks: int, rounds: int) -> None:
    async def page_of(ids: list[UUID]) -> change_feed.Chunks:
        async with acting_as(pool, user_id) as conn:
            return await change_feed.chunks_of(conn, user_id, ids, NAME)

    # A cache knows them from the change feed, where most of what it needs besides comes from.
    ids, size = await ids_of(pool, user_id), change_feed.PAGE
    pages = [ids[start : start + size] for start in range(0, len(ids), size)]

    async def vectors_alone() -> None:
        index = VectorIndex(DIMENSIONS)
        read = await page_of(pages[0])
        # As a cache is loaded: the next page is read while one is taken in.
        for following in pages[1:]:
            adding = asyncio.to_thread(index.add, read.vectors)
            _, read = await asyncio.gather(adding, page_of(following))
        await asyncio.to_thread(index.add, read.vectors)

    process, vectors, cache = psutil.Process(), [], []
    for _ in range(rounds):
        vectors.append(await cost(vectors_alone))
        before, retrieval = process.memory_info().rss, retrieval_of(pool)
        cache.append(await cost(lambda r=retrieval: r.recall(user_id, "a", 10, Filters())))
        grown, held = process.memory_info().rss - before, retrieval.caches.nbytes
        retrieval.close()
    for what, costs, least in (
        ("vectors loaded, alone", vectors, 100_000),
        ("chunks, whole cache", cache, 40_000),
    ):
        wall, cpu = (chunks / min(each) for each in zip(*costs, strict=True))
        table.add(f"{chunks:,} {what}", wall, "/s", least=least)
        table.add("… in a second of CPU, Postgres' included", cpu, "/s")
    table.add("bytes a chunk, counted", held / chunks, "B", most=2_200)
    table.add("… growth of the process in the last round", grown / chunks, "B")


async def cost(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds of this process and of Postgres together."""
    start, spent = time.perf_counter(), cpu_seconds()
    await work()
    return time.perf_counter() - start, cpu_seconds() - spent


def cpu_seconds() -> float:
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def ids_of(pool: Pool, user_id: UUID) -> list[UUID]:
    async with acting_as(pool, user_id) as conn:
        rows = await conn.fetch(
            "SELECT id FROM memory_layer.memories WHERE user_id = $1 ORDER BY change_seq", user_id
        )
    return [row["id"] for row in rows]


def retrieval_of(pool: Pool, **more: bool) -> Retrieval:
    return Retrieval(pool, Given(Random().vectors(64)), PLENTY, **more)


async def without_packed_words(
    table: Table, pool: Pool, owner: asyncpg.Connection, user_id: UUID
) -> None:
    await owner.execute("DELETE FROM memory_layer.keywords WHERE user_id = $1", user_id)
    for what in ("… without packed words, once", "… packed by it, the next time"):
        retrieval = retrieval_of(pool)
        took = await p50(1, lambda r=retrieval: r.recall(user_id, "first", 10, Filters()))
        retrieval.close()
        table.add(f"20,000 chunks, whole cache {what}", 2 * MIDDLE / took, "/s")


async def without_cache(table: Table, pool: Pool, user_id: UUID, draw: Random) -> None:
    exact = retrieval_of(pool, cached=False)
    query = draw.text(QUERY_WORDS)
    took = await p50(5, lambda: exact.recall(user_id, query, 10, Filters()))
    table.add("a search of 10,000 memories without a cache", took * 1e3, "ms")
    exact.close()


async def catch_up(table: Table, pool: Pool, user_id: UUID, others: int) -> None:
    async with acting_as(pool, user_id) as conn:
        took = await p50(500, lambda: change_feed.position(conn, user_id))
    table.add(f"catch-up query beside {others:,} rows, nothing new", took * 1e3, "ms", most=0.3)


async def growth(
    table: Table, few: tuple[Pool, UUID], many: tuple[Pool, UUID], others: int
) -> None:
    query = Random().text(QUERY_WORDS)
    asked = [(retrieval_of(pool), user_id) for pool, user_id in (few, many)]
    took: list[list[float]] = [[], []]
    for turn in range(400):
        for n, (retrieval, user_id) in enumerate(asked):
            start = time.perf_counter()
            await retrieval.recall(user_id, query, 10, Filters())
            if turn >= 20:
                took[n].append(time.perf_counter() - start)
    # Of ten parts of the time, the quietest.
    alone, beside = (
        min(statistics.median(times[n : n + 38]) for n in range(0, 380, 38)) for times in took
    )
    table.add("p50 of a search, 1,000 memories of one's own", alone * 1e3, "ms")
    change = (beside / alone - 1) * 100
    table.add(f"… beside {others:,} of others, not 1,000", change, "% more", most=10)
    for retrieval, _ in asked:
        retrieval.close()


async def loop_lag(table: Table, pool: Pool, user_id: UUID, draw: Random) -> None:
    retrieval = retrieval_of(pool)
    queries = [draw.text(QUERY_WORDS) for _ in range(50)]
    await retrieval.recall(user_id, queries[0], 10, Filters())
    lags: dict[str, list[float]] = {"at rest": [], "busy": []}
    searches: list[float] = []
    end = 0.0

    async def search(first: int) -> None:
        n = first
        while time.perf_counter() < end:
            start = time.perf_counter()
            await retrieval.recall(user_id, queries[n % len(queries)], 10, Filters())
            searches.append(time.perf_counter() - start)
            n += 1

    async def look(when: str) -> None:
        while time.perf_counter() < end:
            start = time.perf_counter()
            await asyncio.sleep(0.002)
            lags[when].append(time.perf_counter() - start - 0.002)

    end = time.perf_counter() + 8
    await look("at rest")
    end = time.perf_counter() + 15
    await asyncio.gather(search(0), search(25), look("busy"))
    table.add(
        "50,000 memories, searched without pause, p50", statistics.median(searches) * 1e3, "ms"
    )
    rest, busy = (statistics.quantiles(each, n=100)[98] * 1e3 for each in lags.values())
    table.add("… lag of the event loop, p99", busy, "ms", most=10)
    table.add("… the same with no search", rest, "ms")
    retrieval.close()


def ask(queries: list[str], headers: dict[str, str]) -> list[float]:
    """Return the seconds of each search. httpx would add most of a millisecond of its own."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", 8791, timeout=60)
    for query in queries:
        body = json.dumps({"query": query})
        start = time.perf_counter()
        connection.request("POST", "/search", body, headers)
        answer = connection.getresponse()
        found = answer.read()
        took.append(time.perf_counter() - start)
        assert answer.status == 200, found
    connection.close()
    return took


async def over_http(
    table: Table, url: str, pool: Pool, user_id: UUID, draw: Random, models: Path
) -> None:
    with_port = {"PORT": "8791", "DATABASE_URL": url, "LOG_LEVEL": "warning"}
    with_port |= {"INDEX_LOAD_MS": "60000", "MODEL_DIR": str(models)}
    keys = await load_or_create_keys(pool)
    issuer = Settings(_env_file=None).token_issuer
    claims = {"iss": issuer, "aud": "authenticated", "role": "authenticated"}
    claims |= {"sub": str(user_id), "iat": int(time.time()), "exp": int(time.time()) + 3600}
    headers = {"Authorization": f"Bearer {keys.sign(claims)}", "Content-Type": "application/json"}
    queries = [draw.text(QUERY_WORDS) for _ in range(300)]
    command = [sys.executable, "main.py"]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | with_port)  # noqa: ASYNC220
    try:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:8791") as client:
            await until_ready(client)
        process = psutil.Process(server.pid)
        ask(queries[:20], headers)
        before = process.cpu_times()
        took = ask(queries[20:], headers)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
    finally:
        server.terminate()
        server.wait(30)
    embedder = LocalEmbedder(models)
    embedded = []
    for query in queries:
        start = time.perf_counter()
        await embedder.embed([query], urgent=True)
        embedded.append(time.perf_counter() - start)
    await embedder.aclose()
    ms = [value * 1e3 for value in statistics.quantiles(took, n=100)]
    table.add("/search over HTTP, 10,000 memories, p50", ms[49], "ms", most=10)
    table.add("… p95", ms[94], "ms", most=25)
    table.add("… the server's CPU", spent / len(took) * 1e3, "ms")
    table.add(
        "… of which the query's embedding, p50", statistics.median(embedded) * 1e3, "ms", most=3
    )


async def run(others: int, rounds: int, models: Path, parts: set[str]) -> None:
    await asyncio.to_thread(prepare_in_child, models)
    table, draw = Table(), Random()
    print("| | measured | bound | |\n| --- | --- | --- | --- |")
    if "scan" in parts:
        scan(table, draw, rounds)
    if parts == {"scan"}:
        return
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            owner = await asyncpg.connect(url)
            await migrate(url)
            async with open_pool(url, 1, 8) as pool:
                if parts & {"pgvector", "load", "lag"}:
                    await of_large(table, pool, owner, draw, rounds, parts)
                middle, _ = await fill(owner, draw, MIDDLE)
                if "http" in parts:
                    await over_http(table, url, pool, middle, draw, models)
                if "uncached" in parts:
                    await without_cache(table, pool, middle, draw)
                    await without_packed_words(table, pool, owner, middle)
                if "growth" in parts:
                    await beside_others(table, pool, owner, url, draw, others)
            await owner.close()


async def of_large(
    table: Table,
    pool: Pool,
    owner: asyncpg.Connection,
    draw: Random,
    rounds: int,
    parts: set[str],
) -> None:
    large, vectors = await fill(owner, draw, LARGE)
    if "pgvector" in parts:
        await against_pgvector(table, pool, large, vectors, draw.near(vectors, 20))
    if "load" in parts:
        await cold_load(table, pool, large, 2 * LARGE, rounds)
    if "lag" in parts:
        await loop_lag(table, pool, large, draw)


async def beside_others(
    table: Table, pool: Pool, owner: asyncpg.Connection, url: str, draw: Random, others: int
) -> None:
    few = url.replace("/memory_layer", "/few", 1)
    await owner.execute("CREATE DATABASE few")
    await migrate(few)
    owner_of_few = await asyncpg.connect(few)
    small_alone, _ = await fill(owner_of_few, draw, SMALL)
    await add_others(owner_of_few, 1_000)
    await owner_of_few.close()
    small, _ = await fill(owner, draw, SMALL)
    await add_others(owner, others)
    async with open_pool(few, 1, 2) as pool_of_few:
        await catch_up(table, pool, small, others)
        await growth(table, (pool_of_few, small_alone), (pool, small), others)


PARTS = ("scan", "pgvector", "load", "lag", "http", "uncached", "growth")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--others", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given again")
    options = parser.parse_args()
    chosen = set(options.only or PARTS)
    uvloop.run(run(options.others, options.rounds, options.models, chosen))
