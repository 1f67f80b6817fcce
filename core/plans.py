"""What each user may spend, as Postgres says it, and what each has spent, on its way there."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog

from core.config import Settings
from core.errors import AccountErased
from storage import usage
from storage.counters import ALLOWED, DAY, NO_MINUTE, Ask, Count
from storage.database import DATABASE_AWAY, Pool, acting_as_meter
from storage.usage import Entitlement, Use

log = structlog.get_logger()

FRESH = 5.0  # seconds that a tier may be believed
TICK = 2.0  # seconds between two turns of writing use and renewing what is in use
MOST_ACCOUNTS = 50_000
EPOCH = date(1970, 1, 1)
UNLIMITED = 10**15


class Plan(NamedTuple):
    """`tokens_per_day` are those of the operator's keys; 0 is without a limit."""

    tier: str
    per_minute: int
    per_day: int
    tokens_per_day: int
    erased: bool = False


@dataclass(slots=True, eq=False)
class Account:
    """A user as this process knows it: `used` of `day`, of which `unwritten` is ours alone.

    `refused` are the requests of `day` that were refused here and are not written yet. `promised`
    are the tokens that calls on their way may take.
    """

    user_id: UUID
    plan: Plan
    day: int
    used: int
    unwritten: int
    read_at: float
    refused: int = 0
    tokens: int = 0
    unwritten_tokens: int = 0
    promised: int = 0

    def ask(self, cost: int = 1) -> Ask:
        plan = self.plan
        return Ask(self.user_id, plan.per_minute, plan.per_day, self.day, self.used, cost)

    def ask_tokens(self, cost: int) -> Ask:
        """What a reply took is never refused: only the next call can be."""
        key = tokens_of(self.user_id)
        return Ask(key, NO_MINUTE, UNLIMITED, self.day, self.tokens, cost)

    @property
    def has_unwritten(self) -> bool:
        return bool(self.unwritten or self.refused or self.unwritten_tokens)

    def unwritten_use(self) -> Use:
        day = date_of(self.day)
        return Use(self.user_id, day, self.unwritten, self.refused, self.unwritten_tokens)


def tokens_of(user_id: UUID) -> str:
    """The name that a user's tokens are counted under."""
    return f"{user_id}:tokens"


def tiers_of(settings: Settings) -> dict[str, Plan]:
    plans = (
        Plan("free", settings.free_per_minute, settings.free_per_day, settings.free_tokens_per_day),
        Plan("pro", settings.pro_per_minute, settings.pro_per_day, settings.pro_tokens_per_day),
        Plan(
            "enterprise",
            settings.enterprise_per_minute,
            settings.enterprise_per_day,
            settings.enterprise_tokens_per_day,
        ),
    )
    return {plan.tier: plan for plan in plans}


def date_of(day: int) -> date:
    return EPOCH + timedelta(days=day)


class Plans:
    """A cache of accounts. Those in use are renewed, and their use written, every TICK."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._default = settings.newcomers_tier
        self._tiers = tiers_of(settings)
        self._accounts: OrderedDict[UUID, Account] = OrderedDict()
        self._active: set[Account] = set()
        self._of_past_days: list[Use] = []
        self._wanted: set[UUID] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def find(self, user_id: UUID) -> Account:
        """Raise AccountErased, or for an unknown user what means that the database is away."""
        account = self._accounts.get(user_id)
        if account is None or time.monotonic() - account.read_at >= FRESH:
            try:
                await self._read_soon(user_id)
            except DATABASE_AWAY:
                if account is None:
                    raise
            account = self._accounts.get(user_id, account)
        if account is None or account.plan.erased:
            raise AccountErased
        return account

    def forget(self, user_id: UUID) -> None:
        """Of an erased account; use that is still to be written is refused there."""
        account = self._accounts.pop(user_id, None)
        if account is not None:
            self._active.discard(account)

    def note(self, account: Account, count: Count, cost: int) -> None:
        """Keep what the counters said; `cost` was spent."""
        self._turn_to(account, count.now // DAY)
        account.used = max(account.used, count.used_today)
        account.unwritten += cost
        account.refused += count.verdict != ALLOWED
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
        active, past = list(self._active), list(self._of_past_days)
        current = [(a, a.unwritten_use()) for a in active if a.has_unwritten]
        used = past + [use for _, use in current]
        if used:
            async with acting_as_meter(self._pool) as conn:
                await usage.add(conn, _together(used))
            del self._of_past_days[: len(past)]
            self._subtract(current)
        self._active = {a for a in self._active if a.has_unwritten}
        if active:
            await self._read([account.user_id for account in active])
        self._forget_some()

    def _subtract(self, written: Iterable[tuple[Account, Use]]) -> None:
        """What was spent meanwhile stays; over midnight it has moved to the past days."""
        for account, use in written:
            if date_of(account.day) == use.day:
                account.unwritten -= use.requests
                account.refused -= use.refused
                account.unwritten_tokens -= use.tokens
            else:
                spent = (-use.requests, -use.refused, -use.tokens)
                self._of_past_days.append(Use(use.user_id, use.day, *spent))

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
            new = Account(found.user_id, plan, today, found.requests, 0, now, tokens=found.tokens)
            self._accounts[found.user_id] = new
            return
        account.plan, account.read_at = plan, now
        self._accounts.move_to_end(found.user_id)
        self._turn_to(account, today)
        if account.day == today:
            account.used = max(account.used, found.requests + account.unwritten)
            account.tokens = max(account.tokens, found.tokens + account.unwritten_tokens)

    def _plan_of(self, found: Entitlement) -> Plan:
        plan = self._tiers[found.tier or self._default]
        return plan._replace(
            per_minute=plan.per_minute if found.per_minute is None else found.per_minute,
            per_day=plan.per_day if found.per_day is None else found.per_day,
            erased=found.erased,
        )

    def _turn_to(self, account: Account, day: int) -> None:
        if day <= account.day:
            return
        if account.has_unwritten:
            self._of_past_days.append(account.unwritten_use())
        account.day, account.used, account.unwritten, account.refused = day, 0, 0, 0
        account.tokens, account.unwritten_tokens = 0, 0


def _together(used: Iterable[Use]) -> list[Use]:
    """One row for each user and day, as one statement may not touch a row twice."""
    sums: dict[tuple[UUID, date], Use] = {}
    for use in used:
        key = use.user_id, use.day
        before = sums.get(key, Use(*key))
        spent = (a + b for a, b in zip(before[2:], use[2:], strict=True))
        sums[key] = Use(*key, *spent)
    return list(sums.values())
