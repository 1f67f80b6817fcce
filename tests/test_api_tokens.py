"""Personal API tokens: what a program may do with one, and how it ends."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from core.auth import ALL_SCOPES
from core.config import Settings
from core.errors import TooManyTokens, Unauthorized, Unavailable
from core.tokens import (
    BATCH,
    CACHE_SIZE,
    FRESH,
    MOST_TOKENS,
    MOST_WAITING,
    PREFIX,
    ApiTokens,
)
from storage.database import Pool, acting_as, open_pool
from tests.conftest import Headers, app_client, issue_token, sign_up
from tests.gate import open_gate
from tests.test_isolation import ATTEMPTS
from tests.test_tokens import Clock

WRITTEN = {"prompt": "a walrus", "provider": "claude"}
USER = UUID(int=1)


def guess() -> str:
    return PREFIX + hashlib.sha256(uuid4().bytes).hexdigest()[:43]


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_does_what_its_owner_may_do(http: httpx.AsyncClient, ann: Headers) -> None:
    program = await issue_token(http, ann)

    saved = await http.post("/save-prompt", json=WRITTEN, headers=program)
    memory_id = saved.json()["data"]["memory_id"]
    found = await http.post("/search", json={"query": "walrus"}, headers=program)
    deleted = await http.delete(f"/memories/{memory_id}", headers=program)

    assert saved.status_code == 201
    assert [hit["memory"]["id"] for hit in found.json()["data"]["hits"]] == [memory_id]
    assert deleted.status_code == 200
    used = (await http.get("/usage", headers=program)).json()["data"]["day"]["used"]
    assert used == 3  # making the token, saving and searching


async def test_a_token_is_shown_once_and_kept_as_a_hash(
    client: httpx.AsyncClient, alice: Headers, database: asyncpg.Connection
) -> None:
    body = {"name": "editor", "scopes": ["read"], "expires_at": "2100-01-01T00:00:00Z"}
    made = await client.post("/tokens", json=body, headers=alice)
    listed = await client.get("/tokens", headers=alice)

    token = made.json()["data"]["token"]
    assert token.startswith("ml_")
    assert len(token) == 46
    assert made.headers["cache-control"] == "no-store"
    assert listed.json()["data"]["tokens"] == [made.json()["data"]["about"]]
    assert listed.json()["data"]["tokens"][0]["expires_at"] == "2100-01-01T00:00:00Z"
    assert token not in listed.text
    row = await database.fetchrow("SELECT * FROM memory_layer.api_tokens")
    assert row["token_hash"] == hashlib.sha256(token.encode()).digest()
    assert token[3:] not in str(dict(row))


async def test_a_call_without_the_scope_costs_nothing_and_says_what_is_missing(
    http: httpx.AsyncClient, ann: Headers
) -> None:
    program = await issue_token(http, ann, "read", "chat")
    used = (await http.get("/usage", headers=ann)).json()["data"]["day"]["used"]

    refused = await http.post("/save-prompt", json=WRITTEN, headers=program)

    assert refused.status_code == 403
    assert refused.json()["error"] == "This token lacks the scope write."
    after = (await http.get("/usage", headers=ann)).json()["data"]["day"]["used"]
    assert after == used
    assert (await http.get("/memories", headers=ann)).json()["data"]["memories"] == []


async def test_every_route_asks_for_the_scope_it_needs(
    client: httpx.AsyncClient, alice: Headers
) -> None:
    programs = {scope: await issue_token(client, alice, scope) for scope in ALL_SCOPES}
    for route, attempt in ATTEMPTS.items():
        method, _, path = route.partition(" ")
        if attempt.public or path.startswith(("/auth/v1", "/admin/api")):
            continue
        for name in ("memory_id", "token_id", "conversation_id", "import_id"):
            path = path.replace(f"{{{name}}}", str(uuid4()))
        path = path.replace("{number}", "1")
        for scope, program in programs.items():
            if attempt.scope in (scope, "any"):
                admitted = await client.request(method, path, headers=program)
                assert '"MISSING_SCOPE"' not in admitted.text, (route, scope)
                continue
            answer = await client.request(method, path, headers=program)
            if path.startswith("/v1/"):  # in another protocol's shape
                assert (answer.status_code, "MISSING_SCOPE" in answer.text) == (403, True)
                continue
            refused = answer.json()
            code = "SIGN_IN_REQUIRED" if attempt.scope == "owner" else "MISSING_SCOPE"
            assert refused["error_code"] == code, (route, scope)
            assert refused["details"] == (
                {} if attempt.scope == "owner" else {"scope": attempt.scope}
            )


async def test_a_token_cannot_make_or_end_tokens_nor_change_the_account(
    http: httpx.AsyncClient, ann: Headers
) -> None:
    program = await issue_token(http, ann)
    [listed] = (await http.get("/tokens", headers=ann)).json()["data"]["tokens"]
    more = {"name": "more", "scopes": ["read"]}

    made = await http.post("/tokens", json=more, headers=program)
    ended = await http.delete(f"/tokens/{listed['id']}", headers=program)
    changed = await http.put("/auth/v1/user", json={"password": "a new password"}, headers=program)

    assert (made.status_code, ended.status_code, changed.status_code) == (403, 403, 403)
    assert (await http.get("/memories", headers=program)).status_code == 200


async def test_a_revoked_token_is_refused_at_once_where_it_was_revoked(
    http: httpx.AsyncClient, ann: Headers
) -> None:
    program = await issue_token(http, ann)
    kept = await issue_token(http, ann)
    assert (await http.get("/memories", headers=program)).status_code == 200
    tokens = (await http.get("/tokens", headers=ann)).json()["data"]["tokens"]

    ended = await http.delete(f"/tokens/{tokens[0]['id']}", headers=ann)
    again = await http.delete(f"/tokens/{tokens[0]['id']}", headers=ann)

    assert (ended.status_code, again.status_code) == (200, 404)
    refused = await http.get("/memories", headers=program)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert (await http.get("/memories", headers=kept)).status_code == 200


async def test_nobody_sees_or_ends_anothers_token(
    http: httpx.AsyncClient, ann: Headers, ben: Headers
) -> None:
    program = await issue_token(http, ann)
    [token] = (await http.get("/tokens", headers=ann)).json()["data"]["tokens"]

    listed = await http.get("/tokens", headers=ben)
    ended = await http.delete(f"/tokens/{token['id']}", headers=ben)

    assert listed.json()["data"]["tokens"] == []
    assert ended.status_code == 404
    assert (await http.get("/memories", headers=program)).status_code == 200


async def test_a_person_has_a_bounded_number_of_tokens(
    http: httpx.AsyncClient, ann: Headers, ben: Headers
) -> None:
    body = {"name": "one of many", "scopes": ["read"]}
    answers = await asyncio.gather(
        *(http.post("/tokens", json=body, headers=ann) for _ in range(MOST_TOKENS + 5))
    )

    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert len(refused) == 5
    assert refused[0]["error_code"] == "TOO_MANY_TOKENS"
    assert refused[0]["details"] == {"limit": MOST_TOKENS}
    assert (await http.post("/tokens", json=body, headers=ben)).status_code == 201


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"name": "  "}, "body.name", id="a blank name"),
        pytest.param({"name": "x" * 101}, "body.name", id="a long name"),
        pytest.param({"name": "a\0b"}, "body.name", id="a NUL in the name"),
        pytest.param({"scopes": []}, "body.scopes", id="no scope"),
        pytest.param({"scopes": ["admin"]}, "body.scopes.0", id="an unknown scope"),
        pytest.param({"scopes": ["read"] * 4}, "body.scopes", id="too many scopes"),
        pytest.param(
            {"expires_at": "2020-01-01T00:00:00Z"}, "body.expires_at", id="an end in the past"
        ),
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(
    http: httpx.AsyncClient, ann: Headers, change: dict[str, Any], path: str
) -> None:
    body = {"name": "editor", "scopes": ["read"]} | change

    refused = await http.post("/tokens", json=body, headers=ann)

    assert refused.status_code == 400
    assert [field["path"] for field in refused.json()["details"]["fields"]] == [path]
    assert (await http.get("/tokens", headers=ann)).json()["data"]["tokens"] == []


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda token: guess(), id="a guess"),
        pytest.param(lambda token: "ml_", id="the prefix alone"),
        pytest.param(lambda token: token[:-1], id="one letter short"),
        pytest.param(lambda token: token + "A", id="one letter long"),
        pytest.param(lambda token: token.swapcase(), id="the other case"),
        pytest.param(lambda token: "ml_" + "\u00e9" * 43, id="not ASCII"),
        pytest.param(lambda token: "ml_" + "' OR true; --".ljust(43, "-"), id="SQL"),
        pytest.param(
            lambda token: hashlib.sha256(token.encode()).hexdigest(), id="the hash of a good one"
        ),
        pytest.param(lambda token: token * 1000, id="huge"),
    ],
)
async def test_what_was_never_issued_is_refused(
    http: httpx.AsyncClient, ann: Headers, forge: Any
) -> None:
    token = (await issue_token(http, ann))["Authorization"].removeprefix("Bearer ")

    headers = {"Authorization": f"Bearer {forge(token)}".encode()}
    refused = await http.get("/memories", headers=headers)

    assert refused.status_code == 401
    assert refused.json()["error_code"] == "UNAUTHORIZED"


class CountingPool:
    """A pool that counts how often a connection is taken from it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.taken = 0

    def acquire(self) -> Any:
        self.taken += 1
        return self._pool.acquire()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[CountingPool]:
    async with open_pool(database_url, 1, 4) as pool:
        yield CountingPool(pool)


async def test_the_use_of_a_token_is_noted_once_a_minute(
    pool: CountingPool, database: asyncpg.Connection
) -> None:
    _, token = await ApiTokens(pool).issue(USER, "editor", ["read"], None)

    async def noted_after(seconds: int | None) -> bool:
        """Let a replica that has not seen the token use it, so long after what is noted."""
        await database.execute(
            "UPDATE memory_layer.api_tokens SET last_used_at = now() - make_interval(secs => $1)",
            seconds,
        )
        replica = ApiTokens(pool)
        await replica.verify(token)
        # The note follows the answer.
        await replica._looking
        return await database.fetchval(
            "SELECT last_used_at > now() - interval '40 seconds' FROM memory_layer.api_tokens"
        )

    assert await noted_after(None)
    assert not await noted_after(50)
    assert await noted_after(70)


async def test_another_replica_refuses_a_revoked_token_within_five_seconds(
    pool: CountingPool,
) -> None:
    clock = Clock()
    here, there = ApiTokens(pool), ApiTokens(pool, clock)
    about, token = await here.issue(USER, "editor", ["read"], None)
    user = await there.verify(token)
    assert (user.id, user.scopes, user.token_id) == (USER, {"read"}, about.id)

    await here.revoke(USER, about.id)

    with pytest.raises(Unauthorized):
        await here.verify(token)
    assert FRESH <= 5
    clock.now = FRESH - 0.1
    assert await there.verify(token) == user
    clock.now = FRESH
    with pytest.raises(Unauthorized):
        await there.verify(token)


async def test_a_token_is_believed_until_it_expires_and_no_longer(
    pool: CountingPool, database: asyncpg.Connection
) -> None:
    clock = Clock()
    tokens = ApiTokens(pool, clock)
    end = datetime.now(UTC) + timedelta(seconds=3)
    _, token = await tokens.issue(USER, "editor", ["read"], end)
    await tokens.verify(token)

    await database.execute("UPDATE memory_layer.api_tokens SET expires_at = now()")
    clock.now = 3
    with pytest.raises(Unauthorized):
        await tokens.verify(token)


async def test_a_thousand_calls_with_one_token_ask_the_database_once(pool: CountingPool) -> None:
    tokens = ApiTokens(pool)
    about, token = await tokens.issue(USER, "editor", ["read"], None)
    pool.taken = 0

    users = await asyncio.gather(*(tokens.verify(token) for _ in range(1_000)))

    assert {user.token_id for user in users} == {about.id}
    assert pool.taken <= 2  # one to find it, one to note its use


async def test_a_flood_of_guesses_costs_little_and_pushes_out_nobody(pool: CountingPool) -> None:
    tokens = ApiTokens(pool)
    _, token = await tokens.issue(USER, "editor", ["read"], None)
    await tokens.verify(token)
    guesses = [guess() for _ in range(CACHE_SIZE + BATCH)]
    pool.taken = 0

    for start in range(0, len(guesses), MOST_WAITING):
        wave = guesses[start : start + MOST_WAITING]
        answers = await asyncio.gather(*map(tokens.verify, wave), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unauthorized}
    asked = pool.taken
    again = await asyncio.gather(*map(tokens.verify, guesses[-BATCH:]), return_exceptions=True)
    await tokens.verify(token)

    assert asked <= len(guesses) / BATCH + 10
    assert {type(answer) for answer in again} == {Unauthorized}
    assert pool.taken == asked
    assert len(tokens._unknown) == CACHE_SIZE


async def test_more_guesses_at_once_than_can_wait_are_sent_away(pool: CountingPool) -> None:
    tokens = ApiTokens(pool)
    calls = (tokens.verify(guess()) for _ in range(MOST_WAITING + 10))

    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(answer) for answer in answers].count(Unavailable) == 10


async def test_while_postgres_is_away_nobody_is_told_that_a_token_is_wrong(
    database_url: str, settings: Settings
) -> None:
    async with open_gate(database_url) as gate:
        reachable = settings.model_copy(update={"database_url": SecretStr(gate.url)})
        async with app_client(reachable) as client:
            program = await issue_token(client, await sign_up(client, "alice"))
            gate.close()
            away = await client.get("/usage", headers=program)
            await gate.open()
            back = await client.get("/usage", headers=program)

    assert (away.status_code, away.json()["error_code"]) == (503, "UNAVAILABLE")
    assert back.status_code == 200


async def test_an_erased_account_has_no_tokens_and_gets_none(
    client: httpx.AsyncClient, alice: Headers, bob: Headers, pool: CountingPool
) -> None:
    program, others = await issue_token(client, alice), await issue_token(client, bob)
    user_id = UUID((await client.get("/auth/v1/user", headers=alice)).json()["id"])
    assert (await client.get("/usage", headers=program)).status_code == 200

    by_program = await client.delete("/account", headers=program)
    erased = await client.delete("/account", headers=alice)

    assert by_program.json()["error_code"] == "SIGN_IN_REQUIRED"
    assert erased.json()["data"]["erased"]["api_tokens"] == 1
    assert (await client.get("/usage", headers=program)).status_code == 401
    assert (await client.get("/usage", headers=others)).status_code == 200
    # A request that had been let in before must not leave one behind.
    with pytest.raises(TooManyTokens):
        await ApiTokens(pool).issue(user_id, "late", ["read"], None)


async def test_the_role_of_requests_sees_no_hash_and_no_row_of_others(pool: Any) -> None:
    tokens = ApiTokens(pool)
    await tokens.issue(USER, "editor", ["read"], None)

    async with acting_as(pool, uuid4()) as conn:
        assert await conn.fetch("SELECT id FROM memory_layer.api_tokens") == []
        assert await conn.execute("DELETE FROM memory_layer.api_tokens") == "DELETE 0"
    for statement in (
        "SELECT token_hash FROM memory_layer.api_tokens",
        "UPDATE memory_layer.api_tokens SET scopes = '{read,write,chat}'",
        f"INSERT INTO memory_layer.api_tokens (user_id, id, token_hash, name, scopes)"
        f" VALUES ('{uuid4()}', '{uuid4()}', sha256('x'), 'mine', '{{read}}')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with acting_as(pool, USER) as conn:
                await conn.execute(statement)
