"""Spends requests: in Redis, or in this process while Redis is away or not used."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

import structlog

from core.errors import AppError, RateLimitExceeded, TokensSpent, TooManyRequests
from core.plans import Account, Plan, Plans, tokens_of
from storage.counters import (
    ALLOWED,
    DAY,
    DAY_SPENT,
    MINUTE,
    TOO_FAST,
    Ask,
    Count,
    CountersAway,
    LocalCounters,
)

log = structlog.get_logger()

FAILURES = 3
PROBE_EVERY = 1.0  # seconds
# Nobody's id; its requests show that the script runs and writes.
PROBE = Ask(UUID(int=0), per_minute=1_000, per_day=1_000_000_000, day=0, used=0)


class SharedCounters(Protocol):
    async def spend(self, ask: Ask) -> Count: ...

    async def forget(self, user_id: UUID | str) -> None: ...


class Breaker:
    """Open after FAILURES failures in a row, or one time-out, until a call succeeds."""

    def __init__(self) -> None:
        self.failures = 0

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES

    def failed(self, error: CountersAway) -> bool:
        """Say whether it is the first failure in a row."""
        is_first = not self.failures
        if not self.is_open:
            self.failures = FAILURES if error.timed_out else self.failures + 1
            if self.is_open:
                log.warning("redis_away", reason=str(error))
        return is_first

    def succeeded(self) -> bool:
        """Say whether it was open."""
        was_open, self.failures = self.is_open, 0
        if was_open:
            log.warning("redis_back")
        return was_open


class Window(NamedTuple):
    limit: int
    used: int
    remaining: int
    reset_at: datetime


class Standing(NamedTuple):
    """What is left of a user's tier; `tokens` is None where no budget of them holds."""

    tier: str
    day: Window
    minute: Window
    tokens_today: int = 0
    tokens: Window | None = None


class RateLimiter:
    """No user is refused, and no request fails, because Redis is away."""

    def __init__(
        self, plans: Plans, local: LocalCounters, remote: SharedCounters | None = None
    ) -> None:
        self._plans = plans
        self._local = local
        self._remote = remote
        self._breaker = Breaker()
        self._both_until = 0.0
        # By tier and window, since the start.
        self.refused: Counter[tuple[str, str]] = Counter()

    @property
    def state(self) -> Literal["ok", "degraded", "off"]:
        if self._remote is None:
            return "off"
        return "degraded" if self._breaker.is_open else "ok"

    async def spend(self, user_id: UUID) -> None:
        """Take one request of the user's; raise RateLimitExceeded or TooManyRequests."""
        account = await self._plans.find(user_id)
        count = await self._count(account.ask())
        if count.verdict != ALLOWED:
            self._plans.note(account, count, 0)
            window = "day" if count.verdict == DAY_SPENT else "minute"
            self.refused[account.plan.tier, window] += 1
            raise refusal(account.plan, count)
        self._plans.note(account, count, 1)

    async def standing(self, user_id: UUID) -> Standing:
        """Look, and spend nothing."""
        account = await self._plans.find(user_id)
        now = standing(account.plan, await self._count(account.ask(0)))
        tokens = _tokens(account, await self._count(account.ask_tokens(0)))
        return now._replace(tokens_today=tokens.used, tokens=tokens if tokens.limit else None)

    async def promise_tokens(self, user_id: UUID, tokens: int, at_least: int) -> None:
        """Set tokens aside for a call, or raise TokensSpent where `at_least` are not left.

        `settle_tokens` must follow. A budget is overdrawn by a reply's length at most.
        """
        account = await self._plans.find(user_id)
        if account.plan.tokens_per_day:
            window = _tokens(account, await self._count(account.ask_tokens(0)))
            if window.used + account.promised + at_least >= window.limit:
                raise _tokens_spent(account.plan, window)
        account.promised += tokens

    async def settle_tokens(self, user_id: UUID, promised: int, spent: int) -> None:
        account = await self._plans.find(user_id)
        account.promised = max(account.promised - promised, 0)
        if spent:
            count = await self._count(account.ask_tokens(spent))
            self._plans.note_tokens(account, count, spent)

    async def forget(self, user_id: UUID) -> None:
        """What cannot be reached in Redis now expires by midnight UTC."""
        self._plans.forget(user_id)
        for key in (user_id, tokens_of(user_id)):
            self._local.forget(key)
            if self._remote is not None:
                await self._remote.forget(key)

    async def run(self) -> None:
        """While Redis is away, ask for it in the background: no request waits for the answer."""
        while self._remote is not None:
            await asyncio.sleep(PROBE_EVERY)
            if self._breaker.is_open:
                await self._try(self._remote, PROBE)

    async def _count(self, ask: Ask) -> Count:
        if self._remote is None or self._breaker.is_open:
            return self._local.spend(ask)
        here = self._count_here_too(ask) if self._both_until else None
        if here is not None and here.verdict == TOO_FAST:
            return here
        return await self._try(self._remote, ask) or here or self._local.spend(ask)

    def _count_here_too(self, ask: Ask) -> Count | None:
        """What passed here alone is in no log of Redis: for a minute after, both must allow."""
        if time.monotonic() < self._both_until:
            return self._local.spend(ask)
        self._both_until = 0.0
        return None

    async def _try(self, remote: SharedCounters, ask: Ask) -> Count | None:
        try:
            count = await remote.spend(ask)
        except CountersAway as error:
            if self._breaker.failed(error):
                self._local.take_over()
            return None
        if self._breaker.succeeded():
            # The day that was counted here goes on in Redis, by each account's `used`.
            self._both_until = time.monotonic() + MINUTE / 1_000_000
        return count


def standing(plan: Plan, count: Count) -> Standing:
    midnight = (count.now // DAY + 1) * DAY
    free_at = count.free_at if count.used_in_minute else count.now
    day = _window(plan.per_day, count.used_today, midnight)
    return Standing(plan.tier, day, _window(plan.per_minute, count.used_in_minute, free_at))


def _tokens(account: Account, count: Count) -> Window:
    return _window(account.plan.tokens_per_day, count.used_today, (count.now // DAY + 1) * DAY)


def _tokens_spent(plan: Plan, window: Window) -> TokensSpent:
    error = TokensSpent(
        tier=plan.tier,
        limit=window.limit,
        remaining=window.remaining,
        reset_at=window.reset_at.isoformat(),
    )
    error.retry_after = max(int((window.reset_at - datetime.now(UTC)).total_seconds()) + 1, 1)
    return error


def _window(limit: int, used: int, reset_at: int) -> Window:
    at = datetime.fromtimestamp(reset_at / 1_000_000, UTC)
    return Window(limit, used, max(limit - used, 0), at)


def refusal(plan: Plan, count: Count) -> AppError:
    now = standing(plan, count)
    is_spent = count.verdict == DAY_SPENT
    kind = RateLimitExceeded if is_spent else TooManyRequests
    window = now.day if is_spent else now.minute
    error = kind(
        tier=plan.tier, limit=window.limit, remaining=0, reset_at=window.reset_at.isoformat()
    )
    error.retry_after = _seconds_until(window, count)
    error.headers = {
        "RateLimit-Policy": f'"minute";q={plan.per_minute};w={MINUTE // 1_000_000}, '
        f'"day";q={plan.per_day};w={DAY // 1_000_000}',
        "RateLimit": f'"minute";r={now.minute.remaining};t={_seconds_until(now.minute, count)}, '
        f'"day";r={now.day.remaining};t={_seconds_until(now.day, count)}',
    }
    return error


def _seconds_until(window: Window, count: Count) -> int:
    """Rounded up, so that a client that waits as long is not refused again."""
    return max(-int((count.now / 1_000_000 - window.reset_at.timestamp()) // 1), 1)
