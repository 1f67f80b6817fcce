"""The numbers of the whole service: the panel's first view, and its view of the system."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from core.config import Settings
from core.health import Health, Timings, examine
from core.resources import Resources
from core.traffic import SECONDS, percentile
from storage import admin, capture_health, traffic
from storage.admin_access import acting_as_admin
from storage.capture_health import SiteDay
from storage.database import Connection
from storage.job_runs import JobRun
from storage.migrate import known
from storage.missing_users import MissingUser
from storage.traffic import OfRoute, OfSpan

SAVES = ("POST /save-prompt", "POST /save-response")
SEARCHES = ("POST /search",)
# Whole hours but for the shortest: a bar of five minutes.
SPANS = {1: timedelta(seconds=SECONDS), 24: timedelta(hours=1), 168: timedelta(hours=1)}
RECENT = timedelta(hours=1)
CAPTURE_DAYS = 14


@dataclass(frozen=True, slots=True)
class Times:
    """Percentiles in milliseconds over the last hour; None where nothing was asked."""

    route: str
    requests: int
    errors: int
    refused: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    at: datetime
    users: int
    memories: int
    users_today: int
    requests_today: int
    refused_today: int
    tokens_today: int
    seconds_a_span: int
    spans: list[OfSpan]
    recent: Times
    routes: list[Times]
    capture: list[SiteDay]
    health: Health


@dataclass(frozen=True, slots=True)
class Setting:
    """`value` of a secret says only whether there is one."""

    name: str
    value: str
    is_secret: bool


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class System:
    """`missing_users` were deleted at Supabase, and wait for an operator to confirm."""

    version: str
    python: str
    postgres: str
    schema: str
    settings: list[Setting]
    tables: list[Table]
    pool_most: int
    index_budget_bytes: int
    jobs: list[JobRun]
    missing_users: list[MissingUser]
    health: Health


async def overview(resources: Resources, timings: Timings, hours: int) -> Overview:
    """`hours` is one of SPANS."""
    now = datetime.now(UTC)
    starts = _starts(now, hours)
    async with acting_as_admin(resources.db) as conn:
        users = await _users(resources, conn)
        memories = await admin.memories(conn)
        today = await admin.use_of(conn, now.date())
        spans = await traffic.by_span(conn, starts[0], SPANS[hours], SAVES, SEARCHES)
        routes = await traffic.by_route(conn, now - RECENT)
        since = now.date() - timedelta(days=CAPTURE_DAYS - 1)
        capture = await capture_health.by_site(conn, since)
    return Overview(
        at=now,
        users=users,
        memories=memories,
        users_today=today.users,
        requests_today=today.requests,
        refused_today=today.refused,
        tokens_today=today.tokens,
        seconds_a_span=int(SPANS[hours].total_seconds()),
        spans=_without_gaps(starts, spans),
        recent=_together(routes),
        routes=[_times(route) for route in routes],
        capture=capture,
        health=await examine(resources, timings),
    )


async def system(resources: Resources, timings: Timings, version: str) -> System:
    pool = resources.db
    async with acting_as_admin(pool) as conn:
        tables = [Table(*row) for row in await admin.table_sizes(conn)]
        server = conn.get_server_version()
    missing = resources.missing_users
    return System(
        version=version,
        python=platform.python_version(),
        postgres=f"{server.major}.{server.minor}",
        schema=known()[-1].stem,
        settings=without_secrets(resources.settings),
        tables=tables,
        pool_most=pool.get_max_size(),
        index_budget_bytes=resources.settings.index_memory_mb * 1024 * 1024,
        jobs=await resources.jobs.list_runs(),
        missing_users=await missing.list() if missing else [],
        health=await examine(resources, timings),
    )


def without_secrets(settings: Settings) -> list[Setting]:
    return [_setting(name, value) for name, value in settings]


def _setting(name: str, value: object) -> Setting:
    label = name.upper()
    kind = str(Settings.model_fields[name].annotation)
    if "SecretStr" in kind or "bytes" in kind:
        return Setting(label, "set" if value else "not set", True)
    if isinstance(value, tuple):
        return Setting(label, ", ".join(map(str, value)), False)
    if isinstance(value, bool):
        return Setting(label, "yes" if value else "no", False)
    text = "" if value is None else str(value)
    # An address may carry a name and a password.
    return Setting(label, text.rpartition("@")[2] if "://" in text else text, False)


async def _users(resources: Resources, conn: Connection) -> int:
    if not resources.settings.uses_supabase_auth:
        return await admin.accounts_at_home(conn)
    return sum((await admin.users_by_tier(conn)).values())


def _starts(now: datetime, hours: int) -> list[datetime]:
    span = SPANS[hours]
    last = now - (now - datetime.min.replace(tzinfo=UTC)) % span
    count = timedelta(hours=hours) // span
    return [last - span * n for n in reversed(range(count))]


def _without_gaps(starts: Sequence[datetime], spans: Sequence[OfSpan]) -> list[OfSpan]:
    found = {span.start: span for span in spans}
    return [found.get(start, OfSpan(start, 0, 0, 0, 0, 0)) for start in starts]


def _times(sums: OfRoute) -> Times:
    p50, p95, p99 = (percentile(sums.buckets, share) for share in (0.5, 0.95, 0.99))
    return Times(sums.route, sums.requests, sums.errors, sums.refused, p50, p95, p99)


def _together(routes: Sequence[OfRoute]) -> Times:
    buckets = [sum(column) for column in zip(*(one.buckets for one in routes), strict=True)]
    requests, errors, refused = (
        sum(getattr(one, name) for one in routes) for name in ("requests", "errors", "refused")
    )
    return _times(OfRoute("", requests, errors, refused, buckets))
