"""The panel over 10,000 users and 1,000,000 memories: its first view, and every statement of it.

usage: python benchmarks/panel.py [--users 10000] [--memories 1000000] [--rounds 7]

Seeds a database of its own, counts the memories with the service's own job, and then opens the
panel in a new Chromium window each round: from the address to the numbers on the screen. Statements
are timed where the server waits for them, on every screen; those of background work are left out.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import asyncpg  # noqa: E402
import httpx  # noqa: E402
import uvicorn  # noqa: E402
from playwright.async_api import Browser, async_playwright  # noqa: E402

from core import logs  # noqa: E402
from core.config import Settings  # noqa: E402
from main import create_app  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.migrate import migrate  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.conftest import Server, free_port  # noqa: E402

IN_REQUEST: ContextVar[bool] = ContextVar("in_request", default=False)
FIRST = "overview, the first view"
# Nobody answers there: the backlog stays, and is counted for the panel.
EMBEDDER = (
    ("embedder", "openai:any-model@384"),
    ("openai_api_key", "none"),
    ("openai_base_url", "http://127.0.0.1:9/v1"),
)
KEY = "mla_the-key-of-the-benchmark-only"
# Few people have most of the memories: the first of 10,000 has some 46,000 of a million.
SEED = (
    """
    INSERT INTO memory_layer_auth.users (id, email, password_hash, created_at, last_sign_in_at)
    SELECT md5('user' || n)::uuid, 'person' || n || '@example.com', 'x',
           now() - n * interval '7 minutes', now() - n * interval '2 minutes'
      FROM generate_series(0, {users} - 1) AS n
    """,
    """
    INSERT INTO memory_layer.memories
           (user_id, id, prompt, response, status, provider, conversation_id, content_hash,
            embedding_state, occurred_at, change_seq)
    SELECT md5('user' || person)::uuid, gen_random_uuid(), 'A question of some length ' || n,
           repeat('An answer that says somewhat more than the question. ', 4), 'complete', 'claude',
           'chat-' || n / 20, decode(repeat('00', 32), 'hex'),
           CASE WHEN n % 50 = 0 THEN 'open' ELSE 'done' END, now() - n * interval '1 second',
           row_number() OVER (PARTITION BY person ORDER BY n)
      FROM (SELECT n, floor({users} * random() ^ 3)::int AS person
              FROM generate_series(1, {memories}) AS n) AS drawn
     ORDER BY person
    """,
    """
    INSERT INTO memory_layer.user_state (user_id, change_seq, tier, per_day)
    SELECT u.id, coalesce(max(m.change_seq), 0),
           (ARRAY[NULL, NULL, 'pro', 'enterprise'])[1 + (random() * 3)::int],
           CASE WHEN random() < .01 THEN 500 END
      FROM memory_layer_auth.users u
      LEFT JOIN memory_layer.memories m ON m.user_id = u.id GROUP BY u.id
    """,
    """
    INSERT INTO memory_layer.daily_use (user_id, day, requests, refused)
    SELECT u.id, (now() AT TIME ZONE 'UTC')::date - d, (random() * 100)::int,
           CASE WHEN random() < .05 THEN 7 ELSE 0 END
      FROM memory_layer_auth.users u, generate_series(0, 29) AS d
    """,
    """
    INSERT INTO memory_layer.traffic (slot, route, requests, errors, refused, buckets)
    SELECT date_bin('5 minutes', now(), '2026-01-01') - s * interval '5 minutes', route, 370, 1, 2,
           array_fill(10, ARRAY[37])
      FROM generate_series(0, 2303) AS s,
           (SELECT 'POST /save-prompt' UNION SELECT 'POST /save-response' UNION
            SELECT 'POST /search' UNION SELECT 'GET /route-' || n FROM generate_series(1, 37) n)
        AS r (route)
    """,
    """
    INSERT INTO memory_layer.admin_audit (actor, address, action, subject)
    SELECT 'key 01234567', '192.0.2.1', 'plan_changed', md5('user' || n % {users})::uuid
      FROM generate_series(1, 100000) AS n
    """,
)


async def seed(url: str, users: int, memories: int) -> None:
    conn = await asyncpg.connect(url)
    start = time.perf_counter()
    for statement in SEED:
        await conn.execute(statement.format(users=users, memories=memories))
    # As autovacuum does within minutes.
    await conn.execute("VACUUM ANALYZE")
    await conn.close()
    took = time.perf_counter() - start
    print(f"seeded {users:,} users and {memories:,} memories in {took:.0f} s")


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[None]:
    """The service in this process, so that its statements can be heard, on a real port."""
    app = create_app(settings)

    async def marked(scope: Any, receive: Any, send: Any) -> None:
        IN_REQUEST.set(scope["type"] == "http")
        await app(scope, receive, send)

    config = uvicorn.Config(marked, port=settings.port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.05)
    yield
    server.should_exit = True
    await running


class Statements:
    """The milliseconds of each statement, by screen."""

    def __init__(self) -> None:
        self.screen = ""
        self.times: dict[tuple[str, str], list[float]] = defaultdict(list)

    def heard(self, query: Any) -> None:
        if self.screen and IN_REQUEST.get():
            text = " ".join(query.query.split())
            self.times[self.screen, text].append(query.elapsed * 1000)

    def install(self) -> None:
        """Every connection of the service tells, from its first statement on."""
        connect = asyncpg.connect

        async def connect_and_listen(*args: Any, **kwargs: Any) -> asyncpg.Connection:
            conn = await connect(*args, **kwargs)
            conn.add_query_logger(self.heard)
            return conn

        create_pool = asyncpg.create_pool
        asyncpg.create_pool = lambda *args, **kwargs: create_pool(
            *args, connect=connect_and_listen, **kwargs
        )


async def first_view(browser: Browser, url: str, cookie: dict[str, str]) -> float:
    """Milliseconds from the address to the numbers, in a window that has seen nothing before."""
    window = await browser.new_context(viewport={"width": 1600, "height": 1000})
    await window.add_cookies([cookie])
    page = await window.new_page()
    start = time.perf_counter()
    await page.goto(f"{url}/admin", wait_until="commit")
    await page.locator(".tile .value").first.wait_for()
    await page.locator(".chart svg .bar").first.wait_for(state="attached")
    took = (time.perf_counter() - start) * 1000
    await window.close()
    return took


async def first_views(url: str, rounds: int) -> list[float]:
    """Of a server that was started as `make run` starts it."""
    server = Server(
        DATABASE_URL=url,
        ADMIN_API_KEY=KEY,
        LOG_LEVEL="error",
        **{name.upper(): value for name, value in EMBEDDER},
    )
    server.start()
    await asyncio.to_thread(server.wait_until_ready)
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
        client.headers.update({"X-Admin-Key": KEY, "Origin": server.url})
        answer = await client.post("/admin/api/session")
        name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
        cookie = {"name": name, "value": value, "url": f"{server.url}/admin/api"}
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"]
        )
        await first_view(browser, server.url, cookie)
        views = [await first_view(browser, server.url, cookie) for _ in range(rounds)]
        await browser.close()
    return views


async def measure(settings: Settings, rounds: int) -> Statements:
    statements = Statements()
    statements.install()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(service(settings))
        url = f"http://127.0.0.1:{settings.port}"
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=120))
        client.headers["X-Admin-Key"] = KEY
        start = time.perf_counter()
        await client.post("/admin/api/jobs/count_memories/run")
        print(f"counted the memories of everybody in {time.perf_counter() - start:.1f} s, once")
        seen = (await client.get("/admin/api/overview")).json()["data"]
        print(f"the panel says: {seen['users']:,} users, {seen['memories']:,} memories")
        await every_screen(client, statements, rounds)
    return statements


async def every_screen(client: httpx.AsyncClient, statements: Statements, rounds: int) -> None:
    person = (await client.get("/admin/api/users", params={"query": "person0@"})).json()
    user_id = person["data"]["people"][0]["id"]
    paths = {
        FIRST: "/overview",
        "overview, 7 days": "/overview?hours=168",
        "users": "/users?page=3",
        "users, found": "/users?query=person99",
        "user": f"/users/{user_id}",
        "limits": "/limits",
        "system": "/system",
        "audit": "/audit",
    }
    for screen, path in paths.items():
        statements.screen = screen
        for _ in range(rounds):
            answer = await client.get(f"/admin/api{path}")
            answer.raise_for_status()
    statements.screen = "counting, nothing changed"
    for _ in range(rounds):
        await client.post("/admin/api/jobs/count_memories/run")
    statements.screen = ""


def report(views: list[float], statements: Statements) -> None:
    rows = [
        (statistics.median(times), max(times), screen, text)
        for (screen, text), times in statements.times.items()
    ]
    print("\n| screen | statement | median ms | slowest ms |\n| --- | --- | --- | --- |")
    for median, slowest, screen, text in sorted(rows, reverse=True):
        if slowest >= 5:
            print(f"| {screen} | `{text[:80]}` | {median:.1f} | {slowest:.1f} |")
    first = [row for row in rows if row[2] == FIRST]
    print(f"\nfirst view: median {statistics.median(views):.0f} ms, slowest {max(views):.0f} ms")
    print(f"its slowest statement: median {max(first)[0]:.1f} ms")
    print(f"slowest of all its statements in all rounds: {max(row[1] for row in first):.1f} ms")


async def main() -> None:
    logs.configure("error")
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--memories", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            await migrate(url)
            await seed(url, options.users, options.memories)
            settings = Settings(
                _env_file=None,
                database_url=url,
                **dict(EMBEDDER),
                port=free_port(),
                log_level="error",
                admin_api_key=KEY,
            )
            statements = await measure(settings, options.rounds)
            report(await first_views(url, options.rounds), statements)


if __name__ == "__main__":
    asyncio.run(main())
