"""Whoever means harm is refused or waited out, and everybody else is served meanwhile."""

import asyncio
import contextlib
import gzip
import io
import resource
import zipfile
from collections.abc import AsyncIterator, Iterator

import httpx
import psutil
import pytest

from tests.conftest import Headers, Server, until

IDLE = 1_100
MIB = 1024 * 1024
# Members of a gzip may follow one another.
GZIP_OF_A_GIGABYTE = gzip.compress(b"\0" * 16 * MIB) * 64
HEAD = b"POST /save-prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module", autouse=True)
def few_descriptors() -> Iterator[None]:
    """The service is started where systemd's and most shells' soft limit holds."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.asynccontextmanager
async def connections(server: Server, count: int, said: bytes = b"") -> AsyncIterator[list]:
    """So many open connections that say this and then nothing."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8_192, hard), hard))
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            writer.write(said)
            opened.append((reader, writer))
        yield opened


async def is_served(http: httpx.AsyncClient, user: Headers) -> None:
    for n in range(20):
        body = {"prompt": f"walrus number {n}", "provider": "claude"}
        assert (await http.post("/save-prompt", json=body, headers=user)).status_code == 201
    found = await http.post("/search", json={"query": "walrus"}, headers=user)
    assert len(found.json()["data"]["hits"]) == 10


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /save-prompt HTTP/1.1\r\nHost: 127.", id="half a header"),
        pytest.param(HEAD + b'Content-Length: 5000\r\n\r\n{"prompt": "', id="half a body"),
    ],
)
async def test_a_thousand_connections_that_say_no_more_hinder_nobody(
    module_server: Server, ann: Headers, said: bytes
) -> None:
    async with (
        connections(module_server, IDLE, said),
        # Somebody new, whose connection is not among those that stand already.
        httpx.AsyncClient(base_url=module_server.url, timeout=30) as http,
    ):
        await is_served(http, ann)


async def test_bodies_that_drip_hinder_nobody(
    module_server: Server, http: httpx.AsyncClient, ann: Headers
) -> None:
    begun = HEAD + f"Authorization: {ann['Authorization']}\r\n".encode()
    begun += b'Content-Length: 4000000\r\n\r\n{"prompt": "'
    async with connections(module_server, 100, begun) as opened:
        for _ in range(5):
            for _, writer in opened:
                writer.write(b"a")
            await is_served(http, ann)


EXTREMES = {
    "an address of a megabyte": b"GET /memories?cursor=" + b"a" * MIB + b" HTTP/1.1\r\n",
    "a header of a megabyte": b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * MIB + b"\r\n",
    "a hundred thousand headers": b"GET /healthz HTTP/1.1\r\n" + b"X-Many: a\r\n" * 100_000,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 1_000,
    "a length that is none": HEAD + b"Content-Length: -1\r\n",
    "a length beyond all numbers": HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "a chunk that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a NUL in the address": b"GET /memories/\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "a line break in a header": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\n\n\nc: d\r\n",
    "a host with a path": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1/../../etc/passwd\r\n",
}


@pytest.mark.parametrize("sent", [pytest.param(s, id=name) for name, s in EXTREMES.items()])
async def test_what_is_no_request_or_too_much_of_one_is_refused_or_harmless(
    module_server: Server, http: httpx.AsyncClient, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", module_server.port)
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(sent + b"\r\n")
        async with asyncio.timeout(2):
            await writer.drain()
            answer = await reader.readuntil(b"\r\n")
    writer.close()

    assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.1 3")), answer
    assert (await http.get("/healthz")).status_code == 200


def resident(server: Server) -> int:
    """Bytes of the service and its children."""
    process = psutil.Process(server.process.pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


async def test_a_zip_that_unpacks_to_a_gigabyte_fills_neither_memory_nor_time(
    module_server: Server, http: httpx.AsyncClient, ann: Headers
) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("conversations.json", "w") as entry,
    ):
        entry.write(b'[{"title": "')
        for _ in range(1_024):
            entry.write(b"\0" * MIB)
    before, most = resident(module_server), 0
    sent = await http.post("/import", content=packed.getvalue(), headers=ann)
    job = sent.json()["data"]["id"]

    async def is_over() -> bool:
        nonlocal most
        most = max(most, resident(module_server))
        state = await http.get(f"/import/{job}", headers=ann)
        return state.json()["data"]["state"] in ("failed", "done")

    await until(is_over)
    ended = (await http.get(f"/import/{job}", headers=ann)).json()["data"]
    assert (ended["state"], ended["imported"]) == ("failed", 0)
    assert "zip_bomb" in ended["reasons"]
    # The process that imports is itself some 60 MB.
    assert most - before < 200 * MIB


@pytest.mark.parametrize("path", ["/save-prompt", "/search", "/import"])
async def test_a_body_that_would_unpack_to_a_gigabyte_is_refused_unread(
    module_server: Server, http: httpx.AsyncClient, ann: Headers, path: str
) -> None:
    before = resident(module_server)
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    sent = await http.post(path, content=GZIP_OF_A_GIGABYTE, headers=ann | packed)

    assert (sent.status_code, sent.json()["error_code"]) == (415, "UNSUPPORTED_ENCODING")
    assert resident(module_server) - before < 100 * MIB


async def test_a_gzip_brought_in_as_a_past_is_not_unpacked(
    module_server: Server, http: httpx.AsyncClient, ann: Headers
) -> None:
    before = resident(module_server)
    sent = await http.post("/import", content=GZIP_OF_A_GIGABYTE, headers=ann)
    job = sent.json()["data"]["id"]

    async def is_over() -> bool:
        state = await http.get(f"/import/{job}", headers=ann)
        assert resident(module_server) - before < 200 * MIB
        return state.json()["data"]["state"] in ("failed", "done")

    await until(is_over)
    ended = (await http.get(f"/import/{job}", headers=ann)).json()["data"]
    assert (ended["state"], ended["imported"]) == ("failed", 0)


async def test_guessing_tokens_costs_the_guesser_and_nobody_else(
    module_server: Server, http: httpx.AsyncClient, ann: Headers
) -> None:
    guesses = [{"Authorization": f"Bearer ml_{n:040d}"} for n in range(300)]
    answers = [(await http.get("/memories", headers=guess)).status_code for guess in guesses]

    assert set(answers) <= {401, 429}
    await is_served(http, ann)
