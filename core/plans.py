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
from storage.counters import ALLOWED, DAY, Ask, Count
from storage.database import DATABASE_AWAY, Pool, acting_as_meter
from storage.usage import Entitlement, Use

log = structlog.get_logger()

FRESH = 5.0  # seconds that a tier may be believed
TICK = 2.0  # seconds between two turns of writing use and renewing what is in use
MOST_ACCOUNTS = 50_000
EPOCH = date(1970, 1, 1)


class Plan(NamedTuple):
    tier: str
    per_minute: int
    per_day: int
    erased: bool = False


@dataclass(slots=True, eq=False)
class Account:
    """A user as this process knows it: `used` of `day`, of which `unwritten` is ours alone.

    `refused` are the requests of `day` that were refused here and are not written yet.
    """

    user_id: UUID
    plan: Plan
    day: int
    used: int
    unwritten: int
    read_at: float
    refused: int = 0

    def ask(self, cost: int = 1) -> Ask:
        plan = self.plan
        return Ask(self.user_id, plan.per_minute, plan.per_day, self.day, self.used, cost)

    def unwritten_use(self) -> Use:
        return Use(self.user_id, date_of(self.day), self.unwritten, self.refused)


def tiers_of(settings: Settings) -> dict[str, Plan]:
    plans = (
        Plan("free", settings.free_per_minute, settings.free_per_day),
        Plan("pro", settings.pro_per_minute, settings.pro_per_day),
        Plan("enterprise", settings.enterprise_per_minute, settings.enterprise_per_day),
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
        current = [(a, a.unwritten_use()) for a in active if a.unwritten or a.refused]
        used = past + [use for _, use in current]
        if used:
            async with acting_as_meter(self._pool) as conn:
                await usage.add(conn, _together(used))
            del self._of_past_days[: len(past)]
            self._subtract(current)
        self._active = {a for a in self._active if a.unwritten or a.refused}
        if active:
            await self._read([account.user_id for account in active])
        self._forget_some()

    def _subtract(self, written: Iterable[tuple[Account, Use]]) -> None:
        """What was spent meanwhile stays; over midnight it has moved to the past days."""
        for account, use in written:
            if date_of(account.day) == use.day:
                account.unwritten -= use.requests
                account.refused -= use.refused
            else:
                past = use._replace(requests=-use.requests, refused=-use.refused)
                self._of_past_days.append(past)

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
            new = Account(found.user_id, plan, today, found.requests, 0, now)
            self._accounts[found.user_id] = new
            return
        account.plan, account.read_at = plan, now
        self._accounts.move_to_end(found.user_id)
        self._turn_to(account, today)
        if account.day == today:
            account.used = max(account.used, found.requests + account.unwritten)

    def _plan_of(self, found: Entitlement) -> Plan:
        tier, per_minute, per_day, _ = self._tiers[found.tier or self._default]
        return Plan(
            tier,
            per_minute if found.per_minute is None else found.per_minute,
            per_day if found.per_day is None else found.per_day,
            found.erased,
        )

    def _turn_to(self, account: Account, day: int) -> None:
        if day <= account.day:
            return
        if account.unwritten or account.refused:
            self._of_past_days.append(account.unwritten_use())
        account.day, account.used, account.unwritten, account.refused = day, 0, 0, 0


def _together(used: Iterable[Use]) -> list[Use]:
    """One row for each user and day, as one statement may not touch a row twice."""
    sums: dict[tuple[UUID, date], Use] = {}
    for use in used:
        before = sums.get((use.user_id, use.day), use._replace(requests=0, refused=0))
        sums[use.user_id, use.day] = use._replace(
            requests=before.requests + use.requests, refused=before.refused + use.refused
        )
    return list(sums.values())
