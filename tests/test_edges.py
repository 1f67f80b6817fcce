"""What surrounds every request: who may call from where, and what an operator sees."""

import pytest

from core.config import Settings, SettingsError
from storage.database import most_connections
from tests.conftest import app_client, sign_up

EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


@pytest.fixture
async def with_origin(settings):
    async with app_client(settings.model_copy(update={"cors_origins": (EXTENSION,)})) as client:
        yield client


async def test_a_configured_origin_may_call(with_origin):
    preflight = await with_origin.options("/save-prompt", headers=PREFLIGHT | {"Origin": EXTENSION})
    answer = await with_origin.get("/healthz", headers={"Origin": EXTENSION})

    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Allow-Origin"] == EXTENSION


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", EXTENSION + "x", EXTENSION.replace("a", "b")]
)
async def test_other_origins_may_not(with_origin, client, origin):
    for server in (with_origin, client):
        preflight = await server.options("/save-prompt", headers=PREFLIGHT | {"Origin": origin})
        answer = await server.get("/healthz", headers={"Origin": origin})

        assert preflight.status_code >= 400
        assert "Access-Control-Allow-Origin" not in preflight.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_refusal_can_be_read_by_a_configured_origin(with_origin):
    headers = {"Origin": EXTENSION, "Content-Encoding": "gzip"}

    answer = await with_origin.post("/save-prompt", content=b"x", headers=headers)

    assert answer.status_code == 415
    assert answer.headers["Access-Control-Allow-Origin"] == EXTENSION


async def test_a_fault_of_ours_says_nothing_of_what_was_sent(client, database, capsys):
    user = await sign_up(client, "alice")
    await database.execute("ALTER TABLE memory_layer.memories RENAME COLUMN url TO canary_column")

    answer = await client.get("/memories?provider=canary", headers=user)

    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "canary" not in answer.text
    output = capsys.readouterr()
    assert "canary" not in output.out + output.err


async def test_another_method_names_those_that_there_are(client):
    assert "POST" in (await client.delete("/save-prompt")).headers["Allow"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.20:8000", 200),
        ("memory.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
async def test_at_home_a_rebound_name_is_refused(settings, host, status):
    chosen = settings.model_copy(update={"allowed_hosts": ("memory.example",)})
    async with app_client(chosen) as client:
        assert (await client.get("/healthz", headers={"Host": host})).status_code == status


async def test_ready_means_the_newest_schema(client, database):
    assert (await client.get("/readyz")).status_code == 200

    await database.execute("DELETE FROM memory_layer.schema_migrations WHERE name LIKE '0002%'")

    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await client.get("/healthz")).status_code == 200
    health = (await client.get("/health")).json()["data"]
    assert (health["status"], health["database"]["migrated"]) == ("degraded", False)


async def test_health_shows_every_part(client):
    await sign_up(client, "alice")

    health = (await client.get("/health")).json()["data"]

    assert health["status"] == "ok"
    assert health["database"]["state"] == "ok"
    assert health["database"]["milliseconds"] > 0
    assert health["embedding"] == {
        "state": "off",
        "model": None,
        "waiting": None,
        "set_aside": None,
    }
    assert health["index"] == {"users": 0, "bytes": 0}
    assert health["process_memory_mb"] > 10
    assert set(health["recent_ms"]) == {"p50", "p95", "p99"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"supabase_url": "https://x.supabase.co"}, "DATABASE_URL is not"),
        ({"supabase_jwt_secret": "s"}, "SUPABASE_URL is not"),
        ({"database_pool_min": 9, "database_pool_max": 8}, "DATABASE_POOL_MIN"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(given, said):
    with pytest.raises((SettingsError, ValueError), match=said):
        Settings(_env_file=None, **given)


def test_an_empty_variable_is_no_value():
    settings = Settings(_env_file=None, database_url="", port="", cors_origins="a, b,")

    assert (settings.database_url, settings.port) == (None, 8000)
    assert settings.cors_origins == ("a", "b")


@pytest.mark.parametrize(
    ("url", "most"),
    [
        ("postgresql://u@db.ref.supabase.co:5432/postgres", 20),
        ("postgresql://u@aws-0-eu.pooler.supabase.com:5432/postgres", 5),
        ("postgresql://u@aws-0-eu.pooler.supabase.com:6543/postgres", 20),
        ("postgresql://u@127.0.0.1/db", 20),
    ],
)
def test_a_session_poolers_few_connections_are_spared(url, most):
    assert most_connections(url, 20) == most
