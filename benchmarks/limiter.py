"""The limiter's price and exactness, on a Valkey of its own.

usage: python benchmarks/limiter.py [--tasks 64] [--seconds 3] [--rounds 5]

Calls/s of the coalesced script against PING, one call a task at a time, on the same server and in
turn. Overshoot: 8 clients of their own connections call without pause for more than two minutes'
windows; the most that passed in any true minute is compared with the limit. Failover: the same with
two replicas of the whole limiter, while the server is killed and another, empty one comes up. A
server that hangs: what the first call waits for it, and what the calls after that cost.
"""

import argparse
import asyncio
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import uvloop  # noqa: E402
from redis.asyncio import BlockingConnectionPool, Redis  # noqa: E402

from core.errors import TooManyRequests  # noqa: E402
from core.plans import Account, Plan, Plans  # noqa: E402
from core.rate_limiter import RateLimiter  # noqa: E402
from storage.counters import (  # noqa: E402
    ALLOWED,
    MINUTE,
    Ask,
    Count,
    CountersAway,
    LocalCounters,
)
from storage.redis_counters import RedisCounters  # noqa: E402
from tests.valkey import Valkey  # noqa: E402

USERS = [uuid4() for _ in range(1_000)]


def ask_of(user: UUID, per_minute: int = 1_200) -> Ask:
    return Ask(user, per_minute, 50_000_000, 0, 0)


async def rate(
    call: Callable[[int], Awaitable[object]], tasks: int, seconds: float
) -> tuple[float, float]:
    """Calls per second of `tasks` that each wait for an answer and call again, and the CPU time
    of this process a call, in microseconds."""
    made = 0
    cpu = time.process_time()
    end = time.perf_counter() + seconds

    async def one(n: int) -> None:
        nonlocal made
        while time.perf_counter() < end:
            await call(n + made)
            made += 1

    start = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(tasks)))
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    return made / took, cpu / made * 1e6


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
    ratio = statistics.median(c[0] / p[0] for c, p in zip(calls, pings, strict=True))
    (rate_of_calls, cpu_of_calls), (rate_of_pings, cpu_of_pings) = (
        [statistics.median(column) for column in zip(*rows, strict=True)] for rows in (calls, pings)
    )
    print(f"| calls/s of {tasks} tasks, two limits each | {rate_of_calls:.0f} | |")
    print(f"| `PING`/s of {tasks} tasks, pool of 32 | {rate_of_pings:.0f} | |")
    print(f"| ratio, median of {rounds} rounds | **{ratio:.2f}** | 1.0 |")
    print(f"| CPU µs of the process: a call, a `PING` | {cpu_of_calls:.0f}, {cpu_of_pings:.0f} | |")
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


def most_in_a_minute(passed: list[int]) -> int:
    passed.sort()
    return max(n + 1 - bisect_left(passed, at - MINUTE + 1) for n, at in enumerate(passed))


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
    most = most_in_a_minute(passed)
    print(f"| passed in {seconds:.0f} s at {limit} a minute, {clients} clients | {len(passed)} | |")
    print(f"| most in any minute above the limit | **{most - limit}** | 0 |")


class OnePlan:
    """The limits of one user, as Postgres would say them."""

    def __init__(self, per_minute: int) -> None:
        plan = Plan("free", per_minute, 50_000_000, tokens_per_day=0)
        self._account = Account(uuid4(), plan, int(time.time() // 86_400), 0, 0, 0.0)

    async def find(self, _: UUID) -> Account:
        return self._account

    def note(self, account: Account, count: Count, cost: int) -> None:
        account.used = max(account.used, count.used_today)


def limiter(url: str, plans: OnePlan, replicas: int) -> tuple[RateLimiter, RedisCounters]:
    remote = RedisCounters(url)
    return RateLimiter(cast("Plans", plans), LocalCounters(replicas), remote), remote


async def failover(server: Valkey, clients: int, limit: int) -> None:
    """The server dies after 20 s, an empty one is there at 30 s, and all goes on to 110 s."""
    plans, passed = OnePlan(limit), []
    replicas = [limiter(server.url, plans, 2) for _ in range(2)]
    begin = time.monotonic()

    async def one(limiting: RateLimiter) -> None:
        while time.monotonic() < begin + 110:
            try:
                await limiting.spend(UUID(int=1))
            except TooManyRequests:
                await asyncio.sleep(0.002)
            else:
                passed.append(time.time_ns() // 1_000)

    probes = [asyncio.create_task(limiting.run()) for limiting, _ in replicas]
    saturating = asyncio.gather(*(one(replicas[n % 2][0]) for n in range(clients)))
    await asyncio.sleep(20)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(10)
    await asyncio.to_thread(server.start)
    await saturating
    for probe, (_, remote) in zip(probes, replicas, strict=True):
        probe.cancel()
        await remote.aclose()
    most = most_in_a_minute(passed)
    print(f"| most in any minute across a failover, limit {limit} | **{most}** | {2 * limit} + 1 |")


async def hang(server: Valkey) -> None:
    limiting, remote = limiter(server.url, OnePlan(50_000_000), 1)
    user = UUID(int=1)
    await limiting.spend(user)
    server.freeze()
    start = time.perf_counter()
    await limiting.spend(user)
    first = time.perf_counter() - start
    for _ in range(10_000):
        await limiting.spend(user)
    each = (time.perf_counter() - start - first) / 10_000
    server.thaw()
    await remote.aclose()
    print(f"| Redis hangs: the first call waits, ms | {first * 1_000:.1f} | 60 |")
    print(f"| Redis hangs: a call after that, ms | {each * 1_000:.4f} | 1 |")


async def measure(tasks: int, seconds: float, rounds: int, whole_minutes: bool) -> None:
    server = Valkey()
    server.start()
    print("| | measured | bound |\n| --- | --- | --- |")
    try:
        await speed(server.url, tasks, seconds, rounds)
        local_cost()
        await hang(server)
        if whole_minutes:
            await overshoot(server.url, 8, 120, 130)
            await failover(server, 8, 120)
    finally:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="without what takes whole minutes")
    options = parser.parse_args()
    uvloop.run(measure(options.tasks, options.seconds, options.rounds, not options.short))
