"""What a tier may spend: exactly that, and nothing is refused because Redis is away."""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from core.config import Settings
from core.plans import Plans
from core.rate_limiter import RateLimiter
from storage.counters import DAY, NO_MINUTE, Ask, CountersAway, LocalCounters
from storage.database import acting_as, open_pool
from storage.redis_counters import SECONDS, RedisCounters
from tests.conftest import app_client, sign_up, until
from tests.test_isolation import ATTEMPTS
from tests.test_replicas import two_replicas
from tests.valkey import Valkey

FREE = {"default_tier": "free"}
ROOMY = {"default_tier": "free", "free_per_day": 100_000, "free_per_minute": 100_000}


@pytest.fixture
def own_valkey():
    """For tests that kill it."""
    server = Valkey()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def limited(settings, valkey=None, **changed):
    url = SecretStr(valkey.url) if valkey else None
    async with app_client(settings.model_copy(update={"redis_url": url} | changed)) as client:
        yield client


@pytest.fixture(params=["redis", "in process"])
def counting(request):
    """With the counters in Redis, and without."""
    return request.getfixturevalue("valkey") if request.param == "redis" else None


async def ask(client, user, times=1):
    """Spend `times` requests at once."""
    return await asyncio.gather(*(client.get("/memories", headers=user) for _ in range(times)))


async def usage_of(client, user):
    answer = await client.get("/usage", headers=user)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def redis_state(client):
    return (await client.get("/health")).json()["data"]["limits"]["redis"]


async def user_id_of(database):
    return await database.fetchval("SELECT id FROM memory_layer_auth.users")


async def test_a_burst_of_150_of_a_free_user_passes_exactly_100(settings, counting):
    async with limited(settings, counting, **FREE) as client:
        alice = await sign_up(client, "alice")

        answers = await ask(client, alice, 150)

        assert Counter(a.status_code for a in answers) == {200: 100, 403: 50}
        refused = next(a for a in answers if a.status_code == 403)
        body = refused.json()
        assert body["error_code"] == "RATE_LIMIT_EXCEEDED"
        midnight = datetime.combine(
            datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC
        )
        assert body["details"] == {
            "tier": "free",
            "limit": 100,
            "remaining": 0,
            "reset_at": midnight.isoformat(),
        }
        left = (midnight - datetime.now(UTC)).total_seconds()
        assert abs(int(refused.headers["Retry-After"]) - left) < 60
        assert refused.headers["RateLimit-Policy"] == '"minute";q=120;w=60, "day";q=100;w=86400'
        assert refused.headers["RateLimit"].startswith('"minute";r=20;t=')
        assert '"day";r=0;t=' in refused.headers["RateLimit"]


async def test_too_fast_is_429_and_says_when_to_come_back(settings, counting):
    async with limited(settings, counting, default_tier="free", free_per_minute=5) as client:
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")

        answers = await ask(client, alice, 8)

        assert Counter(a.status_code for a in answers) == {200: 5, 429: 3}
        refused = next(a for a in answers if a.status_code == 429)
        assert refused.json()["error_code"] == "TOO_MANY_REQUESTS"
        assert refused.json()["details"]["limit"] == 5
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert [a.status_code for a in await ask(client, bob, 5)] == [200] * 5
        assert (await usage_of(client, alice))["day"]["used"] == 5


async def test_looking_at_ones_usage_and_deleting_cost_nothing(settings, counting):
    async with limited(settings, counting, default_tier="free", free_per_day=2) as client:
        alice = await sign_up(client, "alice")
        body = {"prompt": "one", "provider": "chatgpt"}
        saved = await client.post("/save-prompt", json=body, headers=alice)
        address = f"/memories/{saved.json()['data']['memory_id']}"
        await ask(client, alice)
        assert (await ask(client, alice))[0].status_code == 403

        assert (await client.delete(address, headers=alice)).status_code == 200

        now = await usage_of(client, alice)
        assert (now["tier"], now["day"]["limit"]) == ("free", 2)
        assert (now["day"]["used"], now["day"]["remaining"]) == (2, 0)
        assert (now["minute"]["used"], now["minute"]["remaining"]) == (2, 118)
        midnight = datetime.fromisoformat(now["day"]["reset_at"])
        assert midnight - datetime.now(UTC) < timedelta(days=1)
        assert (midnight.hour, midnight.minute, midnight.second) == (0, 0, 0)
        frees = datetime.fromisoformat(now["minute"]["reset_at"])
        assert timedelta(0) < frees - datetime.now(UTC) <= timedelta(seconds=60)
        assert len(now["days"]) == 30
        assert now["days"][-1] == {"day": str(datetime.now(UTC).date()), "requests": 2, "tokens": 0}


async def test_a_bad_token_spends_nothing_and_is_401(settings, counting):
    async with limited(settings, counting, default_tier="free", free_per_day=0) as client:
        assert (await client.get("/memories")).status_code == 401


async def test_use_outlives_the_process_and_older_days_are_shown(settings, counting, database):
    async with limited(settings, counting, **FREE) as client:
        alice = await sign_up(client, "alice")
        await ask(client, alice, 60)
    user_id = await user_id_of(database)
    today = datetime.now(UTC).date()
    await database.execute(
        "INSERT INTO memory_layer.daily_use VALUES ($1, $2, 7)", user_id, today - timedelta(days=3)
    )

    async with limited(settings, counting, **FREE) as client:
        now = await usage_of(client, alice)
        assert (now["day"]["used"], now["days"][-4]["requests"]) == (60, 7)
        answers = await ask(client, alice, 50)

    assert Counter(a.status_code for a in answers) == {200: 40, 403: 10}
    written = "SELECT requests FROM memory_layer.daily_use WHERE user_id = $1 AND day = $2"
    assert await database.fetchval(written, user_id, today) == 100


async def test_a_flushed_redis_does_not_give_the_day_anew(settings, valkey):
    async with limited(settings, valkey, **FREE) as client:
        alice = await sign_up(client, "alice")
        await ask(client, alice, 90)
        valkey.do("FLUSHALL")
        assert (await usage_of(client, alice))["day"]["used"] == 90
    valkey.do("FLUSHALL")

    async with limited(settings, valkey, **FREE) as client:
        answers = await ask(client, alice, 20)

    assert Counter(a.status_code for a in answers) == {200: 10, 403: 10}


async def test_a_changed_tier_and_an_override_hold_within_five_seconds(settings, valkey, database):
    async with limited(settings, valkey, default_tier="free", free_per_day=1) as client:
        alice = await sign_up(client, "alice")
        assert [a.status_code for a in [*await ask(client, alice), *await ask(client, alice)]] == [
            200,
            403,
        ]
        upsert = (
            "INSERT INTO memory_layer.user_state (user_id, {0}) VALUES ($1, $2)"
            " ON CONFLICT (user_id) DO UPDATE SET {0} = EXCLUDED.{0}"
        )
        user_id = await user_id_of(database)

        await database.execute(upsert.format("tier"), user_id, "pro")

        async def has_changed():
            return (await usage_of(client, alice))["tier"] == "pro"

        await until(has_changed, seconds=6)
        assert (await ask(client, alice))[0].status_code == 200
        await database.execute(upsert.format("per_day"), user_id, 2)

        async def is_refused():
            return (await usage_of(client, alice))["day"]["limit"] == 2

        await until(is_refused, seconds=6)
        assert (await ask(client, alice))[0].status_code == 403


async def test_a_changed_tier_holds_on_every_replica_for_the_same_token(
    make_server, valkey, database
):
    shared = {"REDIS_URL": valkey.url, "DEFAULT_TIER": "free", "PRO_PER_DAY": "150"}
    async with two_replicas(make_server, **shared) as (one, two):
        alice = await sign_up(one, "alice")
        for replica in (one, two):
            assert (await usage_of(replica, alice))["day"]["limit"] == 100
        await database.execute(
            "INSERT INTO memory_layer.user_state (user_id, tier) VALUES ($1, 'pro')",
            await user_id_of(database),
        )

        async def has_changed():
            answers = [await usage_of(replica, alice) for replica in (one, two)]
            return [a["tier"] for a in answers] == ["pro", "pro"]

        await until(has_changed, seconds=10)
        answers = [*await ask(one, alice, 60), *await ask(two, alice, 60)]
        assert Counter(a.status_code for a in answers) == {200: 120}, "more than a free day"


# What nobody pays for: looking at what is left, deleting, seeing what one's tokens are and how
# far an import is, and what the extension counts by itself.
FREE_OF_CHARGE = {
    "GET /usage",
    "DELETE /trash",
    "DELETE /trash/{memory_id}",
    "GET /import",
    "GET /import/{import_id}",
    "POST /import/{import_id}/cancel",
    "POST /capture-health",
    "GET /tokens",
    "DELETE /account",
    "DELETE /memories/{memory_id}",
    "DELETE /tokens/{token_id}",
}


FOR_PEOPLE = [n for n, a in ATTEMPTS.items() if not a.public and " /admin/api/" not in n]


@pytest.mark.parametrize("name", FOR_PEOPLE)
async def test_every_route_for_people_spends_one_request_or_is_free(client, alice, name):
    method, _, path = name.partition(" ")
    before = (await usage_of(client, alice))["day"]["used"]

    for placeholder in ("{memory_id}", "{token_id}", "{import_id}"):
        path = path.replace(placeholder, str(uuid4()))
    path = path.replace("{number}", "1")
    body = ATTEMPTS[name].send if name not in FREE_OF_CHARGE else None
    answer = await client.request(method, path, json=body, headers=alice)

    assert answer.status_code not in (401, 405), answer.text
    if name == "DELETE /account":
        return
    used = (await usage_of(client, alice))["day"]["used"] - before
    is_free = name in FREE_OF_CHARGE or path.startswith("/auth/v1")
    assert used == (0 if is_free else 1)


async def test_the_role_that_serves_requests_cannot_change_a_tier(database_url):
    async with open_pool(database_url, 1, 2) as pool:
        user_id = uuid4()
        for statement in (
            "INSERT INTO memory_layer.user_state (user_id, tier) VALUES ($1, 'enterprise')",
            "UPDATE memory_layer.user_state SET tier = 'enterprise' WHERE user_id = $1",
            "UPDATE memory_layer.daily_use SET requests = 0 WHERE user_id = $1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with acting_as(pool, user_id) as conn:
                    await conn.execute(statement, user_id)


async def passes_all(client, user, times=40):
    return {a.status_code for a in await ask(client, user, times)} == {200}


async def state_becomes(client, user, state):
    """Go on asking until the state is reached; every request must pass."""

    async def reached():
        assert await passes_all(client, user, 5)
        return await redis_state(client) == state

    await until(reached, seconds=20)


async def test_while_redis_hangs_everything_passes_and_then_it_is_used_again(settings, own_valkey):
    async with limited(settings, own_valkey, **ROOMY) as client:
        alice = await sign_up(client, "alice")
        assert await passes_all(client, alice)
        own_valkey.freeze()
        assert await passes_all(client, alice)
        assert await redis_state(client) == "degraded"
        own_valkey.thaw()
        await state_becomes(client, alice, "ok")
        before = (await usage_of(client, alice))["day"]["used"]
        assert await passes_all(client, alice)
        assert (await usage_of(client, alice))["day"]["used"] == before + 40


async def test_while_redis_is_dead_everything_passes_and_a_new_one_is_found(settings, own_valkey):
    async with limited(settings, own_valkey, **ROOMY) as client:
        alice = await sign_up(client, "alice")
        assert await passes_all(client, alice)
        own_valkey.kill()
        assert await passes_all(client, alice)
        await state_becomes(client, alice, "degraded")
        own_valkey.start()
        await state_becomes(client, alice, "ok")
        used = (await usage_of(client, alice))["day"]["used"]
        assert own_valkey.do("DBSIZE")
        assert used >= 80


async def test_the_service_starts_without_its_redis(settings, own_valkey):
    own_valkey.kill()
    async with limited(settings, own_valkey, **FREE) as client:
        alice = await sign_up(client, "alice")
        answers = await ask(client, alice, 150)
        assert Counter(a.status_code for a in answers) == {200: 100, 403: 50}


async def test_a_stall_of_our_own_is_not_taken_for_an_absent_redis(valkey):
    counters, one = RedisCounters(valkey.url), Ask(uuid4(), 100, 100, 0, 0)
    await counters.spend(one)
    for used in range(2, 6):
        asked = asyncio.create_task(counters.spend(one))
        for _ in range(used):
            await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 - the loop stands still, and its time-outs are over
        assert (await asked).used_today == used
    await counters.aclose()


async def test_a_call_leaves_nothing_behind_for_the_collector(own_valkey):
    """It runs seldom, and what waits for it makes the process grow."""
    counters, calls = RedisCounters(own_valkey.url), 8
    asked = Ask(uuid4(), per_minute=100, per_day=100, day=0, used=0)
    await counters.spend(asked)
    gc.collect()
    gc.disable()
    try:
        for _ in range(calls):
            await counters.spend(asked)
        assert gc.collect() < calls
        own_valkey.freeze()
        with contextlib.suppress(CountersAway):
            assert await counters.spend(asked) is None
        await asyncio.sleep(0)  # what woke us is of the turn before
        assert not [one for one in gc.get_objects() if isinstance(one, CountersAway)]
    finally:
        gc.enable()
        await counters.aclose()


async def test_a_hung_redis_is_waited_for_once_and_then_not_asked(own_valkey, database_url):
    settings = Settings(_env_file=None, default_tier="enterprise")
    async with open_pool(database_url, 1, 2) as pool:
        remote, user_id = RedisCounters(own_valkey.url), uuid4()
        limiter = RateLimiter(Plans(pool, settings), LocalCounters(), remote)
        await limiter.spend(user_id)
        own_valkey.freeze()

        began = time.perf_counter()
        await limiter.spend(user_id)
        first = time.perf_counter() - began
        for _ in range(500):
            await limiter.spend(user_id)
        each = (time.perf_counter() - began - first) / 500

        await remote.aclose()
    assert first >= SECONDS / 2
    assert first < 20 * SECONDS
    assert each < 0.001
    assert limiter.state == "degraded"


async def test_over_a_failover_everything_passes_and_the_new_primary_is_used(settings, own_valkey):
    """The one that was the primary takes no writes for a while, as when a replica is promoted."""
    async with limited(settings, own_valkey, **ROOMY) as client:
        alice = await sign_up(client, "alice")
        assert await passes_all(client, alice)
        own_valkey.do("REPLICAOF", "127.0.0.1", "1")
        await state_becomes(client, alice, "degraded")
        own_valkey.do("REPLICAOF", "NO", "ONE")
        own_valkey.do("FLUSHALL")
        await state_becomes(client, alice, "ok")
        used = (await usage_of(client, alice))["day"]["used"]
        assert await passes_all(client, alice)
        assert (await usage_of(client, alice))["day"]["used"] == used + 40
        assert used >= 40


async def test_a_redis_that_comes_back_empty_does_not_give_the_minute_a_third_time(
    settings, own_valkey
):
    async with limited(settings, own_valkey, default_tier="free", free_per_minute=40) as client:
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
        assert Counter(a.status_code for a in await ask(client, alice, 60)) == {200: 40, 429: 20}
        own_valkey.kill()
        while await redis_state(client) == "ok":
            await ask(client, bob)
        assert Counter(a.status_code for a in await ask(client, alice, 60)) == {200: 40, 429: 20}

        own_valkey.start()

        async def is_back():
            return await redis_state(client) == "ok"

        await until(is_back)
        assert Counter(a.status_code for a in await ask(client, alice, 60)) == {429: 60}
        assert [a.status_code for a in await ask(client, bob, 5)] == [200] * 5
        own_valkey.kill()
        assert Counter(a.status_code for a in await ask(client, alice, 60)) == {429: 60}


async def test_a_restart_and_forgotten_scripts_go_unnoticed(settings, own_valkey):
    async with limited(settings, own_valkey, **ROOMY) as client:
        alice = await sign_up(client, "alice")
        assert await passes_all(client, alice)
        own_valkey.do("SCRIPT", "FLUSH")
        assert await passes_all(client, alice)
        assert await redis_state(client) == "ok"
        own_valkey.kill()
        own_valkey.start()
        assert await passes_all(client, alice)
        await state_becomes(client, alice, "ok")
        assert (await usage_of(client, alice))["day"]["used"] >= 120


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_replica_on_its_own_spends_its_share_of_what_is_left(replicas):
    counters = LocalCounters(shares=replicas, clock=lambda: 1_000_000)
    ask = Ask(uuid4(), per_minute=100, per_day=10, day=0, used=6)

    verdicts = [counters.spend(ask).verdict for _ in range(3)]

    assert verdicts == [0, 0, 1]


def test_a_minute_slides_and_a_day_ends_at_midnight():
    now = 86_400_000_000 - 90_000_000
    counters = LocalCounters(clock=lambda: now)
    ask = Ask(uuid4(), per_minute=2, per_day=3, day=0, used=0)
    seen = []
    for pause in (0, 30, 10, 20, 29.999999, 0.000001):
        now += int(pause * 1_000_000)
        seen.append(counters.spend(ask).verdict)

    assert seen == [0, 0, 2, 0, 1, 0]


async def test_a_minute_slides_in_redis_too(valkey):
    """With requests of 90, 61 and 30 seconds ago, as other replicas may have left them."""
    counters, user_id = RedisCounters(valkey.url), uuid4()
    minute, day = (f"requests:{{{user_id}}}:{window}" for window in ("minute", "day"))
    now = time.time_ns() // 1_000
    left = [now - seconds * 1_000_000 for seconds in (90, 61, 30)]
    valkey.do("RPUSH", minute, *map(str, left))
    valkey.do("PEXPIRE", minute, "600000")

    counted = await counters.spend(Ask(user_id, 2, 9, 0, 0))
    refused = await counters.spend(Ask(user_id, 2, 9, 0, 0))

    assert (counted.verdict, counted.used_in_minute, counted.used_today) == (0, 2, 1)
    assert (refused.verdict, refused.used_in_minute, refused.used_today) == (2, 2, 1)
    assert refused.free_at == left[2] + 60_000_000
    # Nothing stays for longer than it is needed.
    assert int(valkey.do("PTTL", minute)) <= 60_000
    midnight = (now // DAY + 1) * DAY // 1_000
    assert int(valkey.do("PEXPIRETIME", day)) == midnight - 1
    valkey.do("RPUSH", minute, str(left[1]))
    valkey.do("LPOP", minute, "2")
    assert (await counters.spend(Ask(user_id, 2, 9, 0, 0, cost=0))).used_in_minute == 0
    await counters.aclose()


def test_users_who_were_not_seen_for_long_are_forgotten():
    counters = LocalCounters(clock=lambda: 0, most_users=2)
    first, *others = [Ask(uuid4(), 9, 9, 0, 0) for _ in range(3)]
    for ask in (first, *others):
        counters.spend(ask)

    assert counters.spend(first).used_today == 1
    assert counters.spend(others[1]).used_today == 2


COSTS = st.sampled_from([("requests", 0), ("requests", 1), ("tokens", 0), ("tokens", 3)])
ASKS = st.lists(st.tuples(st.integers(0, 1), COSTS), max_size=40)


@hypothesis_settings(max_examples=40, deadline=None)
@given(ASKS, st.integers(0, 8), st.integers(0, 8), st.integers(0, 4))
def test_the_twin_decides_as_the_script_does(one_valkey, asks, per_minute, per_day, used):
    """The twin's clock is set to what the script said its time was."""
    now = 0

    async def play():
        nonlocal now
        remote, local = RedisCounters(one_valkey.url), LocalCounters(clock=lambda: now)
        users = uuid4(), uuid4()
        today = int(datetime.now(UTC).timestamp() // 86_400)
        for who, (of, cost) in asks:
            minute = per_minute if of == "requests" else NO_MINUTE
            key = users[who] if of == "requests" else f"{users[who]}:tokens"
            one = Ask(key, minute, per_day, today, used, cost)
            expected = await remote.spend(one)
            now = expected.now
            assert local.spend(one) == expected
        await remote.aclose()

    asyncio.run(play())
