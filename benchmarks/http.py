"""The save path's price: server CPU per request, against a FastAPI route that does nothing.

usage: python benchmarks/http.py [--connections 1000] [--seconds 8] [--rounds 3]

Both servers run as `make run` runs ours: one uvicorn worker, uvloop, httptools. The load comes
from a process of its own: each connection sends a 2 kB prompt with a token of its own user, waits
for the answer and sends the next. CPU seconds of the server's process alone are counted (not
Postgres', not the generator's), so the ratio holds on a busy machine too. No embedder.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
# Instead of this folder, whose http.py would stand in for the standard library's.
sys.path[0] = str(ROOT)

import psutil  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from core.config import Settings  # noqa: E402
from core.signing_keys import load_or_create_keys  # noqa: E402
from storage.database import open_pool  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.migrate import migrate  # noqa: E402

TEXT = ("How do I keep what I asked and what was answered? " * 40)[:2_000]


class Prompt(BaseModel):
    id: str | None = None
    prompt: str
    provider: str


class Kept(BaseModel):
    memory_id: str


def minimal_app() -> FastAPI:
    app = FastAPI()

    @app.post("/save-prompt", status_code=201)
    async def save(body: Prompt) -> Kept:
        return Kept(memory_id=body.provider)

    return app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(name: str, port: int, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "main.py")]
    if name == "minimal":
        command = [sys.executable, __file__, "--serve-minimal", str(port)]
    settings = {"PORT": str(port), "DATABASE_URL": url, "EMBEDDER": "none", "LOG_LEVEL": "info"}
    return subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL, cwd=ROOT)


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server did not start")


async def one_connection(port: int, token: str, end: float, times: list[float]) -> int:
    """Send saves until `end`; return how many were not answered with 201."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wrong = 0
    while time.perf_counter() < end:
        body = json.dumps({"id": str(uuid4()), "prompt": TEXT, "provider": "chatgpt"}).encode()
        writer.write(
            b"POST /save-prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (token.encode(), len(body), body)
        )
        start_at = time.perf_counter()
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - start_at)
        wrong += not head.startswith(b"HTTP/1.1 201")
    writer.close()
    return wrong


async def load(port: int, tokens: list[str], seconds: float) -> dict[str, float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    wrong = await asyncio.gather(*(one_connection(port, t, end, times) for t in tokens))
    ordered = sorted(times)
    return {
        "requests": len(times),
        "failed": sum(wrong),
        "p50": ordered[len(ordered) // 2] * 1000,
        "p95": ordered[len(ordered) * 95 // 100] * 1000,
    }


def generate(port: int, tokens: Path, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--load", str(port), str(tokens), str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def measure(name: str, url: str, tokens: Path, seconds: float) -> dict[str, float]:
    port = free_port()
    server = start(name, port, url)
    try:
        wait_for(port)
        generate(port, tokens, 2)
        process = psutil.Process(server.pid)
        before = process.cpu_times()
        result = generate(port, tokens, seconds)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        return result | {
            "cpu_us": spent / result["requests"] * 1e6,
            "rps": result["requests"] / seconds,
        }
    finally:
        server.terminate()
        server.wait(30)


async def mint(url: str, count: int, port: int) -> list[str]:
    settings = Settings(_env_file=None, database_url=url, port=port)
    async with open_pool(url, 1, 2) as pool:
        keys = await load_or_create_keys(pool)
    now = int(time.time())
    claims = {"iss": settings.token_issuer, "aud": "authenticated", "role": "authenticated"}
    return [
        keys.sign(claims | {"sub": str(uuid4()), "iat": now, "exp": now + 3600})
        for _ in range(count)
    ]


async def compare(connections: int, seconds: float, rounds: int) -> None:
    results: dict[str, list[dict[str, float]]] = {"minimal": [], "save path": []}
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            await migrate(url)
            tokens = Path(folder) / "tokens.json"
            os.environ["AUTH_PUBLIC_URL"] = "http://benchmark.invalid"
            tokens.write_text(json.dumps(await mint(url, connections, 8000)))
            for _ in range(rounds):
                for name, found in results.items():
                    found.append(await asyncio.to_thread(measure, name, url, tokens, seconds))
    print(f"{connections} connections, median of {rounds} rounds of {seconds:.0f} s\n")
    print("| | requests/s | p50 ms | p95 ms | server CPU µs/request | failed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in results.items():
        median = {key: statistics.median(r[key] for r in found) for key in found[0]}
        print(
            f"| {name} | {median['rps']:.0f} | {median['p50']:.0f} | {median['p95']:.0f} | "
            f"{median['cpu_us']:.0f} | {sum(r['failed'] for r in found):.0f} |"
        )
    ratio = statistics.median(
        ours["cpu_us"] / bare["cpu_us"]
        for ours, bare in zip(results["save path"], results["minimal"], strict=True)
    )
    print(f"\nratio of server CPU per request: {ratio:.2f} (bound: 2.0)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve-minimal", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_minimal:
        uvicorn.run(
            minimal_app(),
            port=options.serve_minimal,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="warning",
            backlog=4096,
        )
    elif options.load:
        where, file, lasting = options.load
        known = json.loads(Path(file).read_text())
        print(json.dumps(asyncio.run(load(int(where), known, float(lasting)))))
    else:
        asyncio.run(compare(options.connections, options.seconds, options.rounds))
