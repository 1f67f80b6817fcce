"""What the drop-in route adds to a model provider's stream, and how many streams it carries.

usage: python benchmarks/proxy.py [--memories 2000] [--streams 200] [--seconds 10] [--rounds 60]

The provider is a server of this file in a process of its own that answers at once; ours is
`main.py` with the local embedder. Added before the first token: the time to the first byte through
us, with memories read and saved, less that straight from the provider, in turn. Per chunk: CPU of
our process for long streams, less that for as many streams of one chunk; nothing is saved then,
as the embedder would count too. Event-loop lag: /healthz
asked every 20 ms while all streams run, less its median while none does; it holds the asking
process' own delays too.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import httpx  # noqa: E402
import orjson  # noqa: E402
import psutil  # noqa: E402
import uvloop  # noqa: E402

from benchmarks.http import mint  # noqa: E402
from core.minilm import prepare_model  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.migrate import migrate  # noqa: E402
from tests.conftest import free_port  # noqa: E402

PER_SECOND = 30
CHUNK = b"data: %s\n\n" % orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "walrus-1",
        "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
    }
)
SUBJECTS = ("walrus", "sorting", "travel", "bread", "garden", "taxes", "piano", "novel")


async def provide(port: int) -> None:
    """Answer any POST with as many chunks as its `max_tokens`, the first at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framed = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                chunks = orjson.loads(await reader.readexactly(size))["max_tokens"]
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                    b"transfer-encoding: chunked\r\n\r\n" + framed
                )
                due = time.monotonic()
                for _ in range(chunks - 1):
                    due += 1 / PER_SECOND
                    await asyncio.sleep(max(due - time.monotonic(), 0))
                    writer.write(framed)
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


def body_of(n: int, chunks: int) -> dict[str, object]:
    text = f"What did I say about my {SUBJECTS[n % len(SUBJECTS)]} number {n}?"
    return {
        "model": "walrus-1",
        "stream": True,
        "max_tokens": chunks,
        "messages": [{"role": "user", "content": text}],
    }


async def remember(client: httpx.AsyncClient, count: int) -> None:
    async def one(n: int) -> None:
        subject = SUBJECTS[n % len(SUBJECTS)]
        prompt = f"About my {subject} number {n}: how often should I see to it?"
        await client.post("/save-prompt", json={"prompt": prompt, "provider": "claude"})

    for start in range(0, count, 50):
        await asyncio.gather(*(one(n) for n in range(start, min(start + 50, count))))
    while True:
        health = (await client.get("/health")).json()["data"]
        if not health["embedding"]["waiting"]:
            return
        await asyncio.sleep(1)


async def first_byte(client: httpx.AsyncClient, n: int, headers: dict[str, str]) -> float:
    """Milliseconds to the first byte of a stream of one chunk."""
    start = time.perf_counter()
    async with client.stream(
        "POST", "/v1/chat/completions", json=body_of(n, 1), headers=headers
    ) as answer:
        answer.raise_for_status()
        async for _ in answer.aiter_raw():
            took = (time.perf_counter() - start) * 1000
    return took


async def before_the_first_token(
    ours: httpx.AsyncClient, straight: httpx.AsyncClient, rounds: int
) -> None:
    kinds = {"with memories": {}, "X-Memory: off": {"X-Memory": "off"}}
    added: dict[str, list[float]] = {name: [] for name in kinds}
    for n in range(rounds + 5):
        plain = await first_byte(straight, n, {})
        for name, headers in kinds.items():
            took = await first_byte(ours, n, headers)
            if n >= 5:  # the first load the cache, and the SDK
                added[name].append(took - plain)
    for name, found in added.items():
        ordered = sorted(found)
        bound = "30" if name == "with memories" else ""
        p95 = ordered[len(ordered) * 95 // 100]
        print(
            f"| added before the first token, {name}: p50 / p95 ms | "
            f"**{statistics.median(found):.1f}** / {p95:.1f} | {bound} |"
        )


async def pulses(url: str, until: asyncio.Event) -> AsyncIterator[float]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while not until.is_set():
            start = time.perf_counter()
            await client.get("/healthz")
            yield (time.perf_counter() - start) * 1000
            await asyncio.sleep(0.02)


async def many_streams(url: str, token: str, pid: int, streams: int, seconds: float) -> None:
    chunks = int(seconds * PER_SECOND)
    idle_over = asyncio.Event()
    asyncio.get_running_loop().call_later(2, idle_over.set)
    idle = statistics.median([pulse async for pulse in pulses(url, idle_over)])
    server = psutil.Process(pid)
    _, short = await loaded(server, url, token, streams, 1)
    over = asyncio.Event()
    lags: list[float] = []

    async def watch() -> None:
        lags.extend([pulse - idle async for pulse in pulses(url, over)])

    watching = asyncio.create_task(watch())
    told, long = await loaded(server, url, token, streams, chunks)
    over.set()
    await watching
    lags.sort()
    carried = told["chunks"]
    print(f"| streams at once, chunks carried | {streams}, {carried:.0f} | |")
    print(f"| streams that broke | {told['broken']:.0f} | 0 |")
    print(f"| chunks/s carried, of {streams * PER_SECOND} offered | {told['rate']:.0f} | |")
    print(f"| CPU a stream before its second chunk, ms | {short / streams * 1000:.1f} | |")
    print(f"| CPU a chunk, ms | **{(long - short) / (carried - streams) * 1000:.3f}** | 0.2 |")
    print(
        f"| event-loop lag p50 / p99 / most, ms | {statistics.median(lags):.1f} / "
        f"**{lags[len(lags) * 99 // 100]:.1f}** / {lags[-1]:.1f} | 20 |"
    )


async def loaded(
    server: psutil.Process, url: str, token: str, streams: int, chunks: int
) -> tuple[dict[str, float], float]:
    """Read streams by a process of its own; return what it counted, and the server's CPU."""
    before = sum(server.cpu_times()[:2])
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--load", url, token, str(streams), str(chunks)),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await reader.communicate()
    return orjson.loads(printed), sum(server.cpu_times()[:2]) - before


async def load(url: str, token: str, streams: int, chunks: int) -> None:
    """Read with bare sockets: a client of comfort would take the processor from the server."""
    host, _, port = url.removeprefix("http://").partition(":")
    start = time.perf_counter()
    arrived: list[float] = []

    async def one(n: int) -> int:
        await asyncio.sleep(n / streams)  # nobody's chats begin in the same millisecond
        body = orjson.dumps(body_of(n, chunks))
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            # What is saved would be embedded in the same process, later.
            f"Authorization: Bearer {token}\r\nX-Memory: read\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + body)
        seen, tail, ended = 0, b"", False
        while part := await reader.read(65_536):
            found = (tail + part).count(b"data: ")
            seen += found
            arrived.extend([time.perf_counter() - start] * found)
            tail = (tail + part)[-5:]
            ended = part.endswith(b"0\r\n\r\n")
        writer.close()
        return seen if ended else -1

    seen = await asyncio.gather(*(one(n) for n in range(streams)), return_exceptions=True)
    whole = [n for n in seen if isinstance(n, int) and n > 0]
    broken = sum(1 for n in seen if n != chunks)
    # All streams run from the second 1 to the end of the first of them.
    steady = chunks / PER_SECOND - 1
    rate = sum(1 for at in arrived if 1 < at <= 1 + steady) / steady if steady > 0 else 0
    print(orjson.dumps({"chunks": sum(whole), "broken": broken, "rate": rate}).decode())


async def measure(memories: int, streams: int, seconds: float, rounds: int) -> None:
    prepare_model(ROOT / "models", lambda _: None)
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as database:
            await migrate(database)
            port, upstream = free_port(), free_port()
            [token] = await mint(database, 1, port)
            straight = f"http://127.0.0.1:{upstream}"
            environment = os.environ | {
                "DATABASE_URL": database,
                "PORT": str(port),
                "LOG_LEVEL": "warning",
                "ENTERPRISE_PER_MINUTE": "1000000",
                "OPENAI_BASE_URL": f"{straight}/v1",
                "CHAT_MODEL": "openai:walrus-1",
            }
            provider = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, __file__, "--provide", str(upstream)]
            )
            server = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "main.py"], cwd=ROOT, env=environment
            )
            try:
                await against(port, straight, token, server.pid, memories, streams, seconds, rounds)
            finally:
                server.terminate()
                provider.kill()
                server.wait()
                provider.wait()


async def against(
    port: int,
    straight: str,
    token: str,
    pid: int,
    memories: int,
    streams: int,
    seconds: float,
    rounds: int,
) -> None:
    url = f"http://127.0.0.1:{port}"
    me = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
    async with (
        httpx.AsyncClient(base_url=url, headers=me, timeout=60) as ours,
        httpx.AsyncClient(base_url=straight, timeout=60) as provider,
    ):
        while True:
            try:
                if (await ours.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                await asyncio.sleep(0.1)
        await remember(ours, memories)
        print(f"{memories} memories, local embedder\n\n| | measured | bound |\n| --- | --- | --- |")
        await before_the_first_token(ours, provider, rounds)
        await many_streams(url, token, pid, streams, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memories", type=int, default=2_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--provide", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provide:
        uvloop.run(provide(options.provide))
    elif options.load:
        where, who, number, length = options.load
        uvloop.run(load(where, who, int(number), int(length)))
    else:
        uvloop.run(measure(options.memories, options.streams, options.seconds, options.rounds))
