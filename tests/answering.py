"""A server of ours whose model providers are a server of the tests', and people who ask it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from core.config import Settings
from core.signing_keys import LocalKeys, load_or_create_keys
from storage.database import open_pool
from tests.conftest import Headers, Server, app_client, execute, url_of
from tests.model_server import ModelServer, model_server

OPENAI_KEY = "sk-operator-openai"
ANTHROPIC_KEY = "sk-operator-anthropic"


def provider_settings(models: ModelServer) -> dict[str, Any]:
    return {
        "openai_api_key": OPENAI_KEY,
        "openai_base_url": models.openai_url,
        "anthropic_api_key": ANTHROPIC_KEY,
        "anthropic_base_url": models.url,
        "chat_model": "openai:walrus-1",
    }


def with_providers(settings: Settings, models: ModelServer, **more: Any) -> Settings:
    values = settings.model_dump() | provider_settings(models) | more
    return Settings(_env_file=None, **values)


@asynccontextmanager
async def answering(
    settings: Settings, **more: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, ModelServer]]:
    async with (
        model_server() as models,
        app_client(with_providers(settings, models, **more)) as client,
    ):
        yield client, models


@dataclass(frozen=True)
class Answering:
    """One app for all tests of a file; each has people of its own."""

    client: httpx.AsyncClient
    models: ModelServer
    keys: LocalKeys

    def person(self) -> Headers:
        return {"Authorization": f"Bearer {mint(self.keys)}"}


def mint(keys: LocalKeys) -> str:
    """An access token of somebody new, as fast as if no password were hashed."""
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": Settings(_env_file=None).token_issuer,
        "aud": "authenticated",
        "role": "authenticated",
        "sub": str(uuid4()),
        "session_id": str(uuid4()),
        "iat": now,
        "exp": now + 3_600,
    }
    return keys.sign(claims)


@asynccontextmanager
async def own_database(cluster: str) -> AsyncIterator[str]:
    name = f"answers_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    yield url_of(cluster, name)
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


async def keys_of(database_url: str) -> LocalKeys:
    async with open_pool(database_url, 1, 1) as pool:
        return await load_or_create_keys(pool)


@asynccontextmanager
async def answering_app(cluster: str) -> AsyncIterator[Answering]:
    async with own_database(cluster) as url:
        keys = await keys_of(url)
        settings = Settings(
            _env_file=None, database_url=url, embedder="none", enterprise_per_minute=1_000_000
        )
        async with answering(settings) as (client, models):
            yield Answering(client, models, keys)


@asynccontextmanager
async def answering_server(
    cluster: str, **more: str
) -> AsyncIterator[tuple[Server, ModelServer, LocalKeys]]:
    """A process of its own, for clients that want a real one."""
    async with own_database(cluster) as url, model_server() as models:
        named = {name.upper(): value for name, value in provider_settings(models).items()}
        server = Server(DATABASE_URL=url, **(named | more))
        server.start()
        try:
            await asyncio.to_thread(server.wait_until_ready)
            yield server, models, await keys_of(url)
        finally:
            await asyncio.to_thread(server.close)


async def remember(
    client: httpx.AsyncClient, who: Headers, prompt: str, response: str = "", **facts: str
) -> str:
    body = {"prompt": prompt, "provider": "claude"} | facts
    saved = await client.post("/save-prompt", json=body, headers=who)
    assert saved.status_code == 201, saved.text
    memory_id: str = saved.json()["data"]["memory_id"]
    if response:
        answer = {"memory_id": memory_id, "response": response}
        assert (await client.post("/save-response", json=answer, headers=who)).status_code == 200
    return memory_id


async def memories_of(client: httpx.AsyncClient, who: Headers) -> list[dict[str, Any]]:
    answer = await client.get("/memories?limit=100", headers=who)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["data"]["memories"]
    return listed


def events_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Read server-sent events: the name and the data of each."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in blocks
    ]
