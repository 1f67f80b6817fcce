"""What each user may spend, as Postgres says it, and what each has spent, on its way there."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple, TypeAlias
from uuid import UUID

import structlog

from core.config import Settings
from storage import usage
from storage.counters import DAY, NO_MINUTE, Ask, Count
from storage.database import DATABASE_AWAY, Pool, acting_as_meter
from storage.usage import Entitlement

log = structlog.get_logger()

FRESH = 5.0  # seconds that a tier may be believed
TICK = 2.0  # seconds between two turns of writing use and renewing what is in use
MOST_ACCOUNTS = 50_000
EPOCH = date(1970, 1, 1)
UNLIMITED = 10**15
# A user, a day, and the requests and tokens spent of it.
Used: TypeAlias = tuple[UUID, date, int, int]


class Plan(NamedTuple):
    """`tokens_per_day` are those of the operator's keys; 0 is without a limit."""

    tier: str
    per_minute: int
    per_day: int
    tokens_per_day: int


@dataclass(slots=True, eq=False)
class Account:
    """A user as this process knows it: `used` of `day`, of which `unwritten` is ours alone.

    `promised` are the tokens that calls on their way may take.
    """

    user_id: UUID
    plan: Plan
    day: int
    used: int
    unwritten: int
    read_at: float
    tokens: int = 0
    unwritten_tokens: int = 0
    promised: int = 0

    def ask(self, cost: int = 1) -> Ask:
        plan = self.plan
        return Ask(self.user_id, plan.per_minute, plan.per_day, self.day, self.used, cost)

    def ask_tokens(self, cost: int) -> Ask:
        """What a reply took is never refused: only the next call can be."""
        return Ask(self.user_id, NO_MINUTE, UNLIMITED, self.day, self.tokens, cost, "tokens")


def date_of(day: int) -> date:
    return EPOCH + timedelta(days=day)


class Plans:
    """A cache of accounts. Those in use are renewed, and their use written, every TICK."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._default = settings.newcomers_tier
        self._tiers = {
            "free": Plan(
                "free",
                settings.free_per_minute,
                settings.free_per_day,
                settings.free_tokens_per_day,
            ),
            "pro": Plan(
                "pro", settings.pro_per_minute, settings.pro_per_day, settings.pro_tokens_per_day
            ),
            "enterprise": Plan(
                "enterprise",
                settings.enterprise_per_minute,
                settings.enterprise_per_day,
                settings.enterprise_tokens_per_day,
            ),
        }
        self._accounts: OrderedDict[UUID, Account] = OrderedDict()
        self._active: set[Account] = set()
        self._of_past_days: list[Used] = []
        self._wanted: set[UUID] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def find(self, user_id: UUID) -> Account:
        """Raise what means that the database is away, for a user who is not known yet."""
        account = self._accounts.get(user_id)
        if account is not None and time.monotonic() - account.read_at < FRESH:
            return account
        try:
            await self._read_soon(user_id)
        except DATABASE_AWAY:
            if account is None:
                raise
            return account
        return self._accounts[user_id]

    def note(self, account: Account, count: Count, cost: int) -> None:
        """Keep what the counters said; `cost` was spent."""
        self._turn_to(account, count.now // DAY)
        account.used = max(account.used, count.used_today)
        account.unwritten += cost
        self._active.add(account)

    def note_tokens(self, account: Account, count: Count, cost: int) -> None:
        self._turn_to(account, count.now // DAY)
        account.tokens = max(account.tokens, count.used_today)
        account.unwritten_tokens += cost
        self._active.add(account)

    async def run(self) -> None:
        """Work until `close`, and then write what is left."""
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._closing.wait()
            try:
                await self.write()
            except DATABASE_AWAY as error:
                log.warning("use_not_written", error=type(error).__name__)

    def close(self) -> None:
        self._closing.set()

    async def write(self) -> None:
        """Write the use of active accounts, and read them anew."""
        active, past = list(self._active), self._of_past_days
        current = [
            (a, a.day, a.unwritten, a.unwritten_tokens)
            for a in active
            if a.unwritten or a.unwritten_tokens
        ]
        used = past + [(a.user_id, date_of(day), n, tokens) for a, day, n, tokens in current]
        if used:
            async with acting_as_meter(self._pool) as conn:
                await usage.add(conn, _together(used))
            del self._of_past_days[: len(past)]
            self._subtract(current)
        self._active = {a for a in self._active if a.unwritten or a.unwritten_tokens}
        if active:
            await self._read([account.user_id for account in active])
        self._forget_some()

    def _subtract(self, written: Iterable[tuple[Account, int, int, int]]) -> None:
        """What was spent meanwhile stays; over midnight it has moved to the past days."""
        for account, day, requests, tokens in written:
            if account.day == day:
                account.unwritten -= requests
                account.unwritten_tokens -= tokens
            else:
                self._of_past_days.append((account.user_id, date_of(day), -requests, -tokens))

    def _forget_some(self) -> None:
        while len(self._accounts) > MOST_ACCOUNTS:
            user_id, account = next(iter(self._accounts.items()))
            if account in self._active:
                return
            del self._accounts[user_id]

    async def _read_soon(self, user_id: UUID) -> None:
        """Read together with all others that are asked for in the same turn of the loop."""
        self._wanted.add(user_id)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_wanted())
        await asyncio.shield(self._reading)

    async def _read_wanted(self) -> None:
        wanted, self._wanted, self._reading = list(self._wanted), set(), None
        await self._read(wanted)

    async def _read(self, user_ids: list[UUID]) -> None:
        now, today = time.monotonic(), int(time.time() // 86_400)
        async with acting_as_meter(self._pool) as conn:
            found = await usage.read(conn, user_ids, date_of(today))
        for entitlement in found:
            self._learn(entitlement, today, now)

    def _learn(self, found: Entitlement, today: int, now: float) -> None:
        plan = self._plan_of(found)
        account = self._accounts.get(found.user_id)
        if account is None:
            new = Account(found.user_id, plan, today, found.requests, 0, now, found.tokens)
            self._accounts[found.user_id] = new
            return
        account.plan, account.read_at = plan, now
        self._accounts.move_to_end(found.user_id)
        self._turn_to(account, today)
        if account.day == today:
            account.used = max(account.used, found.requests + account.unwritten)
            account.tokens = max(account.tokens, found.tokens + account.unwritten_tokens)

    def _plan_of(self, found: Entitlement) -> Plan:
        tier = self._tiers[found.tier or self._default]
        return Plan(
            tier.tier,
            tier.per_minute if found.per_minute is None else found.per_minute,
            tier.per_day if found.per_day is None else found.per_day,
            tier.tokens_per_day,
        )

    def _turn_to(self, account: Account, day: int) -> None:
        if day <= account.day:
            return
        if account.unwritten or account.unwritten_tokens:
            spent = account.unwritten, account.unwritten_tokens
            self._of_past_days.append((account.user_id, date_of(account.day), *spent))
        account.day, account.used, account.unwritten = day, 0, 0
        account.tokens, account.unwritten_tokens = 0, 0


def _together(used: Iterable[Used]) -> list[Used]:
    """One row for each user and day, as one statement may not touch a row twice."""
    sums: dict[tuple[UUID, date], tuple[int, int]] = {}
    for user_id, day, requests, tokens in used:
        before = sums.get((user_id, day), (0, 0))
        sums[user_id, day] = before[0] + requests, before[1] + tokens
    return [(user_id, day, *spent) for (user_id, day), spent in sums.items()]
