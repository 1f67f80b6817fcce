"""What the operator reads and does: users, their plans, and the numbers of the service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from uuid import UUID

from core.admin_access import Operator
from core.directory import Page, Source
from core.erasure import Receipt
from core.errors import InvalidInput, NotFound
from core.plans import tiers_of
from core.resources import Resources
from storage import admin, admin_access
from storage.admin import Account, Standing
from storage.admin_access import Deed, acting_as_admin
from storage.database import Connection
from storage.job_runs import JobRun

Tier = Literal["free", "pro", "enterprise"]
DAYS = 30
PAGE = 25
MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Person:
    """A user with what the limits say now. `tier_is_default` while nobody gave a tier, and limits
    in `overrides` are this user's own. `last_seen` is a day: nothing finer is kept. Tokens are
    those of the operator's keys for model providers; 0 a day is without a limit."""

    id: UUID
    email: str | None
    name: str | None
    created_at: datetime | None
    last_seen: date | None
    tier: str
    tier_is_default: bool
    per_minute: int
    per_day: int
    override_per_minute: int | None
    override_per_day: int | None
    memories: int
    requests_today: int
    refused_today: int
    tokens_today: int
    tokens_per_day: int


@dataclass(frozen=True, slots=True)
class People:
    """`source` is "ids" where nobody may be asked for e-mail addresses; `complete` is False where
    there were more accounts than could be looked through."""

    people: list[Person]
    has_more: bool
    complete: bool
    source: Source


@dataclass(frozen=True, slots=True)
class DayOfUse:
    day: date
    requests: int
    refused: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Details:
    person: Person
    days: list[DayOfUse]
    deeds: list[Deed]


@dataclass(frozen=True, slots=True)
class TierInUse:
    tier: str
    per_minute: int
    per_day: int
    tokens_per_day: int
    users: int
    is_default: bool


@dataclass(frozen=True, slots=True)
class LimitsInUse:
    """`overrides` are the users with limits of their own; `spenders` are those of
    today's model tokens; `refused` counts seven days."""

    tiers: list[TierInUse]
    overrides: list[Person]
    busiest: list[Person]
    spenders: list[Person]
    refused: list["Refused"]


@dataclass(frozen=True, slots=True)
class Refused:
    person: Person
    refused: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operator gives a user; None is the service's default."""

    tier: Tier | None
    per_minute: int | None
    per_day: int | None


async def find_people(resources: Resources, wanted: str, number: int) -> People:
    """Find by e-mail address or, when `wanted` is one, by id."""
    page = await _page(resources, wanted.strip(), number)
    people = await _people(resources, [account.id for account in page.accounts], page.accounts)
    return People(people, page.has_more, page.complete, resources.directory.source)


async def _page(resources: Resources, wanted: str, number: int) -> Page:
    try:
        user_id = UUID(wanted)
    except ValueError:
        return await resources.directory.page(wanted, number, PAGE)
    account = await _account(resources, user_id)
    return Page([account] if account else [], has_more=False)


async def _account(resources: Resources, user_id: UUID) -> Account | None:
    """A user whom the sign-in no longer knows may still have memories here."""
    found = await resources.directory.of([user_id])
    if user_id in found:
        return found[user_id]
    async with acting_as_admin(resources.db) as conn:
        known = await admin.is_known(conn, user_id)
    return Account(user_id, None, None, None, None) if known else None


async def details(resources: Resources, user_id: UUID) -> Details:
    account = await _required(resources, user_id)
    (person,) = await _people(resources, [user_id], [account])
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in reversed(range(DAYS))]
    async with acting_as_admin(resources.db) as conn:
        used = await admin.use_by_day(conn, user_id, days[0])
        deeds = await admin_access.deeds(conn, None, MOST_LISTED, user_id)
    return Details(person, [DayOfUse(day, *used.get(day, (0, 0, 0))) for day in days], deeds)


async def _required(resources: Resources, user_id: UUID) -> Account:
    account = await _account(resources, user_id)
    if account is None:
        raise NotFound("There is no user with this id.")
    return account


async def change_plan(
    resources: Resources, operator: Operator, user_id: UUID, plan: Plan
) -> bool | None:
    """Say whether the sign-in shows the tier as well; what holds is ours."""
    await _required(resources, user_id)
    async with acting_as_admin(resources.db) as conn:
        (before,) = await admin.standings(conn, [user_id], datetime.now(UTC).date())
        await admin.set_plan(conn, user_id, plan.tier, plan.per_minute, plan.per_day)
        changes = {
            name: {"from": old, "to": new}
            for name in ("tier", "per_minute", "per_day")
            if (old := getattr(before, name)) != (new := getattr(plan, name))
        }
        await _note(conn, operator, "plan_changed", user_id, changes)
    tier = plan.tier or resources.settings.newcomers_tier
    return await resources.directory.mirror_tier(user_id, tier)


async def export(resources: Resources, operator: Operator, user_id: UUID) -> AsyncIterator[bytes]:
    """Return a zip of all memories as it is made; read as that user, and put on record first."""
    await _required(resources, user_id)
    async with acting_as_admin(resources.db) as conn:
        await _note(conn, operator, "account_exported", user_id)
    return await resources.past.exports.begin(user_id, None)


async def erase(resources: Resources, operator: Operator, user_id: UUID, typed: str) -> Receipt:
    """Erase the account; `typed` must be the user's id or e-mail address, else InvalidInput."""
    account = await _required(resources, user_id)
    if typed not in (str(user_id), account.email):
        fields = [{"path": "body.typed", "message": "is neither the user's address nor the id"}]
        raise InvalidInput("Type the user's e-mail address or id to confirm.", fields=fields)
    return await _erase(resources, operator, user_id, resources.erasures.erase_account)


async def erase_missing(
    resources: Resources, operator: Operator, user_id: UUID, typed: str
) -> Receipt:
    """Erase a user who was deleted at Supabase; `typed` must be the id, else InvalidInput."""
    if resources.missing_users is None:
        raise NotFound("This server has no directory of users to compare with.")
    if typed != str(user_id):
        fields = [{"path": "body.typed", "message": "is not the user's id"}]
        raise InvalidInput("Type the user's id to confirm.", fields=fields)
    return await _erase(resources, operator, user_id, resources.missing_users.confirm_erasure)


async def _erase(
    resources: Resources,
    operator: Operator,
    user_id: UUID,
    work: Callable[[UUID], Awaitable[Receipt]],
) -> Receipt:
    """Put the intent on record first: what is cut short here is finished in the background."""
    async with acting_as_admin(resources.db) as conn:
        await _note(conn, operator, "erasure_ordered", user_id)
    receipt = await work(user_id)
    counts = {"erased": dict(receipt.erased), "sign_in": receipt.sign_in}
    async with acting_as_admin(resources.db) as conn:
        await _note(conn, operator, "account_erased", user_id, counts)
    return receipt


async def run_job(resources: Resources, operator: Operator, name: str) -> JobRun:
    """Run it now; raise NotFound for a name that no job has."""
    run = await resources.jobs.run_now(name)
    async with acting_as_admin(resources.db) as conn:
        await _note(conn, operator, "job_run", details={"job": name, "outcome": run.outcome})
    return run


async def limits(resources: Resources) -> LimitsInUse:
    today = datetime.now(UTC).date()
    async with acting_as_admin(resources.db) as conn:
        users = await admin.users_by_tier(conn)
        overrides = await admin.with_overrides(conn, MOST_LISTED)
        busiest = [one.user_id for one in await admin.busiest(conn, today, MOST_LISTED)]
        spenders = await admin.most_tokens(conn, today, MOST_LISTED)
        refused = await admin.most_refused(conn, today - timedelta(days=6), MOST_LISTED)
    refused_ids = [one.user_id for one in refused]
    listed = await _named(resources, {*overrides, *busiest, *spenders, *refused_ids})
    default = resources.settings.newcomers_tier
    return LimitsInUse(
        [
            TierInUse(
                plan.tier,
                plan.per_minute,
                plan.per_day,
                plan.tokens_per_day,
                users.get(plan.tier, 0) + (users.get(None, 0) if plan.tier == default else 0),
                plan.tier == default,
            )
            for plan in tiers_of(resources.settings).values()
        ],
        [listed[user_id] for user_id in overrides],
        [listed[user_id] for user_id in busiest],
        [listed[user_id] for user_id in spenders],
        [Refused(listed[one.user_id], one.refused) for one in refused],
    )


async def rebuild_cache(resources: Resources, operator: Operator, user_id: UUID) -> None:
    """Every replica reads this user's memories anew with the next search."""
    async with acting_as_admin(resources.db) as conn:
        if not await admin.begin_epoch(conn, user_id):
            raise NotFound("This user has nothing saved.")
        await _note(conn, operator, "cache_rebuilt", user_id)


async def record(resources: Resources, before: int | None, limit: int) -> list[Deed]:
    async with acting_as_admin(resources.db) as conn:
        return await admin_access.deeds(conn, before, limit)


async def _note(
    conn: Connection,
    operator: Operator,
    action: str,
    user_id: UUID | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    await admin_access.note(conn, operator.name, operator.address, action, user_id, details)


async def _named(resources: Resources, user_ids: set[UUID]) -> dict[UUID, Person]:
    ids = sorted(user_ids)
    accounts = await resources.directory.of(ids)
    people = await _people(resources, ids, list(accounts.values()))
    return {person.id: person for person in people}


async def _people(
    resources: Resources, user_ids: Sequence[UUID], accounts: Sequence[Account]
) -> list[Person]:
    async with acting_as_admin(resources.db) as conn:
        found = await admin.standings(conn, user_ids, datetime.now(UTC).date())
    known = {account.id: account for account in accounts}
    return [
        _person(resources, one, known.get(one.user_id, Account(one.user_id, *[None] * 4)))
        for one in found
    ]


def _person(resources: Resources, standing: Standing, account: Account) -> Person:
    plan = tiers_of(resources.settings)[standing.tier or resources.settings.newcomers_tier]
    seen = (account.last_sign_in_at, standing.changed_at)
    days = [time.astimezone(UTC).date() for time in seen if time]
    if standing.last_day:
        days.append(standing.last_day)
    return Person(
        id=account.id,
        email=account.email,
        name=account.name,
        created_at=account.created_at,
        last_seen=max(days, default=None),
        tier=plan.tier,
        tier_is_default=standing.tier is None,
        per_minute=plan.per_minute if standing.per_minute is None else standing.per_minute,
        per_day=plan.per_day if standing.per_day is None else standing.per_day,
        override_per_minute=standing.per_minute,
        override_per_day=standing.per_day,
        memories=standing.memories,
        requests_today=standing.requests_today,
        refused_today=standing.refused_today,
        tokens_today=standing.tokens_today,
        tokens_per_day=plan.tokens_per_day,
    )
