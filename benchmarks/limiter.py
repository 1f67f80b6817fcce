"""The limiter's price and exactness, on a Valkey of its own.

usage: python benchmarks/limiter.py [--tasks 64] [--seconds 3] [--rounds 5]

Calls/s of the coalesced script against PING, one call a task at a time, on the same server and in
turn. Overshoot: 8 clients of their own connections call without pause for more than two minutes'
windows; the most that passed in any true minute is compared with the limit.
"""

import argparse
import asyncio
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import uvloop  # noqa: E402
from redis.asyncio import BlockingConnectionPool, Redis  # noqa: E402

from storage.counters import ALLOWED, MINUTE, Ask, CountersAway, LocalCounters  # noqa: E402
from storage.redis_counters import RedisCounters  # noqa: E402
from tests.valkey import Valkey  # noqa: E402

USERS = [uuid4() for _ in range(1_000)]


def ask_of(user: UUID, per_minute: int = 1_200) -> Ask:
    return Ask(user, per_minute, 50_000_000, 0, 0)


async def rate(call: Callable[[int], Awaitable[object]], tasks: int, seconds: float) -> float:
    """Calls per second of `tasks` that each wait for an answer and call again."""
    made = 0
    end = time.perf_counter() + seconds

    async def one(n: int) -> None:
        nonlocal made
        while time.perf_counter() < end:
            await call(n + made)
            made += 1

    start = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(tasks)))
    return made / (time.perf_counter() - start)


async def speed(url: str, tasks: int, seconds: float, rounds: int) -> None:
    pool = BlockingConnectionPool.from_url(url, max_connections=32, timeout=5)
    client, counters = Redis.from_pool(pool), RedisCounters(url)
    pings, calls, away = [], [], 0

    async def spend(n: int) -> None:
        nonlocal away
        try:
            await counters.spend(ask_of(USERS[n % 1_000]))
        except CountersAway:
            away += 1

    for _ in range(rounds):
        pings.append(await rate(lambda _: client.ping(), tasks, seconds))
        calls.append(await rate(spend, tasks, seconds))
    await client.aclose()
    await counters.aclose()
    ratio = statistics.median(c / p for c, p in zip(calls, pings, strict=True))
    print(f"| calls/s of {tasks} tasks, two limits each | {statistics.median(calls):.0f} | |")
    print(f"| `PING`/s of {tasks} tasks, pool of 32 | {statistics.median(pings):.0f} | |")
    print(f"| ratio, median of {rounds} rounds | **{ratio:.2f}** | 1.0 |")
    print(f"| calls that had no answer within 50 ms | {away} | |")


def local_cost() -> None:
    counters = LocalCounters()
    asks = [ask_of(user) for user in USERS]
    start = time.process_time()
    for _ in range(200):
        for ask in asks:
            counters.spend(ask)
    cost = (time.process_time() - start) / 200_000 * 1e6
    print(f"| in the process: CPU µs a call | {cost:.2f} | 5 |")


async def overshoot(url: str, clients: int, limit: int, seconds: float) -> None:
    """`now` of a count is the server's clock, at which the request passed."""
    user, passed = uuid4(), []
    end = time.monotonic() + seconds

    async def one() -> None:
        counters = RedisCounters(url)
        while time.monotonic() < end:
            try:
                count = await counters.spend(ask_of(user, limit))
            except CountersAway:
                continue
            if count.verdict == ALLOWED:
                passed.append(count.now)
        await counters.aclose()

    await asyncio.gather(*(one() for _ in range(clients)))
    passed.sort()
    most = max(n + 1 - bisect_left(passed, at - MINUTE + 1) for n, at in enumerate(passed))
    print(f"| passed in {seconds:.0f} s at {limit} a minute, {clients} clients | {len(passed)} | |")
    print(f"| most in any minute above the limit | **{most - limit}** | 0 |")


async def measure(tasks: int, seconds: float, rounds: int) -> None:
    server = Valkey()
    server.start()
    print("| | measured | bound |\n| --- | --- | --- |")
    try:
        await speed(server.url, tasks, seconds, rounds)
        local_cost()
        await overshoot(server.url, 8, 120, 130)
    finally:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    uvloop.run(measure(options.tasks, options.seconds, options.rounds))
