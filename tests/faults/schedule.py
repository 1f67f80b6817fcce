"""Which faults come, drawn from a seed, and how each is done to the stand and undone."""

import asyncio
import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import asyncpg
import psutil

from tests.faults.disk import fill
from tests.faults.proxy import Proxy, Trap
from tests.faults.stand import Replica, Stand
from tests.model_server import Fault as ModelFault

# A statement of each moment in which a replica is to die, as it passes on the wire.
BEGIN, COMMIT, CACHE_LOAD = b"BEGIN; SET LOCAL ROLE memory_layer_app", b"COMMIT", b".keywords"
TRAP_PATIENCE = 3.0
AT_NO_MOMENT = "of those of a moment, none came in 3 s: killed nevertheless"
NOT_STAGED = "of those, not staged: nobody here may mount a small disk"


@dataclass(frozen=True)
class Fault:
    """`number` names one of several parts; `seconds` is how long it lasts, where it lasts."""

    kind: str
    number: int
    seconds: float
    pause: float


@dataclass
class Storm:
    """Does faults, each part one at a time and different parts at once."""

    stand: Stand
    done: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    killed_at: float | None = None
    saves: int = 0
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def rage(self, faults: list[Fault], saves: int = 0, seconds: float = math.inf) -> None:
        """Do them one after the other, each once its share of so many saves is acknowledged.

        After so many seconds no more come, and nothing more is waited for.
        """
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for number, fault in enumerate(faults):
                await self.wait_for(saves * number / len(faults), until)
                if time.monotonic() > until:
                    break
                lane = KINDS[fault.kind].lane.format(fault.number)
                lock = self._locks.setdefault(lane, asyncio.Lock())
                await lock.acquire()
                tasks.create_task(self._one(fault, lock))
                await asyncio.sleep(fault.pause)

        await self.wait_for(saves, until)

    async def wait_for(self, saves: float, until: float) -> None:
        while self.saves < saves and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _one(self, fault: Fault, lock: asyncio.Lock) -> None:
        try:
            await KINDS[fault.kind].do(self, fault)
            self.done[fault.kind] += 1
        finally:
            lock.release()

    def acknowledged(self, began: float) -> None:
        """Whoever is told of a save says so; what began after the kill ends the recovery."""
        self.saves += 1
        if self.killed_at is not None and began > self.killed_at:
            self.recoveries.append(time.monotonic() - self.killed_at)
            self.killed_at = None

    def replica(self, fault: Fault) -> Replica:
        return self.stand.replicas[fault.number]


async def kill_replica(storm: Storm, fault: Fault) -> None:
    replica = storm.replica(fault)
    await replica.look_after()
    replica.kill()
    await replica.restart()


async def _kill_at(storm: Storm, fault: Fault, trap: Trap) -> None:
    replica = storm.replica(fault)
    replica.database.trap = trap
    try:
        async with asyncio.timeout(TRAP_PATIENCE):
            await trap.sprung.wait()
    except TimeoutError:
        # Nothing passed, as when Postgres is away: it is a kill of no particular moment then.
        replica.database.trap = None
        replica.kill()
        storm.done[AT_NO_MOMENT] += 1
    await replica.restart()


async def kill_before_insert(storm: Storm, fault: Fault) -> None:
    await storm.replica(fault).look_after()
    await _kill_at(storm, fault, Trap(BEGIN, "before", storm.replica(fault).kill))


async def kill_after_commit(storm: Storm, fault: Fault) -> None:
    await storm.replica(fault).look_after()
    await _kill_at(storm, fault, Trap(COMMIT, "lost", storm.replica(fault).kill))


async def kill_during_cache_load(storm: Storm, fault: Fault) -> None:
    """A new process loads the cache of whoever searches first."""
    replica = storm.replica(fault)
    replica.kill()
    await replica.restart()
    await _kill_at(storm, fault, Trap(CACHE_LOAD, "lost", replica.kill))


async def stop_replica(storm: Storm, fault: Fault) -> None:
    replica = storm.replica(fault)
    await replica.look_after()
    await replica.drain()
    await replica.restart()


async def freeze_replica(storm: Storm, fault: Fault) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # killed in the meantime
        process = psutil.Process(storm.replica(fault).server.process.pid)
        process.suspend()
        await asyncio.sleep(fault.seconds)
        process.resume()


async def jump_clock(storm: Storm, fault: Fault) -> None:
    replica = storm.replica(fault)
    replica.set_clock(2 if fault.seconds > 0.5 else -2)
    await asyncio.sleep(fault.seconds)
    replica.set_clock(0)


async def kill_postgres(storm: Storm, fault: Fault) -> None:
    postmaster = storm.stand.postmaster
    processes = [postmaster, *postmaster.children(recursive=True)]
    storm.killed_at = time.monotonic()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await asyncio.sleep(0.2)
    await storm.stand.database_answers()


async def kill_backend(storm: Storm, fault: Fault) -> None:
    """Postgres ends all others then, and recovers."""
    victims = [p for p in storm.stand.postmaster.children() if _serves_us(p)]
    if victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victims[fault.number % len(victims)].kill()
    await asyncio.sleep(0.2)
    await storm.stand.database_answers()


def _serves_us(process: psutil.Process) -> bool:
    # One that is ending at this moment has no command line any more.
    with contextlib.suppress(psutil.NoSuchProcess):
        return "memory_layer" in " ".join(process.cmdline())
    return False


async def cut_connections(storm: Storm, fault: Fault) -> None:
    try:
        conn = await asyncpg.connect(storm.stand.database_url, timeout=5)
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await conn.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await storm.stand.database_answers()


async def fill_disk(storm: Storm, fault: Fault) -> None:
    if storm.stand.disk is None:
        storm.done[NOT_STAGED] += 1
        return
    filler = await asyncio.to_thread(fill, storm.stand.disk)
    await asyncio.sleep(fault.seconds)
    filler.unlink()
    await storm.stand.database_answers()


async def kill_redis(storm: Storm, fault: Fault) -> None:
    storm.stand.valkey.kill()
    await asyncio.sleep(fault.seconds)
    await asyncio.to_thread(storm.stand.valkey.start)


async def hang_redis(storm: Storm, fault: Fault) -> None:
    storm.stand.valkey.freeze()
    await asyncio.sleep(fault.seconds)
    storm.stand.valkey.thaw()


async def flush_redis(storm: Storm, fault: Fault) -> None:
    await asyncio.to_thread(storm.stand.valkey.do, "FLUSHALL")


def _door(storm: Storm, fault: Fault) -> Proxy:
    return storm.replica(fault).door


def _database(storm: Storm, fault: Fault) -> Proxy:
    return storm.replica(fault).database


def _redis(storm: Storm, fault: Fault) -> Proxy:
    return storm.stand.redis


Of = Callable[[Storm, Fault], Proxy]
Do = Callable[[Storm, Fault], Awaitable[None]]


def lose_replies(of: Of) -> Do:
    async def do(storm: Storm, fault: Fault) -> None:
        of(storm, fault).replies_to_lose = 3
        await asyncio.sleep(0.2)

    return do


def delay(of: Of) -> Do:
    async def do(storm: Storm, fault: Fault) -> None:
        of(storm, fault).delay = fault.seconds / 10
        await asyncio.sleep(fault.seconds)
        of(storm, fault).delay = 0.0

    return do


def reset(of: Of) -> Do:
    async def do(storm: Storm, fault: Fault) -> None:
        of(storm, fault).reset()

    return do


def hang(of: Of) -> Do:
    async def do(storm: Storm, fault: Fault) -> None:
        of(storm, fault).hang()
        await asyncio.sleep(fault.seconds)
        of(storm, fault).heal()

    return do


def refuse(of: Of) -> Do:
    """As when a network is cut: nothing new comes in, and what there was is gone."""

    async def do(storm: Storm, fault: Fault) -> None:
        of(storm, fault).refusing = True
        of(storm, fault).reset()
        await asyncio.sleep(fault.seconds)
        of(storm, fault).refusing = False

    return do


async def slow_embedder(storm: Storm, fault: Fault) -> None:
    storm.stand.embedder.pause = fault.seconds / 3
    await asyncio.sleep(fault.seconds)
    storm.stand.embedder.pause = 0.0


async def failing_embedder(storm: Storm, fault: Fault) -> None:
    for status in (500, 429, 503, 200):
        storm.stand.embedder.fail_next(status)
    await asyncio.sleep(fault.seconds)
    storm.stand.embedder.faults.clear()


async def hanging_embedder(storm: Storm, fault: Fault) -> None:
    storm.stand.embedder_door.hang()
    await asyncio.sleep(fault.seconds)
    storm.stand.embedder_door.heal()
    storm.stand.embedder_door.reset()


async def bad_chat_provider(storm: Storm, fault: Fault) -> None:
    kind = ("slow", "hang", "status", "close")[fault.number % 4]
    storm.stand.models.faults.append(ModelFault(kind, seconds=fault.seconds))
    await asyncio.sleep(fault.seconds)
    storm.stand.models.faults.clear()


@dataclass(frozen=True)
class Kind:
    """Faults of one lane come one after the other; braces stand for the part's number."""

    do: Do
    lane: str
    weight: int


KINDS = {
    "replica: kill -9": Kind(kill_replica, "replicas", 3),
    "replica: kill -9 before the insert": Kind(kill_before_insert, "replicas", 3),
    "replica: kill -9 between commit and answer": Kind(kill_after_commit, "replicas", 3),
    "replica: kill -9 while a cache is loaded": Kind(kill_during_cache_load, "replicas", 2),
    "replica: SIGTERM under load": Kind(stop_replica, "replicas", 3),
    "replica: SIGSTOP": Kind(freeze_replica, "frozen", 4),
    "replica: clock jumps by 2 h": Kind(jump_clock, "clock{}", 2),
    "Postgres: kill -9 of all of it": Kind(kill_postgres, "postgres", 4),
    "Postgres: kill -9 of one backend": Kind(kill_backend, "postgres", 4),
    "Postgres: connections terminated": Kind(cut_connections, "postgres", 6),
    "Postgres: disk full": Kind(fill_disk, "postgres", 2),
    "Postgres: replies lost": Kind(lose_replies(_database), "database{}", 5),
    "Postgres: replies late": Kind(delay(_database), "database{}", 5),
    "Postgres: connections reset": Kind(reset(_database), "database{}", 5),
    "Postgres: hangs": Kind(hang(_database), "database{}", 4),
    "Redis: kill -9": Kind(kill_redis, "redis", 4),
    "Redis: hangs": Kind(hang_redis, "redis", 4),
    "Redis: flushed": Kind(flush_redis, "redis", 3),
    "Redis: replies late": Kind(delay(_redis), "redis network", 3),
    "Redis: replies lost": Kind(lose_replies(_redis), "redis network", 3),
    "network: replies lost": Kind(lose_replies(_door), "door{}", 8),
    "network: replies late": Kind(delay(_door), "door{}", 5),
    "network: connections reset": Kind(reset(_door), "door{}", 8),
    "network: cut": Kind(refuse(_door), "door{}", 3),
    "embedder: slow": Kind(slow_embedder, "embedder", 3),
    "embedder: fails": Kind(failing_embedder, "embedder", 4),
    "embedder: hangs": Kind(hanging_embedder, "embedder", 3),
    "chat provider: slow, hangs or fails": Kind(bad_chat_provider, "models", 4),
}


def draw(seed: int, count: int) -> Iterator[Fault]:
    """The same faults for the same seed; a kind that is due comes before any comes again."""
    chance = random.Random(seed)
    names = [name for name, kind in KINDS.items() for _ in range(kind.weight)]
    deck: list[str] = []
    for _ in range(count):
        if not deck:
            deck = chance.sample(names, len(names))
        number = chance.randrange(2)
        yield Fault(deck.pop(), number, 0.1 + chance.random() * 0.9, chance.random() * 0.4)
