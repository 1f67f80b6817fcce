"""How each part of the service is, for the operator's eye."""

import time
from dataclasses import dataclass
from typing import Literal, Protocol

import psutil

from core.resources import Resources
from storage import embedding_queue
from storage.database import DATABASE_AWAY
from storage.migrate import is_ready

State = Literal["ok", "degraded", "down", "off"]
MOST_WAITING_MEMORIES = 10_000


class Timings(Protocol):
    def percentiles(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Database:
    state: State
    milliseconds: float | None
    migrated: bool
    connections: int
    idle_connections: int


@dataclass(frozen=True, slots=True)
class Embedding:
    state: State
    model: str | None
    waiting: int | None
    set_aside: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the counters in Redis; `off` without REDIS_URL, `degraded` while this process counts."""

    redis: State


@dataclass(frozen=True, slots=True)
class Providers:
    """The model providers that are set up; those that are `down` are spared for a while."""

    state: State
    providers: dict[str, State]


@dataclass(frozen=True, slots=True)
class Index:
    users: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Health:
    """`recent_ms` are percentiles over the last thousand requests."""

    status: State
    database: Database
    embedding: Embedding
    limits: Limits
    chat: Providers
    index: Index
    saves_waiting: int
    process_memory_mb: float
    recent_ms: dict[str, float]


async def examine(resources: Resources, timings: Timings) -> Health:
    database = await _database(resources)
    embedding = await _embedding(resources, database.state)
    caches = resources.retrieval.caches
    limits = Limits(resources.limiter.state)
    chat = _providers(resources)
    parts = (database.state, embedding.state, limits.redis, chat.state)
    status: State = "down" if database.state == "down" else "degraded"
    return Health(
        status="ok" if set(parts) <= {"ok", "off"} else status,
        database=database,
        embedding=embedding,
        limits=limits,
        chat=chat,
        index=Index(len(caches.users), caches.nbytes),
        saves_waiting=resources.saves.depth,
        process_memory_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
        recent_ms=timings.percentiles(),
    )


def _providers(resources: Resources) -> Providers:
    states: dict[str, State]
    states = {name: "ok" if ok else "down" for name, ok in resources.providers.states.items()}
    state: State = "degraded" if "down" in states.values() else "ok"
    return Providers(state if states else "off", states)


async def _database(resources: Resources) -> Database:
    pool = resources.db
    start = time.perf_counter()
    try:
        migrated = await is_ready(pool)
    except DATABASE_AWAY:
        return Database("down", None, False, pool.get_size(), pool.get_idle_size())
    took = round((time.perf_counter() - start) * 1000, 2)
    state: State = "ok" if migrated else "degraded"
    return Database(state, took, migrated, pool.get_size(), pool.get_idle_size())


async def _embedding(resources: Resources, database: State) -> Embedding:
    worker, embedder = resources.worker, resources.embedder
    if worker is None or embedder is None:
        return Embedding("off", None, None, None)
    if database == "down":
        return Embedding("degraded", embedder.name, None, None)
    backlog = await embedding_queue.backlog(resources.db)
    behind = worker.state != "ok" or backlog.waiting > MOST_WAITING_MEMORIES
    return Embedding("degraded" if behind else "ok", embedder.name, backlog.waiting, backlog.failed)
