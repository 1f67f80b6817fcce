"""Who erases the account is gone: from every table, from every replica, for good."""

import asyncio
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest

from core.capture import Capture
from core.config import Settings
from core.errors import AccountErased
from core.save_queue import write_together
from core.signing_keys import load_or_create_keys
from storage import embedding_queue, erasure, usage
from storage.database import acting_as, acting_as_meter, open_pool
from storage.embedding_queue import Embedded, EmbeddedChunk
from storage.usage import Use
from tests.conftest import PASSWORD, app_client, sign_up, until
from tests.test_limits import limited
from tests.test_replicas import found, save, two_replicas

CANARY = "kumquat7361"
# What belongs to nobody. A table that is not named here must have a column `user_id`.
IMPERSONAL = {
    "admin_audit",
    "admin_sessions",
    "job_runs",
    "schema_migrations",
    "signing_keys",
    "traffic",
    "users",
}


@pytest.fixture
async def pool(database_url):
    async with open_pool(database_url, 2, 8) as pool:
        yield pool


async def tables_with(database, *texts):
    """Search every table of every schema, as text, and name those that hold one of `texts`."""
    rows = await database.fetch(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    held = set()
    for (table,) in rows:
        lines = await database.fetch(f"SELECT t::text FROM {table} AS t")
        if any(text in line[0] for line in lines for text in texts):
            held.add(table)
    return held


async def user_id_of(client, user):
    return (await client.get("/auth/v1/user", headers=user)).json()["id"]


async def erase(client, user, **body):
    return await client.request("DELETE", "/account", json=body, headers=user)


async def live_a_little(client, user, database):
    """Fill every table that people have rows in; everything written holds the canary."""
    for n in range(3):
        await save(client, user, f"{CANARY} {n}")
    answer = {"memory_id": await save(client, user, "asked"), "response": f"{CANARY} answered"}
    await client.post("/save-response", json=answer, headers=user)
    memories = (await client.get("/memories", headers=user)).json()["data"]["memories"]
    await client.delete(f"/memories/{memories[0]['id']}", headers=user)
    await client.put("/auth/v1/user", json={"data": {"name": CANARY}}, headers=user)
    token = {"name": CANARY, "scopes": ["read"]}
    assert (await client.post("/tokens", json=token, headers=user)).status_code == 201
    user_id = UUID(await user_id_of(client, user))
    await database.execute(
        "INSERT INTO memory_layer.daily_use VALUES ($1, current_date - 3, 5)"
        " ON CONFLICT DO NOTHING",
        user_id,
    )
    await database.execute(
        "INSERT INTO memory_layer.chunks SELECT user_id, id, 'm', 0, 'prompt', 0, 1, '[1,2]'"
        " FROM memory_layer.memories WHERE user_id = $1 AND deleted_at IS NULL",
        user_id,
    )
    await database.execute(
        "UPDATE memory_layer.user_state SET tier = 'pro', per_day = 77 WHERE user_id = $1", user_id
    )
    return user_id


async def test_nothing_of_the_person_stays_in_the_database(make_server, database):
    async with two_replicas(make_server) as (one, two):
        alice, bob = await sign_up(one, CANARY), await sign_up(one, "bob")
        user_id = await live_a_little(one, alice, database)
        kept = await save(one, bob, "bob's own kumquat")
        assert len(await found(two, alice, CANARY)) >= 3

        answer = await erase(one, alice)

        receipt = answer.json()["data"]
        assert receipt["sign_in"] == "erased"
        erased = receipt["erased"]
        assert (erased["memories"], erased["chunks"], erased["users"]) == (4, 3, 1)
        assert (erased["sessions"], erased["api_tokens"]) == (1, 1)
        assert erased["daily_use"] >= 1
        assert await tables_with(database, CANARY) == set()
        # The mark alone names the person, and says no more.
        assert await tables_with(database, str(user_id)) == {"memory_layer.user_state"}
        mark = await database.fetchrow(
            "SELECT * FROM memory_layer.user_state WHERE user_id = $1", user_id
        )
        await database.execute("INSERT INTO memory_layer.user_state VALUES ($1)", uuid4())
        fresh = await database.fetchrow(
            "SELECT * FROM memory_layer.user_state WHERE user_id <> $1 AND change_seq = 0", user_id
        )
        differs = {name for name, value in mark.items() if value != fresh[name]}
        assert differs == {"user_id", "epoch", "erased_at"}

        for replica in (one, two):
            await is_a_stranger(replica, alice)
        await no_cache_is_left(two)
        assert await found(two, bob, "kumquat") == [kept]


async def is_a_stranger(replica, user):
    async def refused():
        answer = await replica.post("/search", json={"query": CANARY}, headers=user)
        assert answer.status_code == 401 or answer.json()["data"]["hits"] == []
        return answer.status_code == 401

    await until(refused, seconds=10)
    body = {"prompt": "again", "provider": "claude"}
    assert (await replica.post("/save-prompt", json=body, headers=user)).status_code == 401
    assert (await replica.get("/usage", headers=user)).status_code == 401
    assert (await replica.get("/auth/v1/user", headers=user)).status_code == 403
    assert (await erase(replica, user)).status_code == 401


async def no_cache_is_left(replica):
    async def empty():
        return (await replica.get("/health")).json()["data"]["index"]["users"] == 0

    await until(empty, seconds=10)


async def test_the_same_address_begins_a_new_account(client, alice):
    address = (await client.get("/auth/v1/user", headers=alice)).json()["email"]
    await save(client, alice, "old")
    await erase(client, alice)
    credentials = {"email": address, "password": PASSWORD}

    refused = await client.post("/auth/v1/token?grant_type=password", json=credentials)
    signed_up = await client.post("/auth/v1/signup", json=credentials)

    assert refused.status_code == 400
    anew = {"Authorization": f"Bearer {signed_up.json()['access_token']}"}
    assert (await client.get("/memories", headers=anew)).json()["data"]["memories"] == []
    assert await save(client, anew, "new")


async def test_a_save_on_its_way_does_not_bring_the_person_back(pool, database):
    """Each save waits for the lock, or is written before it and erased with the rest."""
    user_id = uuid4()

    async def save_one(n):
        await asyncio.sleep(n / 500)
        (answer,) = await write_together(pool, [Capture(user_id, uuid4(), "prompt", CANARY)])
        return isinstance(answer, AccountErased)

    saves = [asyncio.create_task(save_one(n)) for n in range(60)]
    await asyncio.sleep(0.05)
    await erasure.mark(pool, user_id)
    erased = await erasure.erase(pool, user_id)
    refused = await asyncio.gather(*saves)

    assert erased["memories"] == refused.count(False) > 0
    assert refused.count(True) > 0
    assert await tables_with(database, CANARY) == set()


async def test_one_persons_erasure_does_not_refuse_the_saves_beside_it(pool):
    gone, stays = uuid4(), uuid4()
    await erasure.mark(pool, gone)
    captures = [Capture(who, uuid4(), "prompt", "text") for who in (gone, stays, gone)]

    answers = await write_together(pool, captures)

    assert [isinstance(answer, AccountErased) for answer in answers] == [True, False, True]


async def test_vectors_and_use_that_come_late_are_not_written(pool, database):
    user_id, memory_id = uuid4(), uuid4()
    await write_together(pool, [Capture(user_id, memory_id, "prompt", CANARY)])
    (leased,) = await embedding_queue.lease(pool, UUID(int=0))
    await erasure.mark(pool, user_id)

    chunks = [EmbeddedChunk("prompt", 0, 3, np.array([1.0, 0.0]))]
    embedded = [Embedded(leased, chunks, leased.pack())]
    assert not await embedding_queue.finish(pool, "model", embedded)
    async with acting_as_meter(pool) as conn:
        await usage.add(conn, [Use(user_id, datetime.now(UTC).date(), 5, 0)])

    assert await erasure.erase(pool, user_id) == {"memories": 1}


async def test_use_that_is_being_written_when_the_account_is_erased_goes_with_it(pool, database):
    user_id = uuid4()
    async with acting_as_meter(pool) as conn:
        await usage.add(conn, [Use(user_id, datetime.now(UTC).date(), 5, 0)])
        marking = asyncio.create_task(erasure.mark(pool, user_id))
        await asyncio.sleep(0.1)
        assert not marking.done()
    await marking

    assert await erasure.erase(pool, user_id) == {"daily_use": 1}


async def test_what_was_cut_short_is_finished_later(settings, pool, database):
    user_id = uuid4()
    for _ in range(2):
        await write_together(pool, [Capture(user_id, uuid4(), "prompt", CANARY)])
    await erasure.mark(pool, user_id)
    await database.execute(
        "UPDATE memory_layer.user_state SET erased_at = now() - interval '1 day'"
    )

    assert await erasure.unfinished(pool, 10) == [user_id]
    await erasure.erase(pool, user_id)
    await erasure.finish(pool, user_id)

    assert await erasure.unfinished(pool, 10) == []
    assert await tables_with(database, CANARY) == set()


async def test_many_rows_go_in_small_steps(pool, database, monkeypatch):
    user_id, other = uuid4(), uuid4()
    for who in (user_id, other):
        captures = [Capture(who, uuid4(), "prompt", CANARY) for _ in range(25)]
        await write_together(pool, captures)
    monkeypatch.setattr(erasure, "ROWS_AT_ONCE", 10)
    await erasure.mark(pool, user_id)

    assert await erasure.erase(pool, user_id) == {"memories": 25}

    left = "SELECT user_id, count(*) FROM memory_layer.memories GROUP BY user_id"
    assert [tuple(row) for row in await database.fetch(left)] == [(other, 25)]


async def test_every_table_is_either_impersonal_or_erased_by_user_id(database):
    """A new table with rows of people needs `user_id`; erasing finds it by that."""
    rows = await database.fetch(
        """
        SELECT c.relname, EXISTS (SELECT FROM pg_attribute a
                                   WHERE a.attrelid = c.oid AND a.attname = 'user_id') AS personal
          FROM pg_class c
         WHERE c.relkind = 'r'
           AND c.relnamespace IN ('memory_layer'::regnamespace, 'memory_layer_auth'::regnamespace)
        """
    )
    assert {row["relname"] for row in rows if not row["personal"]} == IMPERSONAL


async def test_a_table_that_is_added_later_is_erased_too(pool, database):
    user_id = uuid4()
    await database.execute("CREATE TABLE memory_layer.later (user_id uuid, note text)")
    await database.execute("INSERT INTO memory_layer.later VALUES ($1, 'x'), ($1, 'y')", user_id)

    await erasure.mark(pool, user_id)

    assert await erasure.erase(pool, user_id) == {"later": 2}


async def test_the_eraser_takes_nothing_of_anybody_else(pool):
    gone, stays = uuid4(), uuid4()
    await write_together(pool, [Capture(stays, uuid4(), "prompt", "text")])
    async with erasure.acting_as_eraser(pool, gone) as conn:
        done = await conn.execute("DELETE FROM memory_layer.user_state WHERE user_id = $1", stays)
        assert done == "DELETE 0"
    for acting in (gone, None):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with erasure.acting_as_eraser(pool, acting) as conn:
                await conn.fetch("SELECT * FROM memory_layer.erase_some($1, 10)", stays)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with acting_as(pool, stays) as conn:
            await conn.fetch("SELECT * FROM memory_layer.erase_some($1, 10)", stays)


@pytest.fixture
async def tokens_of(database_url):
    """Sign tokens for a session as the server does, with other claims."""
    async with open_pool(database_url, 1, 1) as pool:
        keys = await load_or_create_keys(pool)

    def sign(user_id, session_id, changed):
        now = int(time.time())
        claims = {
            "iss": Settings(_env_file=None).token_issuer,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(user_id),
            "session_id": str(session_id),
            "iat": now,
            "exp": now + 600,
        }
        return {"Authorization": f"Bearer {keys.sign(claims | changed)}"}

    return sign


@pytest.mark.parametrize(
    ("ago", "claims", "body", "status"),
    [
        pytest.param(5, {}, {}, 200, id="signed in just now"),
        pytest.param(601, {}, {}, 403, id="signed in too long ago"),
        pytest.param(5, {"amr": None}, {}, 403, id="a token that does not say"),
        pytest.param(5, {"amr": ["pwd"]}, {}, 403, id="a token that says no time"),
        pytest.param(5, {"session_id": str(uuid4())}, {}, 403, id="a session that was ended"),
        pytest.param(5, {}, {"password": "guess"}, 403, id="a wrong password"),
        pytest.param(601, {}, {"password": PASSWORD}, 200, id="the password"),
    ],
)
async def test_only_the_owner_who_has_just_proved_it_erases(
    client, alice, database, tokens_of, ago, claims, body, status
):
    session = await database.fetchrow("SELECT id, user_id FROM memory_layer_auth.sessions")
    await save(client, alice, CANARY)
    signed_in = [{"method": "password", "timestamp": int(time.time()) - ago}]
    refreshed = [{"method": "token_refresh", "timestamp": int(time.time())}]
    user = tokens_of(session["user_id"], session["id"], {"amr": signed_in + refreshed} | claims)

    answer = await erase(client, user, **body)

    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["error_code"] == "SIGN_IN_AGAIN"
    left = await database.fetchval("SELECT count(*) FROM memory_layer.memories")
    assert left == (0 if status == 200 else 1)


async def test_erasing_is_free_of_charge(settings):
    nothing = settings.model_copy(update={"default_tier": "free", "free_per_day": 0})
    async with app_client(nothing) as client:
        alice = await sign_up(client, "alice")
        assert (await client.get("/memories", headers=alice)).status_code == 403
        assert (await erase(client, alice)).status_code == 200


async def test_the_counters_in_redis_go_too(settings, valkey):
    async with limited(settings, valkey) as client:
        alice = await sign_up(client, "alice")
        await save(client, alice, "one")
        assert valkey.do("DBSIZE") == 2

        await erase(client, alice)

        assert valkey.do("DBSIZE") == 0
