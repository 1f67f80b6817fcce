"""When the limiter asks Redis, when it counts alone, and what it tells whom it refuses."""

import asyncio
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import time_machine
from structlog.testing import capture_logs

from core import rate_limiter
from core.errors import RateLimitExceeded, TokensSpent, TooManyRequests
from core.plans import Account, Plan, tokens_of
from core.rate_limiter import PROBE, RateLimiter, refusal, standing
from storage.counters import (
    ALLOWED,
    DAY,
    DAY_SPENT,
    TOO_FAST,
    Ask,
    Count,
    CountersAway,
    LocalCounters,
)
from tests.conftest import until

NOW = datetime(2026, 5, 3, 23, 59, 50, tzinfo=UTC)
MICROSECONDS = int(NOW.timestamp() * 1_000_000)
MIDNIGHT = datetime(2026, 5, 4, tzinfo=UTC)
PLAN = Plan("free", per_minute=20, per_day=100, tokens_per_day=300)


class OnePlan:
    """One account, as the plans would keep it."""

    def __init__(self, plan=PLAN, used=0):
        self.account = Account(uuid4(), plan, MICROSECONDS // DAY, used, 0, 0.0)
        self.noted = []
        self.forgotten = []

    async def find(self, _):
        return self.account

    def note(self, account, count, cost):
        self.noted.append((count.verdict, cost))

    def note_tokens(self, account, count, spent):
        account.tokens = count.used_today
        self.noted.append(("tokens", spent))

    def forget(self, user_id):
        self.forgotten.append(user_id)


class Away:
    """The counters of all replicas: away as long as `error` says how, else another process'."""

    def __init__(self):
        self.error = None
        self.asked = 0
        self.spent = []
        self.forgotten = []
        self._counters = LocalCounters(clock=lambda: MICROSECONDS)

    async def spend(self, ask):
        self.asked += 1
        if self.error:
            raise self.error
        self.spent.append(ask)
        return self._counters.spend(ask)

    async def forget(self, key):
        self.forgotten.append(key)


def limiter(plans=None, remote=None):
    local = LocalCounters(clock=lambda: MICROSECONDS)
    return RateLimiter(plans or OnePlan(), local, remote)


def test_who_is_too_fast_is_told_when_there_is_room_again():
    count = Count(TOO_FAST, 70, 20, MICROSECONDS + 1_200_000, MICROSECONDS)

    error = refusal(PLAN, count)

    assert type(error) is TooManyRequests
    assert error.retry_after == 2
    assert error.details == {
        "tier": "free",
        "limit": 20,
        "remaining": 0,
        "reset_at": "2026-05-03T23:59:51.200000+00:00",
    }
    assert error.headers == {
        "RateLimit-Policy": '"minute";q=20;w=60, "day";q=100;w=86400',
        "RateLimit": '"minute";r=0;t=2, "day";r=30;t=10',
    }


def test_who_has_spent_the_day_is_told_of_midnight():
    count = Count(DAY_SPENT, 100, 3, MICROSECONDS + 30_000_000, MICROSECONDS)

    error = refusal(PLAN, count)

    assert type(error) is RateLimitExceeded
    assert (error.retry_after, error.details["limit"]) == (10, 100)
    assert error.details["reset_at"] == MIDNIGHT.isoformat()
    assert error.headers["RateLimit"] == '"minute";r=17;t=30, "day";r=0;t=10'


def test_nobody_is_told_to_come_back_at_once():
    count = Count(TOO_FAST, 70, 20, MICROSECONDS - 5, MICROSECONDS)

    assert refusal(PLAN, count).retry_after == 1


def test_an_unused_minute_has_room_now():
    now = standing(PLAN, Count(ALLOWED, 0, 0, MICROSECONDS + 60_000_000, MICROSECONDS))

    assert (now.minute.used, now.minute.remaining, now.minute.reset_at) == (0, 20, NOW)
    assert (now.day.used, now.day.remaining, now.day.reset_at) == (0, 100, MIDNIGHT)
    assert now.tier == "free"


async def test_each_request_is_noted_and_each_refusal_counted():
    plans = OnePlan(Plan("free", 2, 100, 0))
    limiting = limiter(plans)

    await limiting.spend(plans.account.user_id)
    await limiting.spend(plans.account.user_id)
    with pytest.raises(TooManyRequests):
        await limiting.spend(plans.account.user_id)
    plans.account.plan = Plan("pro", 100, 2, 0)
    with pytest.raises(RateLimitExceeded):
        await limiting.spend(plans.account.user_id)

    assert plans.noted == [(ALLOWED, 1), (ALLOWED, 1), (TOO_FAST, 0), (DAY_SPENT, 0)]
    assert limiting.refused == {("free", "minute"): 1, ("pro", "day"): 1}
    now = await limiting.standing(plans.account.user_id)
    assert (now.day.used, now.minute.used, now.tokens) == (2, 2, None)


async def test_three_failures_or_one_time_out_and_redis_is_asked_no_more():
    for timed_out, asked in ((False, 3), (True, 1)):
        remote, plans = Away(), OnePlan(Plan("free", 100, 100, 0))
        remote.error = CountersAway(timed_out=timed_out)
        limiting = limiter(plans, remote)
        assert limiting.state == "ok"

        for _ in range(5):
            await limiting.spend(plans.account.user_id)

        assert (remote.asked, limiting.state) == (asked, "degraded")
        assert (await limiting.standing(plans.account.user_id)).day.used == 5
    assert limiter().state == "off"


async def test_a_success_between_failures_begins_the_count_anew():
    remote, plans = Away(), OnePlan(Plan("free", 100, 100, 0))
    limiting = limiter(plans, remote)

    for error in (True, True, False, True, True):
        remote.error = CountersAway(timed_out=False) if error else None
        await limiting.spend(plans.account.user_id)

    assert (remote.asked, limiting.state) == (5, "ok")


async def test_tokens_are_set_aside_and_what_was_not_taken_comes_back():
    plans = OnePlan()
    limiting, user_id = limiter(plans), plans.account.user_id

    await limiting.promise_tokens(user_id, 200, at_least=50)
    await limiting.promise_tokens(user_id, 90, at_least=50)
    with time_machine.travel(NOW, tick=False), pytest.raises(TokensSpent) as spent:
        await limiting.promise_tokens(user_id, 1, at_least=10)
    assert plans.account.promised == 290
    await limiting.settle_tokens(user_id, 200, 30)
    await limiting.settle_tokens(user_id, 90, 0)

    assert spent.value.retry_after == 11
    assert spent.value.details == {
        "tier": "free",
        "limit": 300,
        "remaining": 300,
        "reset_at": MIDNIGHT.isoformat(),
    }
    assert (plans.account.promised, plans.account.tokens) == (0, 30)
    assert plans.noted == [("tokens", 30)]
    now = await limiting.standing(user_id)
    assert (now.tokens_today, now.tokens.remaining, now.tokens.reset_at) == (30, 270, MIDNIGHT)
    await limiting.promise_tokens(user_id, 1, at_least=269)
    with pytest.raises(TokensSpent):
        await limiting.promise_tokens(user_id, 1, at_least=269)


async def test_without_a_budget_any_reply_may_begin():
    plans = OnePlan(Plan("enterprise", 100, 100, 0))
    limiting = limiter(plans)

    await limiting.promise_tokens(plans.account.user_id, 10**9, at_least=10**9)
    await limiting.settle_tokens(plans.account.user_id, 2 * 10**9, 5)

    assert (plans.account.promised, plans.account.tokens) == (0, 5)


async def test_who_is_forgotten_is_forgotten_everywhere():
    remote, plans = Away(), OnePlan(Plan("free", 1, 100, 300))
    limiting, user_id = limiter(plans, remote), plans.account.user_id

    await limiting.forget(user_id)

    assert remote.forgotten == [user_id, tokens_of(user_id)]
    assert plans.forgotten == [user_id]
    alone = limiter(plans)
    await alone.spend(user_id)
    await alone.forget(user_id)
    await alone.spend(user_id)


async def test_what_was_spent_on_one_replica_is_spent_on_the_other():
    remote, plans = Away(), OnePlan(Plan("free", 2, 100, 0))
    one, other = limiter(plans, remote), limiter(plans, remote)

    await one.spend(plans.account.user_id)
    await one.spend(plans.account.user_id)

    with pytest.raises(TooManyRequests):
        await other.spend(plans.account.user_id)
    assert (await other.standing(plans.account.user_id)).minute.remaining == 0


async def test_who_was_too_fast_while_redis_was_away_is_so_when_it_is_back(monkeypatch):
    monkeypatch.setattr(rate_limiter, "PROBE_EVERY", 0.001)
    remote, plans = Away(), OnePlan(Plan("free", 2, 100, 0))
    limiting, user_id = limiter(plans, remote), plans.account.user_id
    remote.error = CountersAway(timed_out=True)
    await limiting.spend(user_id)
    await limiting.spend(user_id)
    remote.error = None
    probing = asyncio.create_task(limiting.run())

    async def is_back():
        return limiting.state == "ok"

    await until(is_back)
    probing.cancel()

    with pytest.raises(TooManyRequests):
        await limiting.spend(user_id)
    assert remote.spent == [PROBE], "who is too fast here costs Redis nothing"


async def test_each_time_redis_goes_the_day_goes_on_from_what_it_counted(monkeypatch):
    monkeypatch.setattr(rate_limiter, "PROBE_EVERY", 0.001)
    remote, plans = Away(), OnePlan(Plan("free", 100, 100, 0))
    limiting, user_id = limiter(plans, remote), plans.account.user_id
    probing = asyncio.create_task(limiting.run())

    async def is_back():
        return limiting.state == "ok"

    used = []
    with capture_logs() as logged:
        for counted in (10, 60):
            plans.account.used = counted
            remote.error = CountersAway(timed_out=True)
            await limiting.spend(user_id)
            await limiting.spend(user_id)
            used.append((await limiting.standing(user_id)).day.used)
            remote.error = None
            await until(is_back)
    probing.cancel()

    # What was asked when Redis was not yet known to be away is the account's to add.
    assert used == [12, 61]
    assert [line["event"] for line in logged] == ["redis_away", "redis_back"] * 2


def test_a_process_counts_by_the_time_of_its_machine():
    before = time.time_ns() // 1_000
    count = LocalCounters().spend(Ask(uuid4(), 1, 1, 0, 0))
    assert before <= count.now <= time.time_ns() // 1_000
