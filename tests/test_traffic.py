"""What is counted of the requests, over all replicas."""

import asyncio
from datetime import UTC, datetime
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from core.traffic import BOUNDS, Traffic, percentile
from storage import traffic
from storage.database import acting_as_meter, open_pool
from tests.conftest import app_client, sign_up

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


async def read_back(database_url):
    async with open_pool(database_url, 1, 1) as pool, acting_as_meter(pool) as conn:
        return {one.route: one for one in await traffic.by_route(conn, SINCE)}


async def test_requests_of_two_replicas_are_added_by_route(settings, database_url):
    async def serve(times):
        async with app_client(settings) as client:
            alice = await sign_up(client, f"alice{times}")
            for _ in range(times):
                await client.get("/memories", headers=alice)

    await asyncio.gather(serve(3), serve(4))

    found = await read_back(database_url)
    assert found["GET /memories"].requests == 7
    assert sum(found["GET /memories"].buckets) == 7
    assert found["POST /auth/v1/signup"].requests == 2


async def test_refusals_of_a_limit_are_told_from_other_answers(settings, database_url, database):
    limited = settings.model_copy(update={"default_tier": "free", "free_per_day": 2})
    async with app_client(limited) as client:
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
        saved = await client.post(
            "/save-prompt", json={"prompt": "x", "provider": "claude"}, headers=alice
        )
        address = f"/memories/{saved.json()['data']['memory_id']}"
        answers = [await client.get(address, headers=bob) for _ in range(4)]
        await client.get("/not-a-route-of-ours")
        await client.get("/health")
    assert [answer.status_code for answer in answers] == [403] * 4

    found = await read_back(database_url)
    looked = found["GET /memories/{memory_id}"]
    assert (looked.requests, looked.errors, looked.refused) == (4, 0, 2)
    assert found["(no such route)"].requests == 1
    assert not [route for route in found if "health" in route]
    assert await database.fetchval("SELECT max(refused) FROM memory_layer.daily_use") == 2


async def test_what_is_old_is_forgotten(settings, database_url, database):
    await database.execute(
        "INSERT INTO memory_layer.traffic"
        " VALUES (now() - interval '9 days', 'GET /x', 1, 0, 0, '{1}')"
    )
    async with open_pool(database_url, 1, 1) as pool:
        counted = Traffic(pool)
        counted.add("GET", "/memories", 200, 1.0, refused=False)
        await counted.write()

    assert set(await read_back(database_url)) == {"GET /memories"}


async def test_what_could_not_be_written_is_written_later(database_url):
    async with open_pool(database_url, 1, 1) as pool:
        counted = Traffic(pool)
        counted.add("GET", "/memories", 200, 1.0, refused=False)
        async with pool.acquire() as held:
            blocked = asyncio.create_task(counted.write())
            await asyncio.sleep(0)
            counted.add("GET", "/memories", 503, 2.0, refused=False)
            await held.execute("SELECT 1")
            blocked.cancel()
            await asyncio.gather(blocked, return_exceptions=True)
        await counted.write()

    found = (await read_back(database_url))["GET /memories"]
    assert (found.requests, found.errors) == (2, 1)


@given(st.lists(st.floats(0.01, 4_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_right_to_the_width_of_a_bucket(times, share):
    counted = Traffic(None)
    for ms in times:
        counted.add("GET", "/search", 200, ms, refused=False)
    (sums,) = counted._sums.values()

    exact = sorted(times)[ceil(len(times) * share) - 1]
    assert exact / 1.31 - 0.5 <= percentile(sums.buckets, share) <= exact * 1.31 + 0.5


def test_without_requests_there_is_no_percentile():
    assert percentile([0] * (len(BOUNDS) + 1), 0.5) is None
