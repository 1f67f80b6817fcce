"""With the owner taken out of every WHERE, the database alone keeps people apart."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from core.capture import Capture
from core.config import ROOT
from core.save_queue import write_together
from storage import change_feed, memory_store
from storage.database import Pool, open_pool
from storage.memory_store import Filters
from tests.conftest import Server, issue_token, sign_up
from tests.test_isolation import (
    ATTEMPTS,
    an_import_of,
    everything_of,
    filled,
    names_of,
)

OWNED = re.compile(r"\b(?:\w+\.)?user_id = \$1(?!\d)")
OWNER = re.compile(r"\b(?:\w+\.)?user_id = person\b")
# Signing in serves those who are nobody yet: its role is bound to no user.
AS_THEY_ARE = ("accounts.py",)
LEAST_WHERES = 50


def without_owners(folder: Path) -> int:
    """Copy the service, and say in how many places its statements no longer name the user."""
    for part in ("core", "storage", "routers", "admin"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", folder)
    wheres = 0
    for path in sorted((folder / "storage").glob("*.py")):
        if path.name not in AS_THEY_ARE:
            text, count = OWNED.subn("$1::uuid IS NOT NULL", path.read_text())
            path.write_text(text)
            wheres += count
    return wheres


@pytest.fixture
def careless(database_url: str, tmp_path: Path) -> Iterator[Server]:
    """A service that forgot whose rows it asks for."""
    assert without_owners(tmp_path / "careless") >= LEAST_WHERES
    server = Server(DATABASE_URL=database_url)
    server.start(tmp_path / "careless")
    server.wait_until_ready()
    yield server
    server.close()


async def test_a_service_that_names_no_owner_gives_and_changes_nothing_of_anothers(
    careless: Server, client: httpx.AsyncClient
) -> None:
    """Alice is served by the service as it is; bob asks the careless one, on every route."""
    alice = await sign_up(client, "alice")
    memory = {"id": "5f0c0e9e-2c52-4c0e-9d0e-0d7d7d4f6a11", "provider": "claude"}
    memory |= {"prompt": "secret of alice", "conversation_id": "chat-of-alice"}
    await client.post("/save-prompt", json=memory, headers=alice)
    edited = {"response": "a secret of alice's own"}
    await client.patch(f"/memories/{memory['id']}", json=edited, headers=alice)
    await issue_token(client, alice)
    [token] = (await client.get("/tokens", headers=alice)).json()["data"]["tokens"]
    user = (await client.get("/auth/v1/user", headers=alice)).json()
    import_id = await an_import_of(client, alice)
    names = names_of(
        memory["id"], memory["conversation_id"], user["id"], user["email"], token["id"], import_id
    )
    before = await everything_of(client, alice)

    async with httpx.AsyncClient(base_url=careless.url, timeout=30) as http:
        for route, attempt in ATTEMPTS.items():
            bob = await sign_up(client, "bob")
            method, _, path = filled(route + attempt.query, names).partition(" ")
            body = json.loads(filled(json.dumps(attempt.send), names))
            answer = await http.request(method, path, json=body, headers=bob)

            assert "secret of alice" not in answer.text, route
            assert await everything_of(client, alice) == before, route


READING = ("own_memories", "newest_memories", "next_changes")
# It writes, and only what it is given (`test_one_forged_row_among_new_ones_fails_them_all`).
ADDING = "add_memories"
OF_FUNCTIONS = """
    SELECT pg_get_functiondef(oid) AS definition, prosecdef, proowner::regrole::text AS owner,
           coalesce(proacl::text, '=X') ~ '[{,]=X' AS for_all
      FROM pg_proc WHERE pronamespace = 'memory_layer'::regnamespace AND proname = ANY($1)
"""


async def all_that_is_seen(pool: Pool, user_id: UUID, memory_id: UUID) -> list[Any]:
    """By the three functions, one after the other."""
    _, read = await memory_store.own(pool, user_id, [memory_id])
    batch = await change_feed.few_since(pool, user_id, 0, 9, "test:one")
    assert batch
    return [
        *read,
        *await memory_store.newest(pool, user_id, Filters(), None, 9),
        *batch.feed.changes,
    ]


async def test_functions_run_behind_the_second_wall_and_not_for_everybody(
    database: asyncpg.Connection,
) -> None:
    functions = await database.fetch(OF_FUNCTIONS, (*READING, ADDING))

    assert len(functions) == len(READING) + 1
    assert {(f["prosecdef"], f["owner"], f["for_all"]) for f in functions} == {
        (True, "memory_layer_app", False)
    }


async def test_functions_that_name_no_owner_give_nothing_of_anothers(
    database_url: str, database: asyncpg.Connection
) -> None:
    alice, bob, memory_id = uuid4(), uuid4(), uuid4()
    async with open_pool(database_url, 1, 2) as pool:
        await write_together(pool, [Capture(alice, memory_id, "prompt", "secret of alice")])
        await write_together(pool, [Capture(bob, uuid4(), "prompt", "mine")])
        functions = await database.fetch(OF_FUNCTIONS, READING)
        assert len(functions) == len(READING)
        for function in functions:
            careless, wheres = OWNER.subn("true", function["definition"])
            assert wheres >= 1
            await database.execute(careless)

        seen = [each.id for each in await all_that_is_seen(pool, bob, memory_id)]
        assert len(seen) == 2 and memory_id not in seen

        for table in ("memories", "user_state"):
            await database.execute(f"ALTER TABLE memory_layer.{table} DISABLE ROW LEVEL SECURITY")
        seen = [each.id for each in await all_that_is_seen(pool, bob, memory_id)]
        assert seen.count(memory_id) >= len(READING)


async def test_the_careless_service_is_one(
    careless: Server, client: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    """Where the second wall is down as well, bob reads what is alice's: the test above can fail."""
    alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
    body = {"prompt": "secret of alice", "provider": "claude"}
    saved = await client.post("/save-prompt", json=body, headers=alice)
    memory_id = saved.json()["data"]["memory_id"]
    await database.execute("ALTER TABLE memory_layer.memories DISABLE ROW LEVEL SECURITY")

    async with httpx.AsyncClient(base_url=careless.url, timeout=30) as http:
        read = await http.get(f"/memories/{memory_id}", headers=bob)

    assert "secret of alice" in read.text
