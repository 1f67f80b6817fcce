"""The operator's doctor: it says of each part that it is well, or what to do."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from core.config import ROOT
from core.doctor import examine
from core.signing_keys import LocalKeys
from tests.conftest import INHERITED, execute, url_of
from tests.embedding_server import embedding_server
from tests.valkey import Valkey
from tests.wire_server import wire_server

KEY = "sb_publishable_of_the_test"
KEYS = LocalKeys([ec.generate_private_key(ec.SECP256R1())])
HIDDEN = (406, {"code": "PGRST106", "message": "The schema must be one of the following: public"})
DENIED = (403, {"code": "42501", "message": "permission denied for schema memory_layer"})


@dataclass
class Project:
    """A Supabase project's two wires: its public keys, and its Data API by schema."""

    keys: tuple[int, dict] = field(default_factory=lambda: (200, KEYS.published()))
    tables: dict[str, tuple[int, object]] = field(default_factory=dict)

    def answer(self, sent):
        status, body = 404, {}
        if sent.path == "/auth/v1/.well-known/jwks.json":
            status, body = self.keys
        elif sent.path.startswith("/rest/v1/"):
            if sent.headers.get("apikey") != KEY:
                status, body = 401, {"message": "Invalid API key", "hint": "Double check it."}
            else:
                status, body = self.tables.get(sent.headers["accept-profile"], HIDDEN)
        return status, "application/json", json.dumps(body).encode()


@asynccontextmanager
async def project(**told):
    async with wire_server(Project(**told).answer) as server:
        yield f"http://{server.address}", server


@pytest.fixture(scope="module")
def valkey():
    server = Valkey()
    server.start()
    yield server
    server.close()


async def findings(settings, **changed):
    """What is found beside what is well."""
    settings = settings.model_copy(update=changed)
    found = [finding async for finding in examine(settings)]
    return [f"{verdict} {part}: {text}" for verdict, part, text in found if verdict != "ok"]


async def faults(settings, **changed):
    return [text for text in await findings(settings, **changed) if text.startswith("FAULT")]


async def doctor(**environment):
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "main.py", "doctor"],
        cwd=ROOT,
        env=INHERITED | environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_healthy_deployment_has_nothing_to_mend(database_url, valkey):
    async with project() as (url, server):
        done = await doctor(
            DATABASE_URL=database_url,
            REDIS_URL=valkey.url,
            SUPABASE_URL=url,
            SUPABASE_PUBLISHABLE_KEY=KEY,
            EMBEDDER="none",
            OPENAI_API_KEY="sk-of-the-test",
            METRICS_TOKEN="sixteen letters and more",
            CORS_ORIGINS="chrome-extension://abc",
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAULT" not in done.stdout and done.stderr == ""
    parts = ("configuration", "database", "redis", "sign-in", "embedder", "providers", "data api")
    for part in parts:
        assert f" {part} " in done.stdout
    assert all(secret not in done.stdout for secret in (KEY, "sk-of", "sixteen", database_url))
    asked = {sent.headers.get("accept-profile") for sent in server.requests}
    assert {"memory_layer", "memory_layer_auth"} <= asked


async def test_a_wrong_setting_is_named_and_ends_with_1():
    done = await doctor(DATABASE_POOL_MAX="lots", METRICS_TOKEN="short")

    assert done.returncode == 1
    assert "DATABASE_POOL_MAX" in done.stdout and "METRICS_TOKEN" in done.stdout
    assert "short" not in done.stdout.replace("shorter", "")


async def test_at_home_nothing_needs_to_be_set(settings):
    assert await faults(settings) == []


async def test_a_database_that_is_away_is_told_without_its_password(settings):
    for url in (
        "postgresql://u:p4ssw0rd@127.0.0.1:9/db",
        "postgresql://u:p4ssw0rd@nowhere.invalid/db",
        "not an address at all",
    ):
        [fault] = await faults(settings, database_url=SecretStr(url))

        assert "DATABASE_URL" in fault and "p4ssw0rd" not in fault


async def test_a_database_without_our_tables_is_told(settings, cluster):
    await execute(cluster, "CREATE DATABASE bare_for_the_doctor")
    try:
        url = SecretStr(url_of(cluster, "bare_for_the_doctor"))
        [fault] = await faults(settings, database_url=url)
    finally:
        await execute(cluster, "DROP DATABASE bare_for_the_doctor WITH (FORCE)")

    assert "next start" in fault


async def test_a_migration_that_is_missing_is_named(settings, database):
    await database.execute("DELETE FROM memory_layer.schema_migrations WHERE name LIKE '0003%'")

    [fault] = await faults(settings)

    assert "0003_limits.sql" in fault


async def test_a_role_that_row_level_security_does_not_bind_is_named(settings, database):
    await database.execute("CREATE ROLE memory_layer_loose BYPASSRLS")
    try:
        [fault] = await faults(settings)
    finally:
        await database.execute("DROP ROLE memory_layer_loose")

    assert "memory_layer_loose can bypass" in fault


async def test_a_login_that_may_not_act_for_us_is_told(settings, database, database_url):
    await database.execute(
        "CREATE ROLE stranger_here LOGIN;"
        "GRANT USAGE ON SCHEMA memory_layer TO stranger_here;"
        "GRANT SELECT ON memory_layer.schema_migrations TO stranger_here"
    )
    url = SecretStr(database_url.replace("postgres@", "stranger_here@", 1))
    try:
        # Its tables have row-level security, so it does not see what is applied either.
        found = await faults(settings, database_url=url)
    finally:
        await database.execute("DROP OWNED BY stranger_here; DROP ROLE stranger_here")

    assert any("may not act as" in fault and "memory_layer_app" in fault for fault in found)


async def test_a_table_without_row_level_security_is_named(settings, database):
    await database.execute("ALTER TABLE memory_layer.chunks DISABLE ROW LEVEL SECURITY")

    [fault] = await faults(settings)

    assert "chunks" in fault


async def test_strangers_who_may_use_our_schema_are_named(settings, database):
    await database.execute("CREATE ROLE anon; GRANT USAGE ON SCHEMA memory_layer TO anon")
    try:
        [fault] = await faults(settings)
    finally:
        await database.execute("DROP OWNED BY anon; DROP ROLE anon")

    assert "anon may use our schemas: REVOKE" in fault


async def test_a_redis_that_is_away_or_forgets_is_told(settings, valkey):
    gone = SecretStr("redis://127.0.0.1:9")
    [fault] = await faults(settings, redis_url=gone)
    valkey.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    found = await findings(settings, redis_url=SecretStr(valkey.url))
    valkey.do("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert "REDIS_URL" in fault
    assert any("redis: maxmemory-policy is allkeys-lru" in text for text in found)
    assert not any("redis" in text for text in await findings(settings, replicas=1))
    assert any("redis: 3 replicas" in text for text in await findings(settings, replicas=3))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        pytest.param((404, {}), "check SUPABASE_URL", id="no key set"),
        pytest.param((200, {"nothing": 1}), "check SUPABASE_URL", id="something else"),
        pytest.param((200, {"keys": []}), "rotate to an asymmetric key", id="a legacy project"),
    ],
)
async def test_a_project_whose_tokens_cannot_be_verified_is_told(settings, keys, said):
    async with project(keys=keys) as (url, _):
        found = await faults(settings, supabase_url=url)
        legacy = await faults(settings, supabase_url=url, supabase_jwt_secret=SecretStr("x" * 32))

    assert len(found) == 1 and said in found[0]
    assert legacy == ([] if keys[1] == {"keys": []} else found)


async def test_an_embedder_that_refuses_the_key_is_told(settings):
    async with embedding_server() as server:
        changed = {
            "embedder": "openai:text-embedding-3-small",
            "openai_base_url": server.url,
            "openai_api_key": SecretStr("sk-wrong"),
        }
        well = await faults(settings, **changed)
        server.fail_next(401)
        [fault] = await faults(settings, **changed)
        [unset] = await faults(settings, embedder="openai:text-embedding-3-small")

    assert well == []
    assert "gives no vector" in fault and "sk-wrong" not in fault
    assert "OPENAI_API_KEY" in unset


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        pytest.param({}, None, id="not published"),
        pytest.param({"memory_layer": (200, [])}, "STRANGERS CAN READ", id="readable, no row yet"),
        pytest.param(
            {"memory_layer_auth": (200, [{"id": 1}])}, "memory_layer_auth.users", id="accounts"
        ),
        pytest.param({"memory_layer": DENIED}, "is published", id="published and denied"),
        pytest.param({"memory_layer": (540, {"message": "paused"})}, "is the project", id="paused"),
    ],
)
async def test_the_data_api_is_asked_as_a_stranger_would(settings, tables, said):
    async with project(tables=tables) as (url, _):
        found = await faults(settings, supabase_url=url, supabase_publishable_key=SecretStr(KEY))

    assert len(found) == (1 if said else 0)
    assert all(said in fault for fault in found)


async def test_a_wrong_publishable_key_and_none_are_told(settings):
    async with project() as (url, _):
        wrong = SecretStr("sb_publishable_of_another")
        [fault] = await faults(settings, supabase_url=url, supabase_publishable_key=wrong)
        found = await findings(settings, supabase_url=url)

    assert "refuses SUPABASE_PUBLISHABLE_KEY" in fault
    assert any("set SUPABASE_PUBLISHABLE_KEY" in text for text in found)
