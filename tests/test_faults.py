"""Processes are killed, disks fill, databases go away: nothing acknowledged is lost or doubled."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest

from core.config import ROOT
from tests.conftest import INHERITED, Headers, Server, free_port, sign_up, until
from tests.embedding_server import embedding_server
from tests.faults.disk import CannotMount, fill, mounted

CLIENTS = 8
# What an outbox keeps and sends again; everything else is a fault of ours or of the client.
COME_BACK = {408, 425, 429, 502, 503, 504}
ODD = "\r\n\t“é\u0301” 👩‍👩‍👧 \u202e שלום \x07 $1 \\u0000 "


def word_of(n: int) -> str:
    """A word that no other number has and no stemmer shortens."""
    return "qz" + "".join("bcdfghjkmp"[int(digit)] for digit in f"{n:05d}") + "vx"


class Outbox:
    """A client like the extension: it keeps a save until it is acknowledged, and sends it again."""

    def __init__(self, url: str, user: Headers) -> None:
        self.http = httpx.AsyncClient(base_url=url, headers=user, timeout=20)
        self.acknowledged: dict[tuple[str, str], str] = {}  # (id, side): text
        self.deliveries = 0
        self.closed = False

    async def save_turn(self, prompt: str, response: str) -> str:
        memory_id = str(uuid4())
        body = {"id": memory_id, "prompt": prompt, "provider": "claude"}
        await self.deliver("/save-prompt", body)
        self.acknowledged[memory_id, "prompt"] = prompt
        await self.deliver("/save-response", {"memory_id": memory_id, "response": response})
        self.acknowledged[memory_id, "response"] = response
        return memory_id

    async def deliver(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Return the acknowledgement; raises Cancelled when the outbox is closed before it."""
        while not self.closed:
            self.deliveries += 1
            with contextlib.suppress(httpx.TransportError):
                answer = await self.http.post(path, json=body)
                if answer.status_code in (200, 201):
                    return answer
                assert answer.status_code in COME_BACK, answer.text
            await asyncio.sleep(0.02)
        raise asyncio.CancelledError

    async def memories(self) -> dict[tuple[str, str], str]:
        """Read everything page by page; fails when a page brings an id twice."""
        found: dict[tuple[str, str], str] = {}
        query: dict[str, Any] = {"limit": 100}
        while True:
            page = (await self.http.get("/memories", params=query)).json()["data"]
            for memory in page["memories"]:
                assert (memory["id"], "prompt") not in found
                found |= {(memory["id"], side): memory[side] for side in ("prompt", "response")}
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]


@contextlib.asynccontextmanager
async def outboxes(server: Server, count: int = CLIENTS) -> AsyncIterator[list[Outbox]]:
    """Clients of as many people, signed in."""
    await asyncio.to_thread(server.wait_until_ready)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=20))
        users = [await sign_up(http, f"person{n}") for n in range(count)]
        boxes = [Outbox(server.url, user) for user in users]
        for box in boxes:
            await stack.enter_async_context(box.http)
        yield boxes


async def save_all(boxes: list[Outbox], turns: int) -> None:
    """Save `turns` turns, each client one after the other, all clients at once."""

    async def work(n: int, box: Outbox) -> None:
        for turn in range(n, turns, len(boxes)):
            await box.save_turn(f"{ODD}{word_of(turn)} {turn}\r\n", f"answer{ODD * 20}{turn}")

    await asyncio.gather(*(work(n, box) for n, box in enumerate(boxes)))


async def everything_is_there_once(boxes: list[Outbox], database_url: str) -> int:
    """Compare what was acknowledged with what is read, found and stored; return the saves."""
    for box in boxes:
        standing = await box.memories()
        assert {key: standing.get(key) for key in box.acknowledged} == box.acknowledged
        # What was never acknowledged may be there or not, but nothing else may.
        unfinished = {key for key in standing if key not in box.acknowledged and standing[key]}
        assert len(unfinished) <= 1
        for (memory_id, side), text in box.acknowledged.items():
            if side == "prompt":
                assert await found_ids(box, text.split()[-2]) == [memory_id]
    acknowledged = sum(len(box.acknowledged) for box in boxes)
    conn = await asyncpg.connect(database_url)
    stored = await conn.fetchval(
        "SELECT count(prompt) + count(response) FROM memory_layer.memories"
    )
    await conn.close()
    assert acknowledged <= stored <= acknowledged + len(boxes)
    return acknowledged


async def found_ids(box: Outbox, query: str) -> list[str]:
    answer = await box.http.post("/search", json={"query": query})
    return [hit["memory"]["id"] for hit in answer.json()["data"]["hits"] if hit["relevant"]]


async def progress(boxes: list[Outbox], acknowledged: int) -> None:
    async def reached() -> bool:
        return sum(len(box.acknowledged) for box in boxes) >= acknowledged

    await until(reached)


async def test_twenty_kills_during_two_thousand_saves_lose_and_double_nothing(
    make_server: Callable[..., Server], database_url: str
) -> None:
    server, kills, chance = make_server(), 20, random.Random(1)
    async with outboxes(server) as boxes:
        saving = asyncio.create_task(save_all(boxes, 1_000))
        for kill in range(1, kills + 1):
            await progress(boxes, kill * 2_000 // (kills + 1))
            await asyncio.sleep(chance.random() / 50)
            server.process.kill()
            await asyncio.to_thread(server.process.wait)
            assert not saving.done()
            server.start()
            await asyncio.to_thread(server.wait_until_ready)
        await saving

        assert await everything_is_there_once(boxes, database_url) == 2_000
        assert sum(box.deliveries for box in boxes) >= 2_000 + kills


async def test_a_database_that_loses_every_connection_again_and_again_loses_no_save(
    make_server: Callable[..., Server], database_url: str, database: asyncpg.Connection
) -> None:
    async with outboxes(make_server()) as boxes:
        saving = asyncio.create_task(save_all(boxes, 500))
        cut = 0
        while not saving.done():
            cut += await cut_connections(database)
            await asyncio.sleep(0.1)
        await saving

        assert cut > 10
        assert await everything_is_there_once(boxes, database_url) == 1_000


async def cut_connections(conn: asyncpg.Connection, name: str | None = None) -> int:
    """Terminate every other backend of the database (by default the connection's own)."""
    return int(
        await conn.fetchval(
            """
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = coalesce($1, current_database()) AND pid <> pg_backend_pid()
            """,
            name,
        )
    )


@contextlib.asynccontextmanager
async def stopped_database(cluster: str, database_url: str) -> AsyncIterator[None]:
    """Let nobody into the database while the block runs, as when it is restored or moved."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    conn = await asyncpg.connect(cluster)
    try:
        await conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await cut_connections(conn, name)
        yield
    finally:
        await conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await conn.close()


async def test_a_save_while_the_database_is_stopped_is_told_to_come_back_and_then_succeeds(
    make_server: Callable[..., Server], cluster: str, database_url: str
) -> None:
    async with outboxes(make_server(), 1) as [box]:
        body = {"id": str(uuid4()), "prompt": "the walrus", "provider": "claude"}
        async with stopped_database(cluster, database_url):
            answers = [await box.http.post("/save-prompt", json=body) for _ in range(3)]
            search = await box.http.post("/search", json={"query": "walrus"})
            health = (await box.http.get("/health")).json()["data"]

        for answer in (*answers, search):
            assert answer.status_code == 503, answer.text
            assert answer.json()["error_code"] == "UNAVAILABLE"
            assert int(answer.headers["Retry-After"]) > 0
        assert (health["status"], health["database"]["state"]) == ("down", "down")
        assert (await box.http.post("/save-prompt", json=body)).status_code == 201
        assert await found_ids(box, "walrus") == [body["id"]]


async def test_a_save_refused_for_no_fault_of_its_own_is_not_called_invalid(
    make_server: Callable[..., Server], database: asyncpg.Connection
) -> None:
    """A client gives up what is invalid; a grant that is missing is the operator's to mend."""
    async with outboxes(make_server(), 1) as [box]:
        body = {"id": str(uuid4()), "prompt": "the walrus", "provider": "claude"}
        await database.execute("REVOKE INSERT ON memory_layer.memories FROM memory_layer_app")
        refused = await box.http.post("/save-prompt", json=body)
        await database.execute("GRANT INSERT ON memory_layer.memories TO memory_layer_app")

        assert refused.status_code == 503, refused.text
        assert (await box.http.post("/save-prompt", json=body)).status_code == 201


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that Postgres' own account may pass through, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@contextlib.contextmanager
def server_at(folder: Path) -> Iterator[Server]:
    """The service as at home, with a Postgres of its own."""
    server = Server(DATA_DIR=str(folder / "data"))
    server.start()
    try:
        yield server
    finally:
        server.close()


def postgres_of(folder: Path) -> list[int]:
    """The processes of a Postgres whose cluster lies in the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd().startswith(str(folder)):
                found.append(process.pid)
    return found


async def test_at_home_a_second_start_after_a_kill_finds_everything_again(home: Path) -> None:
    with server_at(home) as server:
        async with outboxes(server, 1) as [box]:
            memory_id = await box.save_turn("the walrus", "and the carpenter")
            server.kill()
            assert postgres_of(home), "Postgres went down too: this tests nothing"
            server.start()
            await asyncio.to_thread(server.wait_until_ready)

            assert await box.memories() == box.acknowledged
            assert await found_ids(box, "carpenter") == [memory_id]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_at_home_a_stop_leaves_no_process_behind(home: Path, number: signal.Signals) -> None:
    with server_at(home) as server:
        await asyncio.to_thread(server.wait_until_ready)
        running = postgres_of(home)
        server.process.send_signal(number)
        code = await asyncio.to_thread(server.process.wait, 30)

        assert running
        assert postgres_of(home) == []
        assert (code, "Traceback" in server.output) == (0, False), server.output


async def test_a_stop_during_load_keeps_every_acknowledged_save(
    make_server: Callable[..., Server], database_url: str
) -> None:
    server = make_server()
    async with outboxes(server) as boxes:
        saving = asyncio.create_task(save_all(boxes, 4_000))
        await progress(boxes, 400)
        code = await asyncio.to_thread(server.stop)
        assert not saving.done()
        for box in boxes:
            box.closed = True
        with contextlib.suppress(asyncio.CancelledError):
            await saving
        server.start()
        await asyncio.to_thread(server.wait_until_ready)

        assert await everything_is_there_once(boxes, database_url) >= 400
        assert (code, "Traceback" in server.output) == (0, False), server.output


async def test_a_stop_ends_although_the_database_is_away_and_the_embedder_hangs(
    make_server: Callable[..., Server], cluster: str, database_url: str
) -> None:
    async with embedding_server() as provider:
        provider.hanging = True
        server = make_server(
            EMBEDDER="openai:text-embedding-3-small",
            OPENAI_BASE_URL=provider.url,
            OPENAI_API_KEY="k",
        )
        async with outboxes(server, 1) as [box]:
            await box.save_turn("the walrus", "and the carpenter")
            await provider.arrived.acquire()
            async with stopped_database(cluster, database_url):
                code = await asyncio.to_thread(server.stop)

        assert (code, "Traceback" in server.output) == (0, False), server.output


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of its own, 160 MB large."""
    disk = home / "disk"
    disk.mkdir()
    try:
        with mounted(disk, 160):
            yield disk
    except CannotMount as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"only who may mount can make a disk that is small: {error}")


async def test_a_full_disk_refuses_saves_clearly_and_loses_none(small_disk: Path) -> None:
    with server_at(small_disk) as server:
        async with outboxes(server, 1) as [box]:
            await box.save_turn("the walrus", "before the disk was full")
            filler = fill(small_disk)
            refused = None
            while refused is None:
                assert len(box.acknowledged) < 400, "the disk never became full"
                text = os.urandom(200_000).hex()
                body = {"id": str(uuid4()), "prompt": text, "provider": "claude"}
                answer = await box.http.post("/save-prompt", json=body)
                if answer.status_code == 201:
                    box.acknowledged[body["id"], "prompt"] = text
                else:
                    refused = answer
            filler.unlink()
            await box.deliver("/save-prompt", body)
            box.acknowledged[body["id"], "prompt"] = text

            assert (refused.status_code, refused.json()["error_code"]) == (503, "UNAVAILABLE")
            assert int(refused.headers["Retry-After"]) > 0
            standing = await box.memories()
            assert {key: standing[key] for key in box.acknowledged} == box.acknowledged
            assert len(await found_ids(box, "walrus")) == 1


def start_with(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run the service with these settings alone and wait for it to end."""
    given = INHERITED | {"EMBEDDER": "none", "PORT": str(free_port())}
    return subprocess.run(
        [sys.executable, "main.py"],
        cwd=ROOT,
        env=given | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


BAD_SETTINGS = {
    "Supabase without its database": (
        {"SUPABASE_URL": "https://abc.supabase.co"},
        ("SUPABASE_URL", "DATABASE_URL"),
    ),
    "a port that is no number": ({"PORT": "abc"}, ("PORT",)),
    "a port out of range": ({"PORT": "70000"}, ("PORT", "65535")),
    "a log level that is none": ({"LOG_LEVEL": "loud"}, ("LOG_LEVEL",)),
    "pool sizes that contradict": (
        {"DATABASE_POOL_MIN": "9", "DATABASE_POOL_MAX": "3"},
        ("DATABASE_POOL_MIN", "DATABASE_POOL_MAX"),
    ),
    "an embedder nobody knows": ({"EMBEDDER": "crystal-ball"}, ("EMBEDDER", "crystal-ball")),
    "an embedder without its key": (
        {"EMBEDDER": "openai:text-embedding-3-small"},
        ("EMBEDDER", "OPENAI_API_KEY"),
    ),
    "a database address that is none": ({"DATABASE_URL": "mysql://db/x"}, ("DATABASE_URL",)),
}


@pytest.mark.parametrize(
    ("settings", "named"), [pytest.param(*case, id=name) for name, case in BAD_SETTINGS.items()]
)
def test_a_bad_setting_is_refused_in_one_line_that_names_it(
    home: Path, settings: dict[str, str], named: tuple[str, ...]
) -> None:
    done = start_with(**{"DATA_DIR": str(home / "data")} | settings)

    said = (done.stderr + done.stdout).strip().splitlines()
    assert len(said) == 1, "\n".join(said)
    assert [name for name in named if name not in said[0]] == []
    assert done.returncode in (2, 3)
    assert not (home / "data").exists()


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("postgresql://u:p4ssw0rd@127.0.0.1:9/db", id="nobody listens"),
        pytest.param("postgresql://u:p4ssw0rd@nowhere.invalid/db", id="no such host"),
    ],
)
def test_a_database_that_is_not_there_is_told_in_one_line_without_its_password(
    address: str,
) -> None:
    done = start_with(DATABASE_URL=address)

    said = (done.stderr + done.stdout).strip().splitlines()
    assert len(said) == 1, "\n".join(said)
    assert "Cannot start" in said[0]
    assert "p4ssw0rd" not in said[0]
    assert done.returncode not in (0, None)


async def test_a_port_that_is_taken_is_told_before_anything_is_started(home: Path) -> None:
    async def nobody(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    other = await asyncio.start_server(nobody, "127.0.0.1", 0)
    port = str(other.sockets[0].getsockname()[1])
    done = await asyncio.to_thread(start_with, PORT=port, DATA_DIR=str(home / "data"))
    other.close()

    assert done.returncode == 2
    assert port in done.stderr and "in use" in done.stderr
    assert not (home / "data").exists()


async def test_a_second_service_on_the_same_folder_is_told_so(home: Path) -> None:
    with server_at(home) as server:
        await asyncio.to_thread(server.wait_until_ready)
        done = await asyncio.to_thread(start_with, DATA_DIR=str(home / "data"))

        said = (done.stderr + done.stdout).strip().splitlines()
        assert len(said) == 1, "\n".join(said)
        assert "Another Memory Layer" in said[0]
        assert done.returncode not in (0, None)
        await asyncio.to_thread(server.wait_until_ready)
