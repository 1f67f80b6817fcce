"""Connections are handed from one use to the next: never two at once, none lost."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from storage.database import Pool, open_pool
from storage.pool import Pool as HandedOn
from tests.conftest import until


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, 1, 2) as pool:
        yield pool


async def backend(pool: Pool) -> int:
    async with pool.acquire() as conn:
        return int(await conn.fetchval("SELECT pg_backend_pid()"))


async def all_at_once(pool: Pool) -> set[int]:
    """The backends of as many connections as there may be."""
    async with pool.acquire() as one, pool.acquire() as two:
        return {one.get_server_pid(), two.get_server_pid()}


async def test_who_comes_next_has_the_connection_that_was_used_last(pool: Pool) -> None:
    assert await backend(pool) == await backend(pool)
    assert (pool.get_size(), pool.get_idle_size()) == (1, 1)


async def test_fifty_who_want_one_take_turns_with_two_connections(pool: Pool) -> None:
    using, most = 0, 0

    async def use() -> int:
        nonlocal using, most
        async with pool.acquire() as conn:
            using += 1
            most = max(most, using)
            found = int(await conn.fetchval("SELECT pg_backend_pid(), pg_sleep(0.001)"))
            using -= 1
        return found

    backends = set(await asyncio.gather(*(use() for _ in range(50))))

    assert (most, len(backends), pool.get_idle_size()) == (2, 2, 2)


async def test_who_waits_longest_is_served_first(pool: Pool) -> None:
    served: list[int] = []

    async def use(number: int) -> None:
        async with pool.acquire():
            served.append(number)
            await asyncio.sleep(0)

    async with pool.acquire(), pool.acquire():
        waiting = [asyncio.create_task(use(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert not served
    await asyncio.gather(*waiting)

    assert served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fails", [False, True])
async def test_who_goes_away_while_waiting_takes_no_connection_along(
    pool: Pool, fails: bool
) -> None:
    """Also in the very moment in which one is handed over, or a place is left."""
    for _ in range(3):
        async with pool.acquire():
            held = asyncio.Event()

            async def hold(held: asyncio.Event = held) -> None:
                async with pool.acquire():
                    await held.wait()
                    if fails:
                        raise LookupError

            holder = asyncio.create_task(hold())
            await asyncio.sleep(0.05)
            waiting = [asyncio.create_task(backend(pool)) for _ in range(4)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            held.set()
            await asyncio.gather(holder, return_exceptions=True)
            waiting[1].cancel()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(ended[0], asyncio.CancelledError)
            assert all(isinstance(each, int) for each in ended[2:])
        assert len(await all_at_once(pool)) == 2


async def test_a_statement_that_is_given_up_is_stopped_and_its_connection_serves_again(
    pool: Pool, database: asyncpg.Connection
) -> None:
    async def slow() -> None:
        async with pool.acquire() as conn:
            await conn.execute("SELECT pg_sleep(60)")

    for _ in range(4):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.05)

    assert len(await all_at_once(pool)) == 2
    asleep = (
        "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep.60' AND state = 'active'"
    )
    assert await database.fetchval(asleep + " AND pid <> pg_backend_pid()") == 0


async def test_connections_that_were_lost_while_nobody_used_them_are_replaced(
    pool: Pool, database: asyncpg.Connection
) -> None:
    before = await all_at_once(pool)
    for pid in before:
        await database.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    await asyncio.sleep(0.05)

    after = await all_at_once(pool)

    assert len(after) == 2
    assert not before & after


async def test_what_nobody_wants_any_more_is_closed(
    database_url: str, database: asyncpg.Connection
) -> None:
    bare = asyncpg.create_pool(
        database_url, min_size=0, max_size=2, max_inactive_connection_lifetime=0.05
    )
    pool = HandedOn(await bare, kept_seconds=0.05)
    pids = await all_at_once(pool)
    left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[])"

    async def all_closed() -> bool:
        return not await database.fetchval(left, list(pids))

    await until(all_closed)
    assert len(await all_at_once(pool)) == 2
    pool.terminate()
