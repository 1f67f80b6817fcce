"""The official Supabase clients, unchanged, sign in against the service."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from supabase import AsyncClient, AsyncClientOptions, create_async_client
from supabase_auth.errors import (
    AuthApiError,
    AuthRetryableError,
    AuthSessionMissingError,
    AuthWeakPasswordError,
)

from tests.conftest import PASSWORD, Server
from tests.gate import open_gate

JAVASCRIPT = Path(__file__).parent / "clients" / "supabase_js"


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=JAVASCRIPT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture(scope="session")
async def javascript_client() -> None:
    if not (JAVASCRIPT / "node_modules").exists():
        await run("npm", "ci", "--no-audit", "--no-fund")


async def test_supabase_js_signs_in_unchanged(javascript_client: None, live_server: str) -> None:
    output = await run("node", "scenario.mjs", live_server)

    assert int(output.split()[-2]) >= 25, output


class Refused:
    """Expect the client to raise an API error of this status and code."""

    def __init__(self, status: int, code: str) -> None:
        self.wanted = status, code

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        assert isinstance(error, AuthApiError), error
        assert (error.status, error.code) == self.wanted
        return True


async def new_client(url: str) -> AsyncClient:
    options = AsyncClientOptions(auto_refresh_token=False)
    return await create_async_client(url, "sb_publishable_anything", options)


@pytest.fixture
async def alice(live_server: str) -> AsyncIterator[AsyncClient]:
    client = await new_client(live_server)
    yield client
    await client.auth.close()


@pytest.fixture
async def phone(live_server: str) -> AsyncIterator[AsyncClient]:
    client = await new_client(live_server)
    yield client
    await client.auth.close()


async def test_supabase_py_signs_in_unchanged(
    alice: AsyncClient, phone: AsyncClient, live_server: str
) -> None:
    email = f"py-{uuid4()}@example.com"
    known = {"email": email, "password": PASSWORD}

    with pytest.raises(AuthWeakPasswordError) as weak:
        await alice.auth.sign_up({"email": email, "password": "short"})
    assert weak.value.reasons == ["length"]
    with Refused(400, "validation_failed"):
        await alice.auth.sign_up({"email": "nobody", "password": PASSWORD})

    signed_up = await alice.auth.sign_up(known | {"options": {"data": {"name": "Alice"}}})
    assert signed_up.user.user_metadata == {"name": "Alice"}
    assert signed_up.session.token_type == "bearer"
    assert await status_of(live_server, alice) == 200
    with Refused(422, "user_already_exists"):
        await phone.auth.sign_up(known)

    with Refused(400, "invalid_credentials"):
        await phone.auth.sign_in_with_password(known | {"password": "not the password"})
    with Refused(400, "invalid_credentials"):
        await phone.auth.sign_in_with_password(known | {"email": "nobody@example.com"})
    assert (await phone.auth.sign_in_with_password(known)).user.email == email

    assert (await alice.auth.get_user()).user.id == signed_up.user.id
    claims = await alice.auth.get_claims()
    assert claims["claims"]["iss"] == "http://127.0.0.1/auth/v1"
    assert claims["headers"]["alg"] == "ES256"
    identities = await alice.auth.get_user_identities()
    assert [identity.provider for identity in identities.identities] == ["email"]

    await sessions_are_renewed(alice, live_server)
    await accounts_are_changed(alice, phone, email)
    await what_is_not_offered_is_refused(phone, email)
    await signing_out_is_final(alice, live_server)


async def sessions_are_renewed(alice: AsyncClient, url: str) -> None:
    first = await alice.auth.get_session()
    renewed = (await alice.auth.refresh_session()).session
    assert renewed.refresh_token != first.refresh_token

    tab = await new_client(url)
    again = (await tab.auth.refresh_session(first.refresh_token)).session
    assert again.refresh_token == renewed.refresh_token
    handed = await tab.auth.set_session(renewed.access_token, renewed.refresh_token)
    assert handed.user.id == renewed.user.id
    with Refused(400, "refresh_token_not_found"):
        await tab.auth.refresh_session("a" * 55)
    await tab.auth.close()


async def accounts_are_changed(alice: AsyncClient, phone: AsyncClient, email: str) -> None:
    changed = await alice.auth.update_user({"data": {"theme": "dark"}})
    assert changed.user.user_metadata == {"name": "Alice", "theme": "dark"}
    with Refused(422, "same_password"):
        await alice.auth.update_user({"password": PASSWORD})
    await alice.auth.update_user({"password": "another good password"})
    with Refused(400, "refresh_token_not_found"):
        await phone.auth.refresh_session()
    await phone.auth.sign_in_with_password({"email": email, "password": "another good password"})
    await alice.auth.sign_out({"scope": "others"})
    with Refused(403, "session_not_found"):
        await phone.auth.get_user()


async def what_is_not_offered_is_refused(client: AsyncClient, email: str) -> None:
    with Refused(422, "anonymous_provider_disabled"):
        await client.auth.sign_in_anonymously()
    with Refused(422, "email_provider_disabled"):
        await client.auth.reset_password_for_email(email)
    with Refused(422, "email_provider_disabled"):
        await client.auth.sign_in_with_otp({"email": email})
    with Refused(403, "otp_expired"):
        await client.auth.verify_otp({"email": email, "token": "123456", "type": "email"})
    with Refused(403, "not_admin"):
        await client.auth.admin.list_users()


async def signing_out_is_final(alice: AsyncClient, url: str) -> None:
    session = await alice.auth.get_session()
    await alice.auth.sign_out()
    assert await alice.auth.get_session() is None
    with Refused(403, "session_not_found"):
        await alice.auth.get_user(session.access_token)
    with Refused(400, "refresh_token_not_found"):
        await alice.auth.refresh_session(session.refresh_token)
    with pytest.raises(AuthSessionMissingError):
        await alice.auth.refresh_session()


async def test_supabase_py_keeps_its_session_while_the_database_is_away(
    make_server: Callable[..., Server], database_url: str
) -> None:
    async with open_gate(database_url) as gate:
        server = make_server(DATABASE_URL=gate.url)
        await asyncio.to_thread(server.wait_until_ready)
        client = await new_client(server.url)
        await client.auth.sign_up({"email": "ada@example.com", "password": PASSWORD})

        gate.close()
        with pytest.raises(AuthRetryableError):
            await client.auth.refresh_session()
        with pytest.raises(AuthRetryableError):
            await client.auth.get_user()

        await gate.open()
        assert (await client.auth.refresh_session()).user.email == "ada@example.com"
        await client.auth.close()


async def status_of(url: str, client: AsyncClient) -> int:
    session = await client.auth.get_session()
    headers = {"authorization": f"Bearer {session.access_token}"}
    async with httpx.AsyncClient() as http:
        return (await http.get(f"{url}/memories", headers=headers)).status_code
