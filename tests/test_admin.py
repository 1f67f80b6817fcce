"""What an operator may do with the admin key, and nobody without it."""

import asyncio
import hashlib
import io
import zipfile
from uuid import uuid4

import asyncpg
import httpx
import pytest

from core.admin_keys import KEY_FILE, key_at_home
from core.config import Settings
from storage.admin_access import acting_as_admin
from storage.database import open_pool
from tests.answering import answering
from tests.conftest import ADMIN_KEY, app_client, sign_up

KEY = {"X-Admin-Key": ADMIN_KEY}
PANEL = {"Origin": "http://127.0.0.1:8000"}
OTHER_KEY = "mla_another-key-that-is-also-active"


async def read(client, path, **more):
    answer = await client.get(f"/admin/api{path}", headers=KEY, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def user_of(client, headers):
    return (await client.get("/auth/v1/user", headers=headers)).json()


async def save(client, headers, text):
    body = {"prompt": text, "provider": "claude"}
    assert (await client.post("/save-prompt", json=body, headers=headers)).status_code == 201


async def counted(client):
    """Run the job that counts, as the panel's button does."""
    answer = await client.post("/admin/api/jobs/count_memories/run", headers=KEY)
    assert answer.json()["data"]["outcome"] == "ok"


async def give_plan(client, user_id, **plan):
    return await client.put(f"/admin/api/users/{user_id}/plan", json=plan, headers=KEY)


async def test_a_wrong_key_is_refused_recorded_and_soon_not_even_looked_at(client):
    wrong = {"X-Admin-Key": ADMIN_KEY[:-1] + "x"}

    tries = [await client.get("/admin/api/overview", headers=wrong) for _ in range(7)]

    assert [answer.status_code for answer in tries] == [401] * 5 + [429] * 2
    assert int(tries[-1].headers["retry-after"]) > 50
    assert (await client.get("/admin/api/overview", headers=KEY)).status_code == 429


async def test_wrong_keys_are_in_the_record_without_the_key(client):
    await client.post("/admin/api/session", headers={"X-Admin-Key": "a guess of somebody"})

    (deed,) = (await read(client, "/audit"))["deeds"]
    assert (deed["action"], deed["actor"]) == ("wrong_key", "unknown")
    assert deed["address"] == "127.0.0.1"
    assert "guess" not in str(deed)


async def test_two_keys_are_active_while_one_takes_the_others_place(settings):
    both = settings.model_copy(
        update={"admin_api_keys": Settings(admin_api_keys=(OTHER_KEY,)).admin_api_keys}
    )
    async with app_client(both) as client:
        for key in (ADMIN_KEY, OTHER_KEY):
            answer = await client.get("/admin/api/limits", headers={"X-Admin-Key": key})
            assert answer.status_code == 200


async def test_a_session_ends_when_its_key_is_no_longer_active(settings):
    async with app_client(settings) as client:
        await client.post("/admin/api/session", headers=KEY | PANEL)
        cookies = client.cookies
        assert (await client.get("/admin/api/limits")).status_code == 200
    rotated = settings.model_copy(
        update={"admin_api_key": Settings(admin_api_key=OTHER_KEY).admin_api_key}
    )
    async with app_client(rotated) as client:
        client.cookies = cookies
        assert (await client.get("/admin/api/limits")).status_code == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client):
    plain = await client.post("/admin/api/session", headers=KEY | PANEL)
    over_tls = await client.post(
        "/admin/api/session", headers=KEY | {"Origin": "https://panel.example"}
    )

    cookie = plain.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Max-Age=1800" in cookie
    assert "Secure" not in cookie
    assert over_tls.headers["set-cookie"].startswith("__Host-memory_layer_admin=")
    assert "Secure" in over_tls.headers["set-cookie"]
    assert ADMIN_KEY not in cookie


async def test_another_page_cannot_write_with_the_operators_cookie(client, alice):
    user = await user_of(client, alice)
    await client.post("/admin/api/session", headers=KEY | PANEL)
    address = f"/admin/api/users/{user['id']}/plan"

    strange = ("https://evil.example", "null", "http://127.0.0.1:9000", "127.0.0.1:8000", "")
    for headers in ({}, *({"Origin": origin} for origin in strange)):
        answer = await client.put(address, json={"tier": "free"}, headers=headers)
        assert answer.status_code == 403, headers

    assert (await read(client, f"/users/{user['id']}"))["person"]["tier"] == "enterprise"


async def test_after_signing_out_the_cookie_is_worth_nothing(client):
    await client.post("/admin/api/session", headers=KEY | PANEL)
    stolen = dict(client.cookies)
    assert (await client.get("/admin/api/session")).json()["data"]["signed_in"]

    await client.delete("/admin/api/session", headers=PANEL)

    client.cookies = httpx.Cookies(stolen)
    assert (await client.get("/admin/api/limits")).status_code == 401
    assert not (await client.get("/admin/api/session")).json()["data"]["signed_in"]


async def test_a_session_ends_after_half_an_hour(client, database):
    await client.post("/admin/api/session", headers=KEY | PANEL)
    await database.execute(
        "UPDATE memory_layer.admin_sessions SET expires_at = expires_at - interval '1801 s'"
    )

    assert (await client.get("/admin/api/limits")).status_code == 401


async def test_neither_key_nor_session_stands_in_the_database(client, database):
    await client.post("/admin/api/session", headers=KEY | PANEL)
    (token,) = client.cookies.values()

    row = await database.fetchrow("SELECT * FROM memory_layer.admin_sessions")

    assert row["token_hash"] == hashlib.sha256(token.encode()).digest()
    assert row["key_hash"] == hashlib.sha256(ADMIN_KEY.encode()).digest()


async def test_with_no_key_configured_nobody_gets_in(settings, tmp_path):
    blocked = tmp_path / "a file"
    blocked.touch()
    none = settings.model_copy(update={"admin_api_key": None, "data_dir": blocked})
    async with app_client(none) as client:
        state = (await client.get("/admin/api/session")).json()["data"]
        answer = await client.get("/admin/api/overview", headers={"X-Admin-Key": ""})

    assert state == {"configured": False, "signed_in": False, "expires_at": None}
    assert answer.status_code == 401
    assert "ADMIN_API_KEY" in answer.json()["error"]


def test_at_home_a_key_is_made_once_for_its_owner_alone(tmp_path):
    said = []
    first = key_at_home(tmp_path / "new", said.append)
    again = key_at_home(tmp_path / "new", said.append)

    path = tmp_path / "new" / KEY_FILE
    assert first == again == (hashlib.sha256(path.read_text().strip().encode()).digest(),)
    assert path.stat().st_mode & 0o777 == 0o600
    assert said == [f"The key of the admin panel is in {path}"]
    assert list(path.parent.iterdir()) == [path]


async def test_what_was_changed_is_in_the_record(client, alice):
    user = await user_of(client, alice)
    await give_plan(client, user["id"], tier="free")
    await give_plan(client, user["id"], tier="free", per_minute=7)

    newest, older = (await read(client, "/audit"))["deeds"]

    fingerprint = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()[:8]
    assert newest["actor"] == f"key {fingerprint}"
    assert newest["user_id"] == user["id"]
    assert newest["details"] == {"per_minute": {"from": None, "to": 7}}
    assert older["details"] == {"tier": {"from": None, "to": "free"}}
    assert (await read(client, f"/users/{user['id']}"))["deeds"] == [newest, older]


async def test_the_record_is_read_page_by_page(client, alice):
    user = await user_of(client, alice)
    for limit in range(5):
        await give_plan(client, user["id"], per_minute=limit)

    first = await read(client, "/audit", params={"limit": 3})
    rest = await read(client, "/audit", params={"limit": 3, "before": first["next_before"]})

    limits = [deed["details"]["per_minute"]["to"] for deed in first["deeds"] + rest["deeds"]]
    assert limits == [4, 3, 2, 1, 0]
    assert rest["next_before"] is None


BEYOND_THE_PANEL = (
    "UPDATE memory_layer.admin_audit SET action = 'nothing'",
    "DELETE FROM memory_layer.admin_audit",
    "TRUNCATE memory_layer.admin_audit",
    "INSERT INTO memory_layer.admin_audit (actor, action, at) VALUES ('x', 'y', now())",
    "SELECT prompt FROM memory_layer.memories",
    "SELECT conversation_title FROM memory_layer.memories",
    "SELECT * FROM memory_layer.chunks",
    "DELETE FROM memory_layer.memories",
    "UPDATE memory_layer.user_state SET change_seq = 1",
    "SELECT password_hash FROM memory_layer_auth.users",
    "SELECT * FROM memory_layer_auth.signing_keys",
    "UPDATE memory_layer_auth.users SET email = 'x'",
)


async def test_the_panels_role_can_do_no_more_than_the_panel(database_url):
    async with open_pool(database_url, 1, 1) as pool:
        for statement in BEYOND_THE_PANEL:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with acting_as_admin(pool) as conn:
                    await conn.execute(statement)


async def test_users_are_found_by_a_part_of_the_address_and_by_id(client, alice, bob):
    user = await user_of(client, alice)
    part = user["email"].partition("@")[0].upper()

    by_address = await read(client, "/users", params={"query": part})
    by_id = await read(client, "/users", params={"query": user["id"]})
    everybody = await read(client, "/users")

    assert [person["id"] for person in by_address["people"]] == [user["id"]]
    assert by_id["people"] == by_address["people"]
    assert len(everybody["people"]) == 2 and not everybody["has_more"]
    assert (await read(client, "/users", params={"query": "100%"}))["people"] == []
    assert (await read(client, "/users", params={"query": str(uuid4())}))["people"] == []


async def test_a_user_is_shown_with_memories_use_and_days(client, alice, bob):
    for text in ("one", "two"):
        await save(client, alice, text)
    await client.get("/memories", headers=bob)
    user = await user_of(client, alice)
    await counted(client)

    async def written():
        return (await read(client, f"/users/{user['id']}"))["days"][-1]["requests"]

    async with asyncio.timeout(20):
        while await written() != 2:  # noqa: ASYNC110 - written in the background
            await asyncio.sleep(0.1)
    seen = await read(client, f"/users/{user['id']}")
    assert seen["person"]["memories"] == 2
    assert seen["person"]["requests_today"] == 2
    assert seen["person"]["last_seen"] == seen["days"][-1]["day"]
    assert len(seen["days"]) == 30


async def test_the_operator_sees_who_spent_the_servers_model_tokens(settings):
    more = {"default_tier": "free", "free_tokens_per_day": 3_000}
    async with answering(settings, **more) as (client, _):
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
        own_key = bob | {"X-Provider-Key": "sk-bobs-own"}
        for headers in (alice, own_key):
            await save(client, headers, "walrus sleeps")
            question = {"question": "Where does the walrus sleep?"}
            asked = await client.post("/rag/query", json=question, headers=headers)
            assert asked.status_code == 200
        used = (await client.get("/usage", headers=alice)).json()["data"]["tokens"]["used"]
        user = await user_of(client, alice)

        async with asyncio.timeout(20):
            while (await read(client, "/overview"))["tokens_today"] != used:  # noqa: ASYNC110 - written in the background
                await asyncio.sleep(0.1)

        limits = await read(client, "/limits")
        assert [person["id"] for person in limits["spenders"]] == [user["id"]]
        assert {one["tier"]: one["tokens_per_day"] for one in limits["tiers"]}["free"] == 3_000
        seen = await read(client, f"/users/{user['id']}")
        person = seen["person"]
        assert (person["tokens_today"], person["tokens_per_day"]) == (used, 3_000)
        assert seen["days"][-1]["tokens"] == used > 0


async def test_counts_follow_what_is_saved_and_deleted(client, alice):
    await save(client, alice, "one")
    await save(client, alice, "two")
    await counted(client)
    assert (await read(client, "/overview"))["memories"] == 2
    (first, _) = (await client.get("/memories", headers=alice)).json()["data"]["memories"]

    await client.delete(f"/memories/{first['id']}", headers=alice)
    await counted(client)

    assert (await read(client, "/overview"))["memories"] == 1


async def test_a_background_job_is_run_at_once_and_an_unknown_one_is_not_found(client):
    run = await client.post("/admin/api/jobs/purge_tombstones/run", headers=KEY)
    unknown = await client.post("/admin/api/jobs/brew_coffee/run", headers=KEY)

    assert (run.json()["data"]["outcome"], run.json()["data"]["detail"]) == ("ok", "0 tombstones")
    assert unknown.status_code == 404
    listed = {job["name"]: job for job in (await read(client, "/system"))["jobs"]}
    assert listed["purge_tombstones"]["outcome"] == "ok"
    (deed,) = (await read(client, "/audit"))["deeds"]
    assert deed["details"] == {"job": "purge_tombstones", "outcome": "ok"}


async def test_an_unknown_user_is_not_found(client):
    user_id = uuid4()

    answers = [
        await client.get(f"/admin/api/users/{user_id}", headers=KEY),
        await give_plan(client, user_id, tier="pro"),
        await client.post(f"/admin/api/users/{user_id}/rebuild-cache", headers=KEY),
    ]

    assert [answer.status_code for answer in answers] == [404] * 3


async def test_a_plan_that_makes_no_sense_is_refused(client, alice):
    user = await user_of(client, alice)

    for plan in ({"tier": "gold"}, {"per_day": -1}, {"per_minute": 10**12}, {"per_day": "many"}):
        assert (await give_plan(client, user["id"], **plan)).status_code == 400, plan


async def test_a_rebuilt_cache_finds_what_the_old_one_had_lost(client, alice, database):
    await save(client, alice, "walrus")
    find = {"query": "walrus"}
    assert (await client.post("/search", json=find, headers=alice)).json()["data"]["hits"]
    user = await user_of(client, alice)
    # What no program of ours does: a row is changed behind the change feed's back.
    await database.execute("UPDATE memory_layer.memories SET prompt = 'a zebra'")
    find = {"query": "zebra"}
    assert not (await client.post("/search", json=find, headers=alice)).json()["data"]["hits"]

    await client.post(f"/admin/api/users/{user['id']}/rebuild-cache", headers=KEY)

    assert (await client.post("/search", json=find, headers=alice)).json()["data"]["hits"]


async def test_an_export_gives_this_users_texts_and_is_on_record(client, alice, bob):
    await save(client, alice, "a walrus of alice")
    await save(client, bob, "a zebra of bob")
    user = await user_of(client, alice)

    answer = await client.get(f"/admin/api/users/{user['id']}/export", headers=KEY)

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        lines = archive.read("memories.jsonl").decode()
    assert "a walrus of alice" in lines and "zebra" not in lines
    assert answer.headers["content-type"] == "application/zip"
    (deed,) = (await read(client, "/audit"))["deeds"]
    assert (deed["action"], deed["user_id"]) == ("account_exported", user["id"])


async def test_an_erased_account_is_gone_and_who_erased_it_stays_known(
    settings, client, alice, bob, database
):
    await save(client, alice, "a secret of alice")
    user = await user_of(client, alice)
    await counted(client)

    answer = await client.post(
        f"/admin/api/users/{user['id']}/erase", json={"typed": user["email"]}, headers=KEY
    )

    receipt = answer.json()["data"]
    assert (receipt["sign_in"], receipt["erased"]["memories"]) == ("erased", 1)
    assert [one["email"] for one in (await read(client, "/users"))["people"]] != [user["email"]]
    assert (await client.get(f"/admin/api/users/{user['id']}", headers=KEY)).status_code == 404
    assert (await client.get("/memories", headers=alice)).status_code == 401
    erased, ordered, _ = (await read(client, "/audit"))["deeds"]
    assert [ordered["action"], erased["action"]] == ["erasure_ordered", "account_erased"]
    assert erased["user_id"] == user["id"] and user["email"] not in str(erased)
    assert (await read(client, "/overview"))["memories"] == 0


async def test_nothing_is_erased_without_the_typed_address(client, alice):
    user = await user_of(client, alice)

    for typed in ("", "yes", "ALICE", str(uuid4())):
        answer = await client.post(
            f"/admin/api/users/{user['id']}/erase", json={"typed": typed}, headers=KEY
        )
        assert answer.status_code == 400, typed

    assert (await client.get("/memories", headers=alice)).status_code == 200


async def test_who_is_refused_most_is_named(settings, client, alice, bob):
    alice_id, bob_id = [(await user_of(client, who))["id"] for who in (alice, bob)]
    await give_plan(client, alice_id, per_day=1)
    for who in (alice, bob):
        await asyncio.gather(*(client.get("/memories", headers=who) for _ in range(4)))

    async def refused():
        return (await read(client, "/limits"))["refused"]

    async with asyncio.timeout(20):
        while not await refused():  # noqa: ASYNC110 - written in the background
            await asyncio.sleep(0.1)
    found = await read(client, "/limits")
    assert [(one["person"]["id"], one["refused"]) for one in found["refused"]] == [(alice_id, 3)]
    assert [person["id"] for person in found["overrides"]] == [alice_id]
    assert {person["id"] for person in found["busiest"]} == {alice_id, bob_id}
    assert {tier["tier"]: tier["is_default"] for tier in found["tiers"]}["enterprise"]


async def test_the_system_shows_its_settings_and_no_secret(settings, database_url):
    secrets = {"openai_api_key": "sk-canary-of-openai", "redis_url": "redis://:canary@127.0.0.1:1"}
    told = Settings(
        _env_file=None,
        database_url=database_url,
        embedder="none",
        admin_api_key=ADMIN_KEY,
        openai_base_url="https://someone:canary@models.example/v1",
        **secrets,
    )
    async with app_client(told) as client:
        answer = await client.get("/admin/api/system", headers=KEY)

    assert "canary" not in answer.text and ADMIN_KEY not in answer.text
    shown = {one["name"]: one["value"] for one in answer.json()["data"]["settings"]}
    assert shown["OPENAI_API_KEY"] == shown["REDIS_URL"] == shown["ADMIN_API_KEY"] == "set"
    assert shown["SUPABASE_JWT_SECRET"] == "not set"
    assert shown["OPENAI_BASE_URL"] == "models.example/v1"
    assert set(shown) == {name.upper() for name in Settings.model_fields}


async def test_the_overview_draws_every_span_also_those_without_requests(client):
    for hours, bars in ((1, 12), (24, 24), (168, 168)):
        seen = await read(client, "/overview", params={"hours": hours})

        assert len(seen["spans"]) == bars
        assert seen["recent"]["p95"] is None
        assert seen["health"]["status"] == "ok"


async def test_the_overview_counts_saves_searches_and_times(settings):
    async with app_client(settings) as client:
        alice = await sign_up(client, "alice")
        await save(client, alice, "walrus")
        await client.post("/search", json={"query": "walrus"}, headers=alice)
    async with app_client(settings) as client:
        seen = await read(client, "/overview")

    assert seen["spans"][-1] | {"saves": 1, "searches": 1} == seen["spans"][-1]
    routes = {one["route"]: one for one in seen["routes"]}
    assert routes["POST /search"]["p50"] > 0
    assert seen["recent"]["requests"] == 3
    assert seen["users"] == 1
