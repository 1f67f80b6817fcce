"""With the owner taken out of every WHERE, the database alone keeps people apart."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from core.config import ROOT
from tests.conftest import Server, issue_token, sign_up
from tests.test_isolation import (
    ATTEMPTS,
    an_import_of,
    everything_of,
    filled,
    names_of,
)

OWNED = re.compile(r"\b(?:\w+\.)?user_id = \$1(?!\d)")
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


async def test_the_careless_service_is_one(
    careless: Server, client: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    """Where the second wall is down as well, bob reads what is alice's: the test above can fail."""
    alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
    body = {"prompt": "secret of alice", "provider": "claude"}
    await client.post("/save-prompt", json=body, headers=alice)
    await database.execute("ALTER TABLE memory_layer.memories DISABLE ROW LEVEL SECURITY")

    async with httpx.AsyncClient(base_url=careless.url, timeout=30) as http:
        listed = await http.get("/memories", headers=bob)

    assert "secret of alice" in listed.text
