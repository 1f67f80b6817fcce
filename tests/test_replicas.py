"""Several servers on one database: what one acknowledges the others know at once."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import httpx
import numpy as np
import pytest

from core.capture import Capture
from core.save_queue import Saved, write_together
from storage import change_feed, embedding_queue, memory_store, sync
from storage.database import Pool, acting_as, open_pool
from storage.embedding_queue import Embedded, EmbeddedChunk
from storage.memory_store import Row
from storage.migrate import known, migrate
from tests.conftest import Headers, Server, execute, sign_up, until, url_of
from tests.embedding_server import embedding_server
from tests.test_faults import word_of

PEOPLE = 5
NOW = datetime.now(UTC)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, 2, 40) as pool:
        yield pool


@contextlib.asynccontextmanager
async def two_replicas(
    make_server: Callable[..., Server], **settings: str
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    servers = [make_server(**settings) for _ in range(2)]
    for server in servers:
        await asyncio.to_thread(server.wait_until_ready)
    async with (
        httpx.AsyncClient(base_url=servers[0].url, timeout=30) as one,
        httpx.AsyncClient(base_url=servers[1].url, timeout=30) as two,
    ):
        yield one, two


async def save(client: httpx.AsyncClient, user: Headers, prompt: str) -> str:
    body = {"prompt": prompt, "provider": "chatgpt"}
    answer = await client.post("/save-prompt", json=body, headers=user)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["memory_id"])


async def found(client: httpx.AsyncClient, user: Headers, query: str) -> list[str]:
    """The ids of the hits that hold the query's words; those near in meaning alone do not count."""
    answer = await client.post("/search", json={"query": query}, headers=user)
    hits = answer.json()["data"]["hits"]
    return [hit["memory"]["id"] for hit in hits if hit["why"]["lexical"] == 1]


async def misses(one: httpx.AsyncClient, two: httpx.AsyncClient, saves: int) -> list[int]:
    """Save on the one replica and search on the other, in turn; return which were not found."""
    missed: list[int] = []

    async def person(n: int) -> None:
        user = await sign_up(one, f"person{n}")
        for turn in range(n, saves, PEOPLE):
            here, there = (one, two) if turn // PEOPLE % 2 else (two, one)
            memory_id = await save(here, user, f"note {turn} on {word_of(turn)}")
            if await found(there, user, word_of(turn)) != [memory_id]:
                missed.append(turn)

    await asyncio.gather(*(person(n) for n in range(PEOPLE)))
    return missed


async def test_what_one_replica_acknowledges_the_other_finds_at_once(
    make_server: Callable[..., Server],
) -> None:
    async with two_replicas(make_server) as (one, two):
        assert await misses(one, two, 500) == []


async def test_it_is_found_at_once_also_while_it_is_being_embedded(
    make_server: Callable[..., Server], database: asyncpg.Connection
) -> None:
    async with embedding_server() as provider:
        provider.pause = 0.01
        settings = {
            "EMBEDDER": "openai:text-embedding-3-small",
            "OPENAI_BASE_URL": provider.url,
            "OPENAI_API_KEY": "k",
        }
        async with two_replicas(make_server, **settings) as (one, two):
            assert await misses(one, two, 60) == []

            async def all_embedded() -> bool:
                return not await database.fetchval(
                    "SELECT count(*) FROM memory_layer.memories WHERE embedding_state = 'open'"
                )

            await until(all_embedded)
            assert await misses(one, two, 10) == []


async def test_edits_and_deletes_on_one_replica_show_on_the_other_at_once(
    make_server: Callable[..., Server],
) -> None:
    async with two_replicas(make_server) as (one, two):
        user = await sign_up(one, "alice")
        for n in range(20):
            before, after = word_of(2 * n), word_of(2 * n + 1)
            memory_id = await save(one, user, before)
            assert await found(two, user, before) == [memory_id]

            edit = {"prompt": after}
            await one.patch(f"/memories/{memory_id}", json=edit, headers=user)
            assert await found(two, user, before) == []
            assert await found(two, user, after) == [memory_id]
            read = await two.get(f"/memories/{memory_id}", headers=user)
            assert read.json()["data"]["prompt"] == after

            await one.delete(f"/memories/{memory_id}", headers=user)
            assert await found(two, user, after) == []
            assert (await two.get(f"/memories/{memory_id}", headers=user)).status_code == 404


@dataclass
class Torture:
    """Writers whose transactions commit late, and one reader a user who must miss nothing."""

    pool: Pool
    users: list[UUID]
    wanted: int
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    committed: dict[tuple[UUID, UUID], int] = field(default_factory=dict)
    writes: int = 0
    rolled_back: set[UUID] = field(default_factory=set)
    done: bool = False

    async def write(self) -> None:
        while self.writes < self.wanted:
            user_id, count = self.chance.choice(self.users), self.chance.randint(40, 160)
            known = [key for key in self.committed if key[0] == user_id]
            ids = [uuid4() for _ in range(count)]
            ids[: count // 5] = [key[1] for key in self.chance.sample(known, min(3, len(known)))]
            with contextlib.suppress(ZeroDivisionError):
                await self._transaction(user_id, ids, fails=self.chance.random() < 0.1)

    async def _transaction(self, user_id: UUID, ids: list[UUID], fails: bool) -> None:
        async with acting_as(self.pool, user_id) as conn:
            last = (await memory_store.take_numbers(conn, {user_id: len(ids)}))[user_id]
            numbers = range(last - len(ids) + 1, last + 1)
            await memory_store.write(
                conn, [row_of(user_id, *pair) for pair in zip(ids, numbers, strict=True)]
            )
            await asyncio.sleep(self.chance.random() * 0.9)
            if fails:
                self.rolled_back.update(ids)
                raise ZeroDivisionError
        self.committed.update({(user_id, i): n for i, n in zip(ids, numbers, strict=True)})
        self.writes += len(ids)

    async def read(self, user_id: UUID) -> dict[UUID, int]:
        """Poll every 10 ms with nothing but a number as the cursor, as every replica does."""
        seen: dict[UUID, int] = {}
        cursor = 0
        while True:
            last_time = self.done
            async with acting_as(self.pool, user_id) as conn:
                feed = await change_feed.since(conn, user_id, cursor)
            for change in feed.changes:
                assert change.change_seq > cursor
                seen[change.id] = cursor = change.change_seq
            if last_time and feed.complete:
                return seen
            await asyncio.sleep(0.01)


def row_of(user_id: UUID, memory_id: UUID, number: int) -> Row:
    capture = Capture(user_id, memory_id, "prompt", f"text {number}")
    row = Row(user_id, memory_id, "chatgpt", NOW, prompt=capture.text, change_seq=number)
    row.created_at = NOW
    return row


async def test_a_reader_of_changes_misses_none_of_ten_thousand_that_commit_late(
    pool: Pool,
) -> None:
    torture = Torture(pool, [uuid4() for _ in range(12)], wanted=10_000)
    async with asyncio.TaskGroup() as tasks:
        readers = {u: tasks.create_task(torture.read(u)) for u in torture.users}
        await asyncio.gather(*(torture.write() for _ in range(24)))
        torture.done = True

    read = {
        (user_id, memory_id): number
        for user_id, reader in readers.items()
        for memory_id, number in reader.result().items()
    }
    assert torture.rolled_back
    assert torture.writes >= 10_000
    assert read == torture.committed


async def test_batches_of_many_people_in_any_order_never_deadlock(pool: Pool) -> None:
    users, chance = [uuid4() for _ in range(30)], random.Random(3)

    async def replica() -> Counter[type]:
        answers: Counter[type] = Counter()
        for _ in range(60):
            batch = [Capture(u, uuid4(), "prompt", "text") for u in chance.sample(users, 20)]
            answers.update(map(type, await write_together(pool, batch)))
        return answers

    answers = await asyncio.gather(*(replica() for _ in range(6)))

    assert sum(answers, Counter()) == {Saved: 6 * 60 * 20}


async def test_of_the_same_new_memory_from_many_sides_one_is_the_first(pool: Pool) -> None:
    """And each of the others learns when that one was made; what else comes with it is saved."""
    user_id, same = uuid4(), uuid4()

    async def replica() -> list[Saved]:
        batch = [Capture(user_id, i, "prompt", "text") for i in (uuid4(), same, uuid4())]
        return [answer for answer in await write_together(pool, batch) if isinstance(answer, Saved)]

    answers = await asyncio.gather(*(replica() for _ in range(12)))
    async with acting_as(pool, user_id) as conn:
        feed = await change_feed.since(conn, user_id, 0)

    assert [len(each) for each in answers] == [3] * 12
    assert sum(middle.created for _, middle, _ in answers) == 1
    assert all(first.created and last.created for first, _, last in answers)
    assert len({middle.created_at for _, middle, _ in answers}) == 1
    assert len(feed.changes) == 25
    assert len({change.change_seq for change in feed.changes}) == 25


async def test_a_page_of_changes_leaves_none_out_however_the_database_reads_it(pool: Pool) -> None:
    user_id, ids = uuid4(), [uuid4() for _ in range(4)]
    *first, last = (Capture(user_id, i, "prompt", "text") for i in ids)
    await write_together(pool, first)
    await write_together(pool, [Capture(user_id, ids[0], "response", "text")])
    async with pool.acquire() as conn:
        await conn.execute("VACUUM memory_layer.memories")
    await write_together(pool, [last])  # where the first one was

    async with acting_as(pool, user_id) as conn:
        await conn.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
        page = await sync.page(conn, user_id, 0, 5, 2)
        rest = await sync.page(conn, user_id, page[-1].change_seq, 5, 2)

    assert [change.id for change in page + rest] == [ids[1], ids[2], ids[0], ids[3]]


async def test_new_prompts_of_many_are_saved_by_one_statement(pool: Pool) -> None:
    said: list[str] = []
    await write_together(pool, [Capture(uuid4(), uuid4(), "prompt", "asyncpg asks for types once")])
    async with pool.acquire() as conn:
        conn.add_query_logger(lambda record: said.append(record.query.split("(")[0]))
    batch = [Capture(uuid4(), uuid4(), "prompt", f"text {n}") for n in range(50)]

    answers = await write_together(pool, batch)
    await asyncio.sleep(0)  # the logger is called a turn of the loop later

    assert [type(answer) for answer in answers] == [Saved] * 50
    assert said == ["SELECT memory_layer.add_memories"]


async def test_saves_and_the_embedding_worker_never_deadlock(pool: Pool) -> None:
    """An embedder that is away gives memories back while their answers arrive in any order."""
    user_id, ids, chance = uuid4(), [uuid4() for _ in range(8)], random.Random(5)
    await write_together(pool, [Capture(user_id, i, "prompt", "text") for i in ids])
    chunk = EmbeddedChunk("prompt", 0, 4, np.array([1.0, 0.0]))
    finished = False

    async def worker() -> int:
        turns = 0
        while not finished:
            leased = await embedding_queue.lease(pool, UUID(int=0))
            chance.shuffle(leased)
            await embedding_queue.give_back(pool, leased, 0)
            turns += bool(leased)
            embedded = [Embedded(item, [chunk], item.pack()) for item in leased[:1]]
            await embedding_queue.finish(pool, "m", embedded)
        return turns

    async def saves() -> None:
        for turn in range(300):
            batch = [
                Capture(user_id, i, "response", "x" * turn, status="partial")
                for i in chance.sample(ids, 8)
            ]
            await write_together(pool, batch)

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(worker()) for _ in range(3)]
        await asyncio.gather(*(saves() for _ in range(2)))
        finished = True

    assert min(task.result() for task in workers) > 10


async def test_replicas_that_start_together_on_an_empty_database_migrate_it_once(
    cluster: str,
) -> None:
    name = f"test_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        applied = await asyncio.gather(*(migrate(url_of(cluster, name)) for _ in range(3)))
    finally:
        await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")

    names = [path.name for path in known()]
    assert sorted(applied) == [[], [], names]
