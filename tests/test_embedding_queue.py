"""Memories are embedded behind the save: each once, by whoever is alive, nobody kept waiting."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from uuid import UUID, uuid4

import asyncpg
import httpx
import numpy as np
import pytest

from core import memories
from core.capture import Capture
from core.config import Settings
from core.embedding_worker import EmbeddingWorker
from core.embeddings import Span, Vectors
from core.save_queue import write_together
from storage import change_feed, embedding_queue, pgvector
from storage.database import Pool, acting_as, open_pool
from tests.conftest import app_client, sign_up, until
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.test_replicas import found, pool, save

__all__ = ["pool"]
NOBODY = UUID(int=0)
DIMENSIONS = 4


class HashEmbedder:
    """One chunk a text; with `held` set, each call waits until a test lets it go on."""

    def __init__(self, name: str = "test:one", *, held: bool = False) -> None:
        self.name = name
        self.dimensions = DIMENSIONS
        self.texts: list[str] = []
        self.arrived = asyncio.Semaphore(0)
        self.go_on = asyncio.Semaphore(0)
        self.held = held

    def split(self, text: str, most: int) -> list[Span]:
        return [Span(0, len(text))] if text else []

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.arrived.release()
        if self.held:
            await self.go_on.acquire()
        await asyncio.sleep(0)
        self.texts += texts
        return np.stack([vector(text) for text in texts])

    async def aclose(self) -> None:
        pass


def vector(text: str) -> np.ndarray:
    bits = np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIMENSIONS], np.uint8)
    return (bits / 256).astype(np.float32)


@contextlib.asynccontextmanager
async def working(pool: Pool, *embedders: HashEmbedder) -> AsyncIterator[None]:
    """One worker for each embedder; leaving the block stops them in order."""
    tasks = [asyncio.create_task(EmbeddingWorker(pool, each).run()) for each in embedders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in ended if not isinstance(each, asyncio.CancelledError)] == []


@contextlib.asynccontextmanager
async def crashing(database_url: str, embedder: HashEmbedder) -> AsyncIterator[None]:
    """A worker that loses its database at the end of the block, as a killed process does."""
    async with open_pool(database_url, 1, 2) as own_pool:
        task = asyncio.create_task(EmbeddingWorker(own_pool, embedder).run())
        yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def save_prompts(pool: Pool, user_id: UUID, texts: Iterable[str]) -> list[UUID]:
    captures = [Capture(user_id, uuid4(), "prompt", text) for text in texts]
    await write_together(pool, captures)
    return [capture.id for capture in captures]


async def all_embedded(pool: Pool) -> None:
    async def nothing_waits() -> bool:
        return (await embedding_queue.backlog(pool)).waiting == 0

    await until(nothing_waits)


async def stored_vectors(pool: Pool, user_id: UUID, ids: Sequence[UUID]) -> list[list[float]]:
    async with acting_as(pool, user_id) as conn:
        chunks = await change_feed.chunks_of(conn, user_id, ids, "test:one")
    return chunks.vectors.tolist() if chunks else []


async def let_leases_expire(database: asyncpg.Connection) -> None:
    await database.execute(
        "UPDATE memory_layer.memories SET leased_until = now() - interval '1 s'"
        " WHERE leased_until IS NOT NULL"
    )


async def test_two_workers_share_the_work_and_embed_each_memory_once(
    pool: Pool, database: asyncpg.Connection
) -> None:
    texts = [f"text {n}" for n in range(200)]
    for start in range(0, 200, 20):
        await save_prompts(pool, uuid4(), texts[start : start + 20])
    one, two = HashEmbedder(), HashEmbedder()

    async with working(pool, one, two):
        await all_embedded(pool)

    assert one.texts and two.texts
    assert Counter(one.texts + two.texts) == Counter(texts)
    rows = await database.fetch(
        """
        SELECT m.prompt, m.embedding_state, m.embedding_model, m.leased_until, m.attempts,
               c.embedding_model AS model, memory_layer.vector_bytes(c.embedding) AS vector
          FROM memory_layer.memories m
          JOIN memory_layer.chunks c ON (c.user_id, c.memory_id) = (m.user_id, m.id)
        """
    )
    assert sorted(row["prompt"] for row in rows) == sorted(texts)
    assert {tuple(row)[1:6] for row in rows} == {("done", "test:one", None, 0, "test:one")}
    for row in rows:
        [stored] = pgvector.vectors_from(row["vector"], 1)
        assert np.array_equal(stored, vector(row["prompt"]))


async def test_what_a_worker_held_when_it_crashed_is_taken_over_when_its_lease_expires(
    pool: Pool, database: asyncpg.Connection, database_url: str
) -> None:
    user_id = uuid4()
    ids = await save_prompts(pool, user_id, ["one", "two"])
    stuck, other = HashEmbedder(held=True), HashEmbedder()
    async with crashing(database_url, stuck):
        await stuck.arrived.acquire()

    assert await embedding_queue.lease(pool, NOBODY) == []
    await let_leases_expire(database)
    async with working(pool, other):
        await all_embedded(pool)

    assert sorted(other.texts) == ["one", "two"]
    assert len(await stored_vectors(pool, user_id, ids)) == 2


async def test_what_a_worker_held_when_it_was_stopped_is_taken_over_at_once(pool: Pool) -> None:
    user_id = uuid4()
    ids = await save_prompts(pool, user_id, ["one", "two"])
    stuck = HashEmbedder(held=True)
    async with working(pool, stuck):
        await stuck.arrived.acquire()

    leased = await embedding_queue.lease(pool, NOBODY)

    assert {item.id for item in leased} == set(ids)


async def test_a_text_that_is_edited_while_it_is_embedded_gets_the_vector_of_the_new_one(
    pool: Pool,
) -> None:
    user_id, embedder = uuid4(), HashEmbedder(held=True)
    [memory_id] = await save_prompts(pool, user_id, ["before"])
    async with working(pool, embedder):
        await embedder.arrived.acquire()
        await memories.edit(pool, user_id, memory_id, {"prompt": "after"})
        embedder.go_on.release()
        await embedder.arrived.acquire()
        between = await stored_vectors(pool, user_id, [memory_id])
        embedder.go_on.release()
        await all_embedded(pool)

    assert embedder.texts == ["before", "after"]
    assert between == []
    assert await stored_vectors(pool, user_id, [memory_id]) == [vector("after").tolist()]


async def test_an_answer_that_comes_while_its_prompt_is_embedded_is_embedded_too(
    pool: Pool,
) -> None:
    user_id, embedder = uuid4(), HashEmbedder(held=True)
    [memory_id] = await save_prompts(pool, user_id, ["question"])
    async with working(pool, embedder):
        await embedder.arrived.acquire()
        await write_together(pool, [Capture(user_id, memory_id, "response", "answer")])
        embedder.held = False
        embedder.go_on.release()
        await all_embedded(pool)

    expected = [vector("question").tolist(), vector("answer").tolist()]
    assert await stored_vectors(pool, user_id, [memory_id]) == expected


async def test_of_a_memory_deleted_while_it_is_embedded_no_vector_is_kept(
    pool: Pool, database: asyncpg.Connection
) -> None:
    user_id, embedder = uuid4(), HashEmbedder(held=True)
    gone, stays = await save_prompts(pool, user_id, ["gone", "stays"])
    async with working(pool, embedder):
        await embedder.arrived.acquire()
        await memories.delete(pool, user_id, gone)
        embedder.held = False
        embedder.go_on.release()
        await all_embedded(pool)

    assert "gone" in embedder.texts
    assert await database.fetchval("SELECT array_agg(memory_id) FROM memory_layer.chunks") == [
        stays
    ]


async def test_one_new_memory_does_not_wait_behind_the_five_hundred_of_others(pool: Pool) -> None:
    importing, before, behind = (UUID(int=n) for n in (2**100, 2**99, 2**101))
    await save_prompts(pool, importing, (f"imported {n}" for n in range(500)))
    embedder = HashEmbedder(held=True)
    async with working(pool, embedder):
        await embedder.arrived.acquire()
        for user_id, text in ((before, "new before"), (behind, "new behind")):
            await save_prompts(pool, user_id, [text])
        embedder.held = False
        embedder.go_on.release()
        await all_embedded(pool)

    assert len(embedder.texts) == 502
    assert {"new before", "new behind"} <= set(embedder.texts[:20])


async def test_a_memory_that_takes_the_process_down_is_set_aside_alone(
    pool: Pool, database: asyncpg.Connection, database_url: str
) -> None:
    class Deadly(HashEmbedder):
        dead = False

        async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
            if "deadly" in texts:
                self.dead = True
                await asyncio.Event().wait()
            return await super().embed(texts, urgent=urgent)

    users = [uuid4() for _ in range(3)]
    for n, user_id in enumerate(users):
        await save_prompts(pool, user_id, [f"harmless {n}", "deadly" if n == 1 else f"also {n}"])

    for _ in range(embedding_queue.MOST_ATTEMPTS + 1):
        embedder = Deadly()

        async def life_is_over(embedder: Deadly = embedder) -> bool:
            return embedder.dead or (await embedding_queue.backlog(pool)).waiting == 0

        async with crashing(database_url, embedder):
            await until(life_is_over)
        await let_leases_expire(database)

    states = await database.fetch(
        "SELECT prompt, embedding_state AS state FROM memory_layer.memories"
    )
    failed = [row["prompt"] for row in states if row["state"] != "done"]
    assert failed == ["deadly"]
    assert await embedding_queue.backlog(pool) == embedding_queue.Backlog(0, 1)


@pytest.fixture
async def provider() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as server:
        yield server


@pytest.fixture
async def paid(settings: Settings, provider: EmbeddingServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that embeds with the provider."""
    chosen = {"embedder": "openai:text-embedding-3-small", "openai_base_url": provider.url}
    async with app_client(settings.model_copy(update=chosen)) as client:
        yield client


async def embedding_of(client: httpx.AsyncClient) -> dict[str, object]:
    health = (await client.get("/health")).json()["data"]
    return {**health["embedding"], "status": health["status"]}


async def settled(client: httpx.AsyncClient, **wanted: object) -> None:
    """Wait until the embedding part of /health says so."""

    async def so() -> bool:
        return wanted.items() <= (await embedding_of(client)).items()

    await until(so)


async def test_a_text_the_provider_refuses_is_set_aside_alone_and_still_found_by_words(
    paid: httpx.AsyncClient, provider: EmbeddingServer, database: asyncpg.Connection
) -> None:
    provider.poison = "mandrake"
    users = [await sign_up(paid, f"person{n}") for n in range(3)]
    provider.pause = 0.05  # so that they come to stand in one lease
    await asyncio.gather(
        *(save(paid, user, f"the {word}") for user in users for word in ("walrus", "lion")),
        save(paid, users[1], "the mandrake root"),
    )

    await settled(paid, waiting=0, set_aside=1, state="ok", status="ok")
    [refused] = await database.fetch(
        "SELECT id, prompt FROM memory_layer.memories WHERE embedding_state <> 'done'"
    )
    assert refused["prompt"] == "the mandrake root"
    assert await found(paid, users[1], "mandrake") == [str(refused["id"])]

    edit = {"prompt": "the ginger root"}
    await paid.patch(f"/memories/{refused['id']}", json=edit, headers=users[1])
    await settled(paid, waiting=0, set_aside=0)


async def test_saves_go_on_while_the_provider_is_away_and_are_embedded_when_it_is_back(
    paid: httpx.AsyncClient, provider: EmbeddingServer
) -> None:
    user = await sign_up(paid, "alice")
    for _ in range(100):
        provider.fail_next(401, {"retry-after": "0.05"})

    ids = [await save(paid, user, f"the walrus number{n}") for n in range(10)]
    await settled(paid, state="degraded", status="degraded", waiting=10, set_aside=0)
    assert [await found(paid, user, f"number{n}") for n in range(10)] == [[i] for i in ids]

    provider.faults.clear()
    await settled(paid, state="ok", status="ok", waiting=0, set_aside=0)


async def test_a_new_embedder_embeds_all_anew_while_search_by_words_goes_on(
    settings: Settings, pool: Pool, provider: EmbeddingServer, database: asyncpg.Connection
) -> None:
    async with app_client(settings) as client:
        user = await sign_up(client, "alice")
        ids = [await save(client, user, f"the walrus number{n}") for n in range(40)]
    async with working(pool, HashEmbedder("test:old")):
        await all_embedded(pool)
    assert await models(database) == {"test:old": 40}

    provider.pause = 0.02
    chosen = {"embedder": "openai:text-embedding-3-small", "openai_base_url": provider.url}
    async with app_client(settings.model_copy(update=chosen)) as client:
        during = []
        while "test:old" in await models(database):
            during.append(await found(client, user, "number7"))
        after = await found(client, user, "number7")

    assert during and all(hits == [ids[7]] for hits in [*during, after])
    assert await models(database) == {"openai:text-embedding-3-small": 40}


async def models(database: asyncpg.Connection) -> dict[str, int]:
    rows = await database.fetch(
        "SELECT embedding_model, count(*) FROM memory_layer.chunks GROUP BY 1"
    )
    return {row[0]: row[1] for row in rows}
