"""What it costs to be seen: the log line and the counters of a request, and an answer of /metrics.

usage: python benchmarks/observability.py [--requests 20000]

CPU time of this process, in one process with an embedded Postgres of its own. The log line goes
through a pipe to a reader, as in a deployment. /metrics is asked after every route of the service
was called with every class of status.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import uvloop  # noqa: E402

from core import logs  # noqa: E402
from core.config import Settings  # noqa: E402
from core.metrics import exposition  # noqa: E402
from core.resources import Resources, open_resources  # noqa: E402
from main import create_app  # noqa: E402
from routers.edge import Edge  # noqa: E402

LINE_BOUND, METRICS_BOUND = 60.0, 5.0  # µs, ms
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"authorization", b"Bearer x"),
    (b"content-type", b"application/json"),
    (b"content-length", b"2048"),
]


class Route:
    path = "/save-prompt"


async def bare(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def known(scope, receive, send) -> None:
    """Do what a route does for its log line: say who asked, and which route it is."""
    scope["route"] = Route
    scope["state"]["seen"].user_id = USER
    await bare(scope, receive, send)


USER = uuid4()


async def cpu_us(app: Callable, resources: Resources, requests: int) -> float:
    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        assert message.get("status", 201) == 201

    start = time.process_time()
    for _ in range(requests):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/save-prompt",
            "headers": HEADERS,
            "state": {"resources": resources},
        }
        await app(scope, receive, send)
    return (time.process_time() - start) / requests * 1e6


def metrics_ms(resources: Resources) -> tuple[float, int]:
    for path, operations in create_app().openapi()["paths"].items():
        for method in operations:
            for status in (200, 404, 500):
                resources.requests.add(path, method.upper(), status, None, 0.01)
    times = []
    for _ in range(30):
        start = time.process_time()
        text = exposition(resources)
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times), text.count(b"\n")


def drain(end: int) -> None:
    while os.read(end, 1 << 16):
        pass


async def measure(requests: int) -> None:
    reading, writing = os.pipe()
    threading.Thread(target=drain, args=(reading,), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240
        settings = Settings(_env_file=None, data_dir=Path(folder) / "data", embedder="none")
        stream = os.fdopen(writing, "w")
        logs.configure("info", stream)
        async with open_resources(settings, lambda _: None) as resources:
            seen, unseen = [], []
            for _ in range(5):
                unseen.append(await cpu_us(bare, resources, requests))
                seen.append(await cpu_us(Edge(known), resources, requests))
            line = statistics.median(a - b for a, b in zip(seen, unseen, strict=True))
            took, series = metrics_ms(resources)
    print("| | measured | bound |\n| --- | --- | --- |")
    print(
        "| the edge's layer with log line, id, pseudonym and counters: CPU µs a request"
        f" | {line:.1f} | {LINE_BOUND:.0f} |"
    )
    print(f"| `/metrics` with {series} lines: CPU ms | {took:.1f} | {METRICS_BOUND:.0f} |")
    if line > LINE_BOUND or took > METRICS_BOUND:
        raise SystemExit("above its bound")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    uvloop.run(measure(parser.parse_args().requests))
