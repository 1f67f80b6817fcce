"""Everything that is opened once, in one block; leaving the block closes it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

import httpx

from core import faults
from core.activity import Activities
from core.admin_access import AdminAccess
from core.admin_keys import key_at_home
from core.auth import TokenVerifier
from core.bad_tokens import BadTokens
from core.collector import spare_the_collector
from core.config import Settings, SettingsError
from core.directory import Directory, make_directory
from core.embedding_worker import EmbeddingWorker
from core.embeddings import Embedder, make_embedder
from core.erasure import Erasures
from core.errands import Errands
from core.exporting import Exports
from core.faults import Faults
from core.import_jobs import ImportJobs
from core.jobs import Jobs
from core.jwks import RemoteKeys
from core.local_auth import LocalAuth
from core.missing_users import MissingUsers
from core.plans import Plans
from core.providers.registry import Providers
from core.pulse import Pulse
from core.rate_limiter import RateLimiter
from core.request_metrics import RequestMetrics
from core.retrieval import Retrieval
from core.save_queue import SaveQueue
from core.signing_keys import load_or_create_keys
from core.supabase_users import SupabaseUsers, supabase_users
from core.tokens import ApiTokens
from core.traffic import Traffic
from core.upkeep import all_jobs
from storage.counters import LocalCounters
from storage.database import DATABASE_AWAY, Pool, open_pool
from storage.migrate import migrate


class Past(NamedTuple):
    """A person's past, brought in and taken away."""

    imports: ImportJobs
    exports: Exports


@dataclass(frozen=True, slots=True)
class Resources:
    settings: Settings
    db: Pool
    http: httpx.AsyncClient
    verifier: TokenVerifier
    tokens: ApiTokens
    bad_tokens: BadTokens
    limiter: RateLimiter
    local_auth: LocalAuth | None
    embedder: Embedder | None
    worker: EmbeddingWorker | None
    saves: SaveQueue
    retrieval: Retrieval
    activities: Activities
    past: Past
    faults: Faults
    requests: RequestMetrics
    pulse: Pulse
    traffic: Traffic
    admin: AdminAccess
    directory: Directory
    erasures: Erasures
    missing_users: MissingUsers | None
    jobs: Jobs
    providers: Providers
    errands: Errands


@asynccontextmanager
async def open_resources(
    settings: Settings, report: Callable[[str], None] = print
) -> AsyncIterator[Resources]:
    """Open all parts in order.

    Raises SettingsError, ModelUnavailable, DataFolderInUse and PostgresDidNotStart, each with one
    line for the operator.
    """
    async with AsyncExitStack() as stack:
        resources = await _open(settings, report, stack)
        spare_the_collector()
        yield resources


async def _open(
    settings: Settings, report: Callable[[str], None], stack: AsyncExitStack
) -> Resources:
    reporter = _faults(settings, stack)
    embedder = await _embedder(settings, stack)
    db, url = await _database(settings, stack, report)
    http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
    verifier, local_auth = await _auth(settings, db, http, stack)
    limiter = await _limiter(settings, db, stack)
    retrieval = _retrieval(settings, db, embedder, stack)
    tokens, activities = ApiTokens(db), Activities(db)
    project = supabase_users(settings, http)
    erasures = _erasures(db, local_auth, project, limiter, retrieval, activities, verifier, tokens)
    missing_users, jobs = await _upkeep(db, retrieval, project, erasures, stack)
    worker, saves = await _saving(db, embedder, stack)
    providers, errands = _asking(settings, stack)
    return Resources(
        settings=settings,
        db=db,
        http=http,
        verifier=verifier,
        tokens=tokens,
        bad_tokens=BadTokens(settings.bad_tokens_per_minute),
        limiter=limiter,
        local_auth=local_auth,
        embedder=embedder,
        worker=worker,
        saves=saves,
        retrieval=retrieval,
        activities=activities,
        past=await _past(settings, db, url, stack),
        traffic=await _traffic(db, stack),
        erasures=erasures,
        faults=reporter,
        requests=RequestMetrics(),
        pulse=await _pulse(db, embedder, stack),
        admin=_admin(settings, db, report),
        directory=make_directory(db, settings.uses_supabase_auth, project),
        missing_users=missing_users,
        jobs=jobs,
        providers=providers,
        errands=errands,
    )


def _faults(settings: Settings, stack: AsyncExitStack) -> Faults:
    reporter = Faults(settings)
    stack.callback(reporter.close)
    faults.use(reporter)
    return reporter


def _asking(settings: Settings, stack: AsyncExitStack) -> tuple[Providers, Errands]:
    providers, errands = Providers(settings), Errands()
    stack.push_async_callback(providers.aclose)
    # What is left to save and to count goes before the parts that do it.
    stack.push_async_callback(errands.finish)
    return providers, errands


async def _embedder(settings: Settings, stack: AsyncExitStack) -> Embedder | None:
    embedder = make_embedder(settings)
    if settings.embedder == "local":
        from core.minilm import prepare_in_child

        await asyncio.to_thread(prepare_in_child, settings.model_dir)
    if embedder:
        stack.push_async_callback(embedder.aclose)
    return embedder


def _retrieval(
    settings: Settings, db: Pool, embedder: Embedder | None, stack: AsyncExitStack
) -> Retrieval:
    retrieval = Retrieval(
        db,
        embedder,
        settings.index_memory_mb * 1024 * 1024,
        patience=settings.index_load_ms / 1000,
        cached=settings.vector_backend == "faiss",
    )
    stack.callback(retrieval.close)
    return retrieval


async def _saving(
    db: Pool, embedder: Embedder | None, stack: AsyncExitStack
) -> tuple[EmbeddingWorker | None, SaveQueue]:
    worker = EmbeddingWorker(db, embedder) if embedder else None
    saves = SaveQueue(db, on_saved=worker.wake if worker else None)
    if worker:
        await stack.enter_async_context(_running("embedding", worker.run))
    await stack.enter_async_context(_running("saves", saves.run, saves.close))
    return worker, saves


async def _pulse(db: Pool, embedder: Embedder | None, stack: AsyncExitStack) -> Pulse:
    pulse = Pulse(db, embeds=embedder is not None)
    await stack.enter_async_context(_running("loop lag", pulse.watch_loop))
    await stack.enter_async_context(_running("database watch", pulse.watch_database))
    return pulse


async def _database(
    settings: Settings, stack: AsyncExitStack, report: Callable[[str], None]
) -> tuple[Pool, str]:
    url = await _database_url(settings, stack, report)
    await _migrate(url, report)
    pool = open_pool(url, settings.database_pool_min, settings.database_pool_max)
    return await stack.enter_async_context(pool), url


async def _database_url(
    settings: Settings, stack: AsyncExitStack, report: Callable[[str], None]
) -> str:
    if settings.database_url:
        return settings.database_url.get_secret_value()
    from storage.embedded_postgres import embedded_postgres

    return await stack.enter_async_context(embedded_postgres(settings.data_dir, report))


async def _migrate(url: str, report: Callable[[str], None]) -> None:
    try:
        names = await migrate(url)
    except DATABASE_AWAY as error:
        reason = f"The database cannot be reached ({type(error).__name__}): see DATABASE_URL"
        raise SettingsError(reason) from error
    for name in names:
        report(f"Applied migration {name}")


async def _auth(
    settings: Settings, db: Pool, http: httpx.AsyncClient, stack: AsyncExitStack
) -> tuple[TokenVerifier, LocalAuth | None]:
    if not settings.supabase_url:
        local_auth = LocalAuth(db, settings, await load_or_create_keys(db))
        stack.callback(local_auth.close)
        return local_auth.verifier, local_auth
    keys = RemoteKeys(settings.jwks_url, http)
    stack.callback(keys.close)
    secret = settings.supabase_jwt_secret
    return TokenVerifier(
        settings.token_issuer, keys, hs256_secret=secret.get_secret_value() if secret else None
    ), None


async def _limiter(settings: Settings, db: Pool, stack: AsyncExitStack) -> RateLimiter:
    remote = None
    if settings.redis_url:
        from storage.redis_counters import RedisCounters

        remote = RedisCounters(settings.redis_url.get_secret_value())
        stack.push_async_callback(remote.aclose)
    plans = Plans(db, settings)
    limiter = RateLimiter(plans, LocalCounters(settings.replicas), remote)
    await stack.enter_async_context(_running("plans", plans.run, plans.close))
    await stack.enter_async_context(_running("limiter", limiter.run))
    return limiter


async def _traffic(db: Pool, stack: AsyncExitStack) -> Traffic:
    traffic = Traffic(db)
    await stack.enter_async_context(_running("traffic", traffic.run, traffic.close))
    return traffic


def _admin(settings: Settings, db: Pool, report: Callable[[str], None]) -> AdminAccess:
    keys = settings.admin_key_hashes
    if not keys and not settings.uses_supabase_auth:
        keys = key_at_home(settings.data_dir, report)
    return AdminAccess(db, keys)


async def _past(settings: Settings, db: Pool, url: str, stack: AsyncExitStack) -> Past:
    imports = ImportJobs(db, url, settings)
    await stack.enter_async_context(_running("imports", imports.run))
    return Past(imports, Exports(db))


class _Remembering(Protocol):
    def forget(self, user_id: UUID) -> None: ...


def _erasures(
    db: Pool,
    local_auth: LocalAuth | None,
    project: SupabaseUsers | None,
    limiter: RateLimiter,
    *remembering: _Remembering,
) -> Erasures:
    async def forget(user_id: UUID) -> None:
        for part in remembering:
            part.forget(user_id)
        await limiter.forget(user_id)

    return Erasures(db, forget, local_auth, project)


async def _upkeep(
    db: Pool,
    retrieval: Retrieval,
    project: SupabaseUsers | None,
    erasures: Erasures,
    stack: AsyncExitStack,
) -> tuple[MissingUsers | None, Jobs]:
    missing_users = MissingUsers(db, project, erasures) if project else None
    jobs = Jobs(db, all_jobs(db, retrieval, erasures, missing_users))
    await stack.enter_async_context(_running("erasures", erasures.run))
    await stack.enter_async_context(_running("jobs", jobs.run))
    return missing_users, jobs


@asynccontextmanager
async def _running(
    name: str, work: Callable[[], Awaitable[None]], finish: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Keep `work` running in the background; at the end ask it to finish, or cancel it."""
    task = asyncio.create_task(_forever(name, work), name=name)
    try:
        yield
    finally:
        if finish:
            finish()
        else:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """A background loop outlives everything: an outage, and also a fault of ours."""
    while True:
        try:
            return await work()
        except Exception as error:
            faults.report("background_work_failed", error, work=name)
            if (task := asyncio.current_task()) and task.cancelling():
                return  # The end was asked for, and this error came in its place.
            await asyncio.sleep(1)
