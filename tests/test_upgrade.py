"""A database of the first version comes to the newest; a step that fails undoes all steps."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from core.capture import Capture
from core.config import Settings
from core.save_queue import write_together
from storage import migrate as migrations
from storage.database import open_pool
from storage.migrate import PREPARE, known, migrate
from tests.conftest import app_client, execute, sign_up, signer, url_of
from tests.test_replicas import found, save

FIRST = """
    INSERT INTO memory_layer.user_state (user_id, change_seq) VALUES ($1, $2)
"""


@pytest.fixture
async def empty(cluster: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
    yield url_of(cluster, name)
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


async def first_schema(url: str) -> None:
    """What the first migration made, and no later one."""
    conn = await asyncpg.connect(url)
    async with conn.transaction():
        await conn.execute(PREPARE)
        await conn.execute(known()[0].read_text())
        name = known()[0].name
        await conn.execute("INSERT INTO memory_layer.schema_migrations (name) VALUES ($1)", name)
    await conn.close()


async def test_the_first_schema_with_its_data_comes_to_the_newest(
    empty: str, settings: Settings
) -> None:
    await first_schema(empty)
    people = [uuid4() for _ in range(3)]
    conn = await asyncpg.connect(empty)
    for person in people:
        await conn.execute(FIRST, person, 40)
        await conn.executemany(
            """
            INSERT INTO memory_layer.memories
                   (user_id, id, prompt, status, provider, content_hash, change_seq, occurred_at)
            VALUES ($1, $2, $3, 'waiting', 'claude', '\\x00', $4, now())
            """,
            [(person, uuid4(), f"walrus number {n}", n) for n in range(1, 41)],
        )
    before = await conn.fetch("SELECT user_id, id, prompt FROM memory_layer.memories ORDER BY id")

    applied = await migrate(empty)

    after = await conn.fetch("SELECT user_id, id, prompt FROM memory_layer.memories ORDER BY id")
    await conn.close()
    assert applied == [path.name for path in known()[1:]]
    assert after == before
    async with open_pool(empty, 1, 2) as pool:
        [saved] = await write_together(pool, [Capture(people[0], uuid4(), "prompt", "lion")])
        assert not isinstance(saved, Exception)
    values = settings.model_dump() | {"database_url": empty}
    async with app_client(Settings(_env_file=None, **values)) as client:
        user = (await signer(empty))(people[1])
        listed = await client.get("/sync/since", params={"limit": 100}, headers=user)
        changes = listed.json()["data"]["changes"]
        assert [c["memory"]["prompt"] for c in changes] == [
            f"walrus number {n}" for n in range(1, 41)
        ]
        assert [c["id"] for c in changes][6:7] == await found(client, user, "walrus 7")
        memory_id = await save(client, user, "lion")
        cursor = listed.json()["data"]["next_cursor"]
        then = await client.get("/sync/since", params={"cursor": cursor}, headers=user)
        assert [c["id"] for c in then.json()["data"]["changes"]] == [memory_id]


async def test_replicas_that_start_together_bring_the_first_schema_up_once(empty: str) -> None:
    await first_schema(empty)

    applied = await asyncio.gather(*(migrate(empty) for _ in range(3)))

    assert sorted(applied) == [[], [], [path.name for path in known()[1:]]]


async def test_a_migration_that_fails_leaves_the_schema_and_the_data_as_they_were(
    empty: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_they_were = migrations.MIGRATIONS
    await migrate(empty)
    for path in known():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "9000_good.sql").write_text("CREATE TABLE memory_layer.half (n int);")
    (tmp_path / "9001_bad.sql").write_text("DELETE FROM memory_layer.user_state; SELECT 1 / 0;")
    await execute(empty, f"INSERT INTO memory_layer.user_state (user_id) VALUES ('{uuid4()}')")
    monkeypatch.setattr(migrations, "MIGRATIONS", tmp_path)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty)

    conn = await asyncpg.connect(empty)
    assert await conn.fetchval("SELECT count(*) FROM memory_layer.user_state") == 1
    assert await conn.fetchval("SELECT to_regclass('memory_layer.half')") is None
    await conn.close()
    with monkeypatch.context() as rolled_back:
        rolled_back.setattr(migrations, "MIGRATIONS", as_they_were)
        values = settings.model_dump() | {"database_url": empty}
        async with app_client(Settings(_env_file=None, **values)) as client:
            user = await sign_up(client, "alice")
            assert await found(client, user, "walrus") == []
            memory_id = await save(client, user, "walrus")
            assert await found(client, user, "walrus") == [memory_id]
    (tmp_path / "9001_bad.sql").unlink()
    assert await migrate(empty) == ["9000_good.sql"]
