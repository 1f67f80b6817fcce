"""With a Supabase project: its tokens open our doors, and our own sign-in stays shut."""

import time
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from core.signing_keys import LocalKeys
from tests.conftest import app_client, issue_token
from tests.supabase_project import SECRET, project


@pytest.fixture
async def its_project():
    async with project(LocalKeys([ec.generate_private_key(ec.SECP256R1())])) as served:
        yield served


@pytest.fixture
def signed_in(its_project):
    """Sign somebody in at the project: the headers that prove it."""

    def sign(**changed):
        now = int(time.time())
        claims = {
            "iss": f"{its_project.url}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(uuid4()),
            "iat": now,
            "exp": now + 600,
            "amr": [{"method": "password", "timestamp": now}],
        }
        return {"Authorization": f"Bearer {its_project.keys.sign(claims | changed)}"}

    return sign


@pytest.fixture
async def supabase(settings, its_project, signed_in):
    """A client of a server that belongs to a project, and a function that signs people in."""
    belonging = settings.model_copy(update={"supabase_url": its_project.url})
    async with app_client(belonging) as client:
        yield client, signed_in


@pytest.fixture
async def operated(settings, its_project):
    """A client of a server that has the project's secret key too."""
    changed = {"supabase_url": its_project.url, "supabase_secret_key": SecretStr(SECRET)}
    async with app_client(settings.model_copy(update=changed)) as client:
        yield client


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


async def test_a_project_user_makes_a_token_for_an_assistant(supabase):
    client, signed_in = supabase
    program = await issue_token(client, signed_in(), "write", "read")
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}

    for user in (program, signed_in()):
        await save(client, user)
        tools = await client.post("/mcp", json=listing, headers=user)
        assert len(tools.json()["result"]["tools"]) >= 4
        assert len((await client.get("/memories", headers=user)).json()["data"]["memories"]) == 1


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


async def save(client, user):
    body = {"prompt": "the narwhal", "provider": "claude"}
    assert (await client.post("/save-prompt", json=body, headers=user)).status_code == 201


async def test_erasing_the_account_deletes_the_projects_user_too(operated, its_project, signed_in):
    gone, stays = uuid4(), uuid4()
    its_project.users = {gone, stays}
    await save(operated, user := signed_in(sub=str(gone)))

    answer = await operated.delete("/account", headers=user)

    receipt = answer.json()["data"]
    assert (receipt["sign_in"], receipt["erased"]["memories"]) == ("erased", 1)
    assert its_project.users == {stays}
    assert its_project.asked == [f"DELETE /auth/v1/admin/users/{gone}"]
    again = await operated.delete("/account", headers=user)
    assert (again.json()["data"]["sign_in"], again.json()["data"]["erased"]) == ("erased", {})


async def test_what_the_project_does_not_answer_is_tried_again(
    operated, its_project, signed_in, database
):
    its_project.users = {gone := uuid4()}
    its_project.away = True
    await save(operated, user := signed_in(sub=str(gone)))

    answer = await operated.delete("/account", headers=user)

    assert answer.json()["data"]["sign_in"] == "pending"
    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 0
    pending = "SELECT erasure_pending FROM memory_layer.user_state"
    assert await database.fetchval(pending)


@pytest.mark.parametrize(
    "amr",
    [
        pytest.param([], id="never"),
        pytest.param([{"method": "otp", "timestamp": 1}], id="long ago"),
        pytest.param([{"method": "token_refresh", "timestamp": time.time() + 9e6}], id="refreshed"),
    ],
)
async def test_a_project_user_signs_in_again_before_erasing(supabase, amr):
    client, signed_in = supabase

    answer = await client.delete("/account", headers=signed_in(amr=amr))

    assert (answer.status_code, answer.json()["error_code"]) == (403, "SIGN_IN_AGAIN")


async def test_without_the_secret_key_the_projects_user_stays(supabase):
    client, signed_in = supabase

    answer = await client.delete("/account", headers=signed_in())

    assert answer.json()["data"]["sign_in"] == "kept"
