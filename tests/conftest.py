"""One real Postgres for the whole run, a cloned database for each test, real servers."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from asgi_lifespan import LifespanManager

from core.config import ROOT, Settings
from core.minilm import prepare_model
from core.signing_keys import load_or_create_keys
from main import create_app
from storage.database import open_pool
from storage.embedded_postgres import embedded_postgres
from storage.migrate import migrate
from tests.browser import browser as browser
from tests.valkey import Valkey

PASSWORD = "correct horse battery staple"
ADMIN_KEY = "mla_the-key-of-the-operator-in-tests"
# The last is how `make coverage` follows the servers that tests start.
INHERITED = {
    name: os.environ[name]
    for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
    if name in os.environ
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The published forms of what the suite runs shortly: `make isolation`, `make fuzz`."""
    parser.addoption("--examples", type=int, default=0, help="cases for each operation: fuzzing")
    parser.addoption("--seed", type=int, default=1, help="which cases: fuzzing")
    parser.addoption("--steps", type=int, default=0, help="of the three people: isolation")
    parser.addoption("--cluster", help="the address of a Postgres as the fixture of this name's")


@pytest.fixture(scope="session")
async def cluster(pytestconfig: pytest.Config) -> AsyncIterator[str]:
    """The address of a Postgres that holds one migrated database, `template`."""
    if running := pytestconfig.getoption("--cluster"):
        yield running
        return
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        # Postgres' own user may enter it then, and the cluster goes with it in the end.
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(folder) / "data", print) as url:
            await execute(url, "CREATE DATABASE template")
            await migrate(url_of(url, "template"))
            yield url


def url_of(cluster: str, name: str) -> str:
    return cluster.replace("/memory_layer", f"/{name}", 1)


async def execute(url: str, *statements: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


@pytest.fixture
async def database_url(cluster: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    yield url_of(cluster, name)
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The owner's view of the test's database, for looking and for breaking things."""
    conn = await asyncpg.connect(database_url)
    yield conn
    await conn.close()


@pytest.fixture(scope="session")
def model_dir() -> Path:
    prepare_model(ROOT / "models", print)
    return ROOT / "models"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Without an embedder: search is by words. Tests of meaning ask for the real one."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        data_dir=tmp_path,
        embedder="none",
        enterprise_per_minute=1_000_000,
        admin_api_key=ADMIN_KEY,
        sign_ups_per_hour=1_000_000,
        sign_ins_per_minute=1_000_000,
        bad_tokens_per_minute=1_000_000,
    )


@asynccontextmanager
async def app_client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The app with its lifespan, called without a socket."""
    async with LifespanManager(create_app(settings), startup_timeout=60) as manager:
        transport = httpx.ASGITransport(manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000", timeout=60
        ) as client:
            yield client


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with app_client(settings) as client:
        yield client


Headers = dict[str, str]


@pytest.fixture(scope="session")
def one_valkey() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.close()


@pytest.fixture
def valkey(one_valkey: Valkey) -> Valkey:
    one_valkey.do("FLUSHALL")
    return one_valkey


async def sign_up(client: httpx.AsyncClient, name: str) -> Headers:
    body = {"email": f"{name}-{uuid4().hex[:6]}@example.com", "password": PASSWORD}
    answer = await client.post("/auth/v1/signup", json=body)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def signer(database_url: str) -> Callable[[UUID], Headers]:
    """What signs people in whom the accounts at home need not know."""
    issuer = Settings(_env_file=None).token_issuer
    async with open_pool(database_url, 1, 1) as pool:
        keys = await load_or_create_keys(pool)

    def sign(user_id: UUID) -> Headers:
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": issuer,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(user_id),
            "session_id": str(uuid4()),
            "iat": now,
            "exp": now + 3_600,
        }
        return {"Authorization": f"Bearer {keys.sign(claims)}"}

    return sign


async def issue_token(client: httpx.AsyncClient, owner: Headers, *scopes: str) -> Headers:
    """Make a personal API token of these scopes, or of all."""
    body = {"name": "a program", "scopes": scopes or ("read", "write", "chat")}
    answer = await client.post("/tokens", json=body, headers=owner)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['data']['token']}"}


@pytest.fixture
async def alice(client: httpx.AsyncClient) -> Headers:
    return await sign_up(client, "alice")


@pytest.fixture
async def bob(client: httpx.AsyncClient) -> Headers:
    return await sign_up(client, "bob")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """The service as its own process, as `make run` starts it."""

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.database_url = settings.get("DATABASE_URL", "")
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {
            "LOG_LEVEL": "warning",
            "EMBEDDER": "none",
            "ADMIN_API_KEY": ADMIN_KEY,
            # Tests of other things save more in a minute than a person may.
            "ENTERPRISE_PER_MINUTE": "1000000",
            "ENTERPRISE_PER_DAY": "1000000",
            "SIGN_UPS_PER_HOUR": "1000000",
            "SIGN_INS_PER_MINUTE": "1000000",
            "BAD_TOKENS_PER_MINUTE": "1000000",
        } | settings
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the object
        self.process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def start(self, folder: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "main.py"],
            cwd=folder,
            env=INHERITED | self._settings | {"PORT": str(self.port)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.output
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + "/readyz", timeout=2).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s:\n{self.output}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        self._log.close()


@pytest.fixture
def make_server(database_url: str) -> Iterator[Callable[..., Server]]:
    """Start servers on the test's database, or on the settings that are given instead."""
    servers: list[Server] = []

    def make(**settings: str) -> Server:
        server = Server(**({"DATABASE_URL": database_url} | settings))
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
async def module_server(cluster: str) -> AsyncIterator[Server]:
    """One server for all tests of a file, whose people therefore must be new ones in each."""
    name = f"module_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    server = Server(DATABASE_URL=url_of(cluster, name))
    server.start()
    await asyncio.to_thread(server.wait_until_ready)
    yield server
    server.close()
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def http(module_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=module_server.url, timeout=30) as client:
        yield client


@pytest.fixture
async def ann(http: httpx.AsyncClient) -> Headers:
    """A new person on the server that a file's tests share."""
    return await sign_up(http, "ann")


@pytest.fixture
async def ben(http: httpx.AsyncClient) -> Headers:
    return await sign_up(http, "ben")


@pytest.fixture
async def live_server(make_server: Callable[..., Server]) -> str:
    """The address of a server of its own process."""
    server = make_server()
    await asyncio.to_thread(server.wait_until_ready)
    return server.url


@pytest.fixture(scope="module")
async def module_app(cluster: str) -> AsyncIterator[Any]:
    """An app with model providers for all tests of a file, each with people of its own."""
    from tests.answering import answering_app  # which builds on what stands here

    async with answering_app(cluster) as app:
        yield app


@pytest.fixture
def app(module_app: Any) -> Any:
    module_app.models.forget()
    return module_app


@pytest.fixture
def asked(app: Any) -> Any:
    """Whom to ask, the models behind, and somebody new who asks."""
    return app.client, app.models, app.person()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until `condition` holds, and fail when it never does."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.02)
