"""What the storm rages over: two replicas, Postgres, Valkey, an embedder and a chat provider."""

import asyncio
import contextlib
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import psutil

from storage.embedded_postgres import embedded_postgres
from storage.migrate import migrate
from tests.conftest import Server
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.faults.disk import CannotMount, mounted
from tests.faults.proxy import Proxy, proxy_to
from tests.model_server import ModelServer, model_server
from tests.valkey import Valkey

DISK_MB = 900
# Twenty are uvicorn's for its connections, ten asyncpg's for a statement.
DRAIN_SECONDS = 40
# Few numbers a vector, and as many texts a request as one wants: the provider is not the matter.
EMBEDDER = "openai:text-embedding-3-small@64"


@dataclass
class Replica:
    """One process of the service; `door` is where clients knock, `database` where it asks."""

    server: Server
    door: Proxy
    database: Proxy
    clock: Path
    ended_badly: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.door.port}"

    def set_clock(self, hours: int) -> None:
        self.clock.write_text(str(hours))

    def kill(self) -> None:
        self.server.process.kill()

    async def restart(self) -> None:
        """Start again and again, as what supervises a process does, until it is ready."""
        await asyncio.to_thread(self.server.process.wait)
        async with httpx.AsyncClient(base_url=self.server.url, timeout=2) as http:
            while True:
                self.server.start()
                while self.server.process.poll() is None:
                    with contextlib.suppress(httpx.TransportError):
                        if (await http.get("/readyz")).status_code == 200:
                            return
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.2)

    async def drain(self) -> None:
        process = self.server.process
        process.terminate()
        try:
            code = await asyncio.to_thread(process.wait, DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            await asyncio.sleep(1)
            self.ended_badly.append(f"no end after SIGTERM: {self.server.output[-6_000:]}")
            process.kill()
        else:
            if code != 0:
                self.ended_badly.append(f"{code} after SIGTERM: {self.server.output[-2_000:]}")

    async def look_after(self) -> None:
        if (code := self.server.process.poll()) is not None:
            self.ended_badly.append(f"code {code}, by itself: {self.server.output[-2_000:]}")
            await self.restart()


@dataclass
class Stand:
    replicas: tuple[Replica, ...]
    database_url: str
    cluster: Path
    disk: Path | None
    valkey: Valkey
    redis: Proxy
    embedder: EmbeddingServer
    embedder_door: Proxy
    models: ModelServer
    models_door: Proxy

    @property
    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.cluster / "postmaster.pid").read_text().split()[0]))

    async def database_answers(self) -> None:
        """Return once Postgres does; each try is a new connection."""
        while True:
            try:
                conn = await asyncpg.connect(self.database_url, timeout=5)
                await conn.close()
                return
            except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
                await asyncio.sleep(0.02)

    def heal(self) -> None:
        for proxy in (
            *(proxy for replica in self.replicas for proxy in (replica.door, replica.database)),
            *(self.redis, self.embedder_door, self.models_door),
        ):
            proxy.heal()
        self.embedder.hanging, self.embedder.pause = False, 0.0
        self.embedder.faults.clear()
        self.models.faults.clear()
        for replica in self.replicas:
            replica.set_clock(0)


@contextlib.contextmanager
def _disk(home: Path) -> Iterator[Path | None]:
    """A file system of Postgres' own, or None where nobody may mount one."""
    disk = home / "disk"
    disk.mkdir()
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(mounted(disk, DISK_MB))
        except CannotMount:
            yield None


@contextlib.asynccontextmanager
async def _replica(home: Path, number: int, socket: str, **settings: str) -> AsyncIterator[Replica]:
    async with proxy_to(path=socket) as database:
        clock = home / f"clock{number}"
        clock.write_text("0")
        path = str(Path(__file__).parent / "clock")
        url = f"postgresql://postgres@127.0.0.1:{database.port}/memory_layer"
        server = Server(DATABASE_URL=url, PYTHONPATH=path, CLOCK_FILE=str(clock), **settings)
        async with proxy_to(port=server.port) as door:
            replica = Replica(server, door, database, clock)
            server.start()
            try:
                await asyncio.to_thread(server.wait_until_ready)
                yield replica
            finally:
                server.process.kill()
                server.process.wait()
                server.close()


@contextlib.asynccontextmanager
async def open_stand() -> AsyncIterator[Stand]:
    async with contextlib.AsyncExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True)
        home = Path(stack.enter_context(folder))
        home.chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        disk = stack.enter_context(_disk(home))
        data = (disk or home) / "data"
        url = await stack.enter_async_context(embedded_postgres(data))
        await migrate(url)
        socket = f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"
        await _keep_little_log(url)
        valkey = Valkey()
        valkey.start()
        stack.callback(valkey.close)
        redis = await stack.enter_async_context(proxy_to(port=valkey.port))
        embedder = await stack.enter_async_context(embedding_server(64))
        embedder.by_words = True
        models = await stack.enter_async_context(model_server())
        embedder_door, models_door = [
            await stack.enter_async_context(proxy_to(port=urlsplit(part.url).port))
            for part in (embedder, models)
        ]
        settings = {
            "REDIS_URL": f"redis://127.0.0.1:{redis.port}",
            "EMBEDDER": EMBEDDER,
            "OPENAI_API_KEY": "sk-of-the-storm",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{embedder_door.port}/v1",
            "PROVIDERS__walrus__base_url": f"http://127.0.0.1:{models_door.port}/v1",
            "PROVIDERS__walrus__api_key": "sk-of-the-storm",
            "CHAT_MODEL": "walrus:walrus-1",
            "PROVIDER_SILENCE_SECONDS": "2",
            "PROVIDER_TOTAL_SECONDS": "5",
            "REPLICAS": "2",
        }
        replicas = [
            await stack.enter_async_context(_replica(home, n, socket, **settings)) for n in (0, 1)
        ]
        yield Stand(
            tuple(replicas),
            url,
            (data / "postgres").resolve(),
            disk,
            valkey,
            redis,
            embedder,
            embedder_door,
            models,
            models_door,
        )


async def _keep_little_log(url: str) -> None:
    """Let the write-ahead log be small against the disk, which is to be full for other reasons."""
    conn = await asyncpg.connect(url)
    await conn.execute("ALTER SYSTEM SET max_wal_size = '128MB'")
    await conn.execute("SELECT pg_reload_conf()")
    await conn.close()
