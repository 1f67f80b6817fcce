"""What it costs to know a token, and to answer an assistant, on an embedded Postgres of its own.

usage: python benchmarks/tokens.py [--calls 300]

CPU time of this process; the calls pass the whole app, without a socket and without a model.
"""

import argparse
import asyncio
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import structlog  # noqa: E402
from asgi_lifespan import LifespanManager  # noqa: E402
from httpx import ASGITransport, AsyncClient  # noqa: E402
from starlette.requests import Request  # noqa: E402

from core.config import Settings  # noqa: E402
from core.errors import Unauthorized  # noqa: E402
from core.resources import Resources  # noqa: E402
from core.tokens import ApiTokens  # noqa: E402
from main import create_app  # noqa: E402
from routers.deps import identify  # noqa: E402
from routers.edge import Seen  # noqa: E402

GUESSES = 20_000
IMPORT = (
    "import time, psutil, main; rss = psutil.Process().memory_info().rss; at = time.process_time();"
    "import routers.mcp_server; print(round((time.process_time() - at) * 1000),"
    "round((psutil.Process().memory_info().rss - rss) / 1e6))"
)


async def cost(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """CPU milliseconds of one call."""
    await call()
    start = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - start) / calls * 1_000


async def tokens(resources: Resources, access_token: str) -> None:
    _, personal = await resources.tokens.issue(uuid4(), "editor", ["read", "write"], None)
    state = {"resources": resources, "seen": Seen("benchmark")}
    request = Request({"type": "http", "headers": [], "state": state})
    for name, token in (("access", access_token), ("personal", personal)):
        spent = await cost(lambda token=token: identify(request, token, "write"), 100_000)
        print(f"| {name} token that is known: CPU µs | {spent * 1_000:.2f} | 20 |")
    spent = await cost(lambda: ApiTokens(resources.db).verify(personal), 1_000)
    print(f"| personal token that is not: CPU ms | {spent:.2f} | 0.5 |")
    fresh = ApiTokens(resources.db)
    start = time.process_time()
    for _ in range(5):
        wave = [fresh.verify("ml_" + secrets.token_urlsafe(32)) for _ in range(GUESSES // 5)]
        for answer in await asyncio.gather(*wave, return_exceptions=True):
            assert isinstance(answer, Unauthorized)
    spent = (time.process_time() - start) / GUESSES * 1e6
    print(f"| a guess, of {GUESSES} in five floods: CPU µs | {spent:.1f} | |")


async def assistants(client: AsyncClient, me: dict[str, str], calls: int) -> None:
    saved = await client.post("/save-prompt", json={"prompt": "x", "provider": "y"}, headers=me)
    memory_id = saved.json()["data"]["memory_id"]
    params = {"name": "get_memory", "arguments": {"memory_id": memory_id}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    route = await cost(lambda: client.get(f"/memories/{memory_id}", headers=me), calls)
    tool = await cost(lambda: client.post("/mcp", json=body, headers=me), calls)
    print(f"| `GET /memories/{{memory_id}}`: CPU ms, client included | {route:.2f} | |")
    print(f"| the tool `get_memory`: CPU ms, client included | {tool:.2f} | |")


async def measure(folder: Path, calls: int) -> None:
    settings = Settings(
        _env_file=None, data_dir=folder, embedder="none", enterprise_per_minute=1_000_000
    )
    async with LifespanManager(create_app(settings), startup_timeout=60) as manager:
        transport = ASGITransport(manager.app)
        async with AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            account = {"email": "a@example.com", "password": secrets.token_hex()}
            session = (await client.post("/auth/v1/signup", json=account)).json()
            print("| | measured | bound |\n| --- | --- | --- |")
            await tokens(manager._state["resources"], session["access_token"])
            me = {"Authorization": f"Bearer {session['access_token']}"}
            await assistants(client, me, calls)


def loading() -> None:
    command = [sys.executable, "-c", IMPORT]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    milliseconds, megabytes = ran.stdout.split()
    print(f"| loading the MCP package, once: CPU ms | {milliseconds} | |")
    print(f"| memory that it takes: MB | {megabytes} | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o711)
        asyncio.run(measure(Path(temporary) / "data", options.calls))
    loading()
