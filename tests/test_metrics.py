"""What Prometheus is told, and who may ask."""

import asyncio
import re
from contextlib import suppress
from ipaddress import ip_network
from uuid import uuid4

import httpx
import pytest
import yaml
from asgi_lifespan import LifespanManager
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from core.config import ROOT
from core.pulse import Pulse
from main import create_app
from storage.database import open_pool
from tests.conftest import app_client, sign_up, until
from tests.embedding_server import embedding_server
from tests.gate import open_gate
from tests.valkey import Valkey

ALERTS = yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text())
TOKEN = "read the metrics with this"


def samples(text):
    """Values by name and labels: `name{a="b"}`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def read(client, **headers):
    answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return samples(answer.text)


async def test_requests_are_counted_by_route_and_not_by_address(client, alice):
    for _ in range(3):
        await client.get(f"/memories/{uuid4()}", headers=alice)
    found = await read(client)

    route = 'route="/memories/{memory_id}"'
    assert found[f'memory_layer_requests_total{{method="GET",{route},status="4xx"}}'] == 3
    assert found[f"memory_layer_request_seconds_count{{{route}}}"] == 3
    assert found['memory_layer_errors_total{code="NOT_FOUND"}'] == 3


async def test_a_strangers_paths_and_methods_make_no_new_series(client):
    for _ in range(2):
        for method in ("GET", "PROPFIND", "LOCK"):
            await client.request(method, f"/{uuid4()}")
    before = await read(client)
    for _ in range(20):
        await client.request("MKCOL", f"/{uuid4()}", headers={"X-Request-ID": uuid4().hex})
    after = await read(client)

    assert set(after) - set(before) <= {'memory_layer_errors_total{code="METHOD_NOT_ALLOWED"}'} | {
        name for name in after if 'route="/metrics"' in name
    }
    assert after['memory_layer_requests_total{method="other",route="none",status="4xx"}'] == 24


async def test_limit_hits_are_counted_by_tier_and_window(settings):
    tight = {"default_tier": "free", "free_per_day": 3, "free_per_minute": 2}
    async with app_client(settings.model_copy(update=tight)) as client:
        user = await sign_up(client, "alice")
        statuses = [(await client.get("/memories", headers=user)).status_code for _ in range(4)]
        found = await read(client)

    assert statuses == [200, 200, 429, 429]
    assert found['memory_layer_limit_hits_total{tier="free",window="minute"}'] == 2
    assert found['memory_layer_errors_total{code="TOO_MANY_REQUESTS"}'] == 2


async def test_searches_say_whether_their_cache_was_there(client, alice):
    for _ in range(3):
        await client.post("/search", json={"query": "narwhal"}, headers=alice)
    found = await read(client)

    assert found["memory_layer_index_misses_total"] == 1
    assert found["memory_layer_index_hits_total"] == 2
    assert found["memory_layer_index_users"] == 1


async def test_an_open_breaker_is_seen(settings):
    valkey = Valkey()
    valkey.start()
    try:
        url = SecretStr(valkey.url)
        async with app_client(settings.model_copy(update={"redis_url": url})) as client:
            user = await sign_up(client, "alice")
            await client.get("/memories", headers=user)
            before = await read(client)
            valkey.kill()
            for _ in range(3):
                await client.get("/memories", headers=user)
            after = await read(client)
    finally:
        valkey.close()

    breaker = "memory_layer_redis_breaker_open"
    assert (before[breaker], after[breaker]) == (0, 1)


async def test_the_backlog_and_a_database_that_goes_away_are_seen(client, alice, database_url):
    body = {"prompt": "waits for its vector", "provider": "claude"}
    await client.post("/save-prompt", json=body, headers=alice)
    async with open_gate(database_url) as gate, open_pool(gate.url, 1, 2) as pool:
        pulse = Pulse(pool, embeds=True)

        async def seen(up, waiting):
            watching = asyncio.create_task(pulse.watch_database())
            await until(lambda: _is(pulse, up, waiting))
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

        await seen(True, 1)
        gate.close()
        await seen(False, None)
        await gate.open()
        await seen(True, 1)


async def _is(pulse, up, waiting):
    backlog = pulse.backlog
    return (pulse.database_up, backlog.waiting if backlog else None) == (up, waiting)


async def test_a_blocked_event_loop_is_seen():
    pulse = Pulse(None, embeds=False)
    watching = asyncio.create_task(pulse.watch_loop())
    await asyncio.sleep(0)
    until_then = asyncio.get_running_loop().time() + 0.8
    while asyncio.get_running_loop().time() < until_then:
        pass
    await until(lambda: _is_late(pulse))
    watching.cancel()

    assert pulse.lag >= 0.25


async def _is_late(pulse):
    return pulse.lag > 0


@pytest.fixture
async def visit(settings):
    """Asks an app with these settings for its metrics, from an address, and returns the status."""

    async def ask(address, changed=None, **headers):
        app = create_app(settings.model_copy(update=changed or {}))
        async with LifespanManager(app) as manager:
            transport = httpx.ASGITransport(manager.app, client=(address, 50_000))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8000"
            ) as client:
                return (await client.get("/metrics", headers=headers)).status_code

    return ask


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        pytest.param("127.0.0.1", {}, 200, id="this machine"),
        pytest.param("::1", {}, 200, id="this machine by IPv6"),
        pytest.param("192.168.1.7", {}, 403, id="another machine"),
        pytest.param("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, 403, id="through a proxy"),
        pytest.param("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 403, id="said to be local"),
    ],
)
async def test_without_a_token_only_this_machine_may_read(visit, address, headers, status):
    assert await visit(address, **headers) == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [(f"Bearer {TOKEN}", 200), ("Bearer of another", 401), (TOKEN, 401), ("Bearer é", 401)],
)
async def test_with_a_token_only_who_sends_it_may_read(visit, sent, status):
    changed = {"metrics_token": SecretStr(TOKEN)}

    assert await visit("203.0.113.9", changed, Authorization=sent.encode()) == status


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"supabase_url": "https://example.supabase.co"}, id="Supabase"),
        pytest.param({"trusted_proxies": (ip_network("127.0.0.0/8"),)}, id="a proxy"),
    ],
)
async def test_where_strangers_may_come_through_a_proxy_a_token_is_needed(visit, changed):
    assert await visit("127.0.0.1", changed) == 403


def alerting():
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


async def test_every_alert_asks_for_something_that_is_exported(settings):
    valkey = Valkey()
    valkey.start()
    try:
        async with embedding_server() as embeddings:
            changed = {
                "embedder": "openai:text-embedding-3-small",
                "openai_base_url": embeddings.url,
                "redis_url": SecretStr(valkey.url),
                "default_tier": "free",
                "free_per_day": 0,
            }
            async with app_client(settings.model_copy(update=changed)) as client:
                await client.get("/memories", headers=await sign_up(client, "alice"))
                await until(lambda: _exports(client, "memory_layer_embedding_backlog"))
                found = await read(client)
    finally:
        valkey.close()
    exported = {name.partition("{")[0] for name in found}

    asked = {
        name
        for rule in alerting()
        for name in re.findall(r"\b(?:memory_layer|process)_\w+", rule["expr"])
    }
    assert len(asked) >= 8
    assert asked - exported == set()


async def _exports(client, name):
    return name in await read(client)
