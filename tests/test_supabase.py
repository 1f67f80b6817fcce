"""With a Supabase project: its tokens open our doors, and our own sign-in stays shut."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from core.signing_keys import LocalKeys
from tests.conftest import app_client


@asynccontextmanager
async def project(keys):
    """A server that publishes `keys` where a Supabase project does, and yields its address."""

    async def answer(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        found = request.startswith(b"GET /auth/v1/.well-known/jwks.json ")
        body = json.dumps(keys.published() if found else {}).encode()
        status = b"200 OK" if found else b"404 Not Found"
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (status, len(body), body)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def supabase(settings):
    """A client of a server that belongs to a project, and a function that signs people in."""
    keys = LocalKeys([ec.generate_private_key(ec.SECP256R1())])
    async with project(keys) as url:

        def signed_in(**changed):
            now = int(time.time())
            claims = {
                "iss": f"{url}/auth/v1",
                "aud": "authenticated",
                "role": "authenticated",
                "sub": str(uuid4()),
                "iat": now,
                "exp": now + 600,
            }
            return {"Authorization": f"Bearer {keys.sign(claims | changed)}"}

        async with app_client(settings.model_copy(update={"supabase_url": url})) as client:
            yield client, signed_in


async def test_a_project_users_memories_are_kept_and_found(supabase):
    client, signed_in = supabase
    user, other = signed_in(), signed_in()

    saved = await client.post(
        "/save-prompt", json={"prompt": "the narwhal", "provider": "claude"}, headers=user
    )

    assert saved.status_code == 201
    found = await client.post("/search", json={"query": "narwhal"}, headers=user)
    assert len(found.json()["data"]["hits"]) == 1
    assert (await client.get("/memories", headers=other)).json()["data"]["memories"] == []


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"iss": "https://other.supabase.co/auth/v1"}, id="of another project"),
        pytest.param({"exp": 1}, id="expired"),
        pytest.param({"role": "service_role"}, id="of the operator's key"),
    ],
)
async def test_other_tokens_of_the_same_key_are_refused(supabase, changed):
    client, signed_in = supabase

    answer = await client.get("/memories", headers=signed_in(**changed))

    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED")


async def test_nobody_signs_up_past_the_project(supabase):
    client, _ = supabase

    answer = await client.post("/auth/v1/signup", json={"email": "a@b.co", "password": "x" * 12})

    assert answer.status_code == 404
