"""The page of one's own over 100,000 memories of one person: first view, screens, every request.

usage: python benchmarks/web.py [--memories 100000] [--rounds 9]

Seeds a database of its own. Each round opens the page in a new Chromium window that has seen
nothing before, already signed in: from the address to the timeline and the picture of the year.
Then it walks on, to a page further down, one assistant, a day and a conversation. Requests are
timed by the browser, from when each is sent to its last byte; beside it stands how long the slowest
took with its turn, while the browser opens the window and its connections. Searching is measured by
index.py.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import asyncpg  # noqa: E402
import httpx  # noqa: E402
from playwright.async_api import Browser, Page, async_playwright  # noqa: E402

from benchmarks.panel import EMBEDDER  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.migrate import migrate  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.conftest import Server  # noqa: E402

PASSWORD = "a password of the benchmark"
# Chats of nine turns over two years with five assistants; one turn in 37 belongs to no chat.
SEED = """
    INSERT INTO memory_layer.memories
           (user_id, id, prompt, response, status, provider, conversation_id, conversation_title,
            content_hash, embedding_state, occurred_at, change_seq)
    SELECT $1, gen_random_uuid(), 'A question of some length about the matter ' || n,
           repeat('An answer that says somewhat more than the question. ', 12), 'complete',
           (ARRAY['chatgpt', 'claude', 'gemini', 'grok', 'perplexity'])[1 + chat % 5],
           CASE WHEN n % 37 > 0 THEN 'chat-' || chat END,
           CASE WHEN n % 37 > 0 THEN 'About the matter ' || chat END,
           decode(repeat('00', 32), 'hex'), 'done',
           now() - chat * (interval '730 days' * 9 / $2) - (n % 9) * interval '4 minutes', n
      FROM (SELECT n, n / 9 AS chat FROM generate_series(1, $2) AS n) AS drawn
"""
SESSION = "localStorage.setItem('memory-layer-session', {});"
TIMED = """
    performance.getEntriesByType("resource").map((one) => [
      one.initiatorType, new URL(one.name).pathname,
      one.responseEnd - one.requestStart, one.duration])
"""


async def seed(url: str, user_id: UUID, memories: int) -> None:
    conn = await asyncpg.connect(url)
    start = time.perf_counter()
    await conn.execute(SEED, user_id, memories)
    state = """
        INSERT INTO memory_layer.user_state (user_id, change_seq) VALUES ($1, $2)
            ON CONFLICT (user_id) DO UPDATE SET change_seq = $2
    """
    await conn.execute(state, user_id, memories)
    # As autovacuum does within minutes.
    await conn.execute("VACUUM ANALYZE")
    await conn.close()
    print(f"seeded {memories:,} memories of one person in {time.perf_counter() - start:.0f} s")


async def first_view(page: Page, url: str) -> float:
    """Milliseconds from the address to the timeline and the picture of the year."""
    start = time.perf_counter()
    await page.goto(url, wait_until="commit")
    await page.locator(".entry").first.wait_for()
    await page.locator(".heat-map .level-1").first.wait_for()
    return (time.perf_counter() - start) * 1000


async def walk_on(page: Page, url: str) -> None:
    await page.locator(".entry").last.scroll_into_view_if_needed()
    await page.locator(".entry").nth(59).wait_for()
    for place in ("timeline?provider=claude", "timeline?day=2026-01-05"):
        await page.goto(f"{url}/#/{place}")
        await page.locator(".entry").first.wait_for()
    await page.locator(".entry a").first.click()
    await page.locator(".turn").first.wait_for()


async def measure(browser: Browser, url: str, session: str, rounds: int) -> None:
    views: list[float] = []
    # The first round is the server's first, too.
    first: dict[str, list[float]] = defaultdict(list)
    requests: dict[str, list[float]] = defaultdict(list)
    with_turn: dict[str, list[float]] = defaultdict(list)
    for n in range(rounds + 1):
        window = await browser.new_context(viewport={"width": 1600, "height": 1000})
        await window.add_init_script(SESSION.format(json.dumps(session)))
        page = await window.new_page()
        views.append(await first_view(page, url))
        await walk_on(page, url)
        for kind, path, took, took_with_turn in await page.evaluate(TIMED):
            name = "a file of the page" if kind != "fetch" else path
            name = "/conversations/…" if "/conversations/" in name else name
            (requests if n else first)[name].append(took)
            with_turn[name].append(took_with_turn)
        await window.close()
    print("\n| request, ms | times | median | slowest | … just started | … with its turn |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, times in sorted(requests.items()):
        shown = f"{statistics.median(times):.1f} | {max(times):.1f} | {max(first[name]):.1f}"
        shown += f" | {max(with_turn[name]):.1f}"
        print(f"| `{name}` | {len(times)} | {shown} |")
    print(f"\nfirst view: median {statistics.median(views[1:]):.0f} ms, ", end="")
    print(f"slowest {max(views[1:]):.0f} ms; of a server just started {views[0]:.0f} ms")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True)
        )
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        database = await stack.enter_async_context(
            embedded_postgres(Path(folder) / "data", lambda _: None)
        )
        await migrate(database)
        embedder = {name.upper(): value for name, value in EMBEDDER}
        server = Server(DATABASE_URL=database, LOG_LEVEL="error", **embedder)
        server.start()
        stack.callback(server.close)
        await asyncio.to_thread(server.wait_until_ready)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
        account = {"email": "one@example.com", "password": PASSWORD}
        session = (await client.post("/auth/v1/signup", json=account)).json()
        await seed(database, UUID(session["user"]["id"]), options.memories)
        kept = {key: session[key] for key in ("access_token", "refresh_token", "expires_at")}
        kept |= {"kind": "session", "email": account["email"]}
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"]
        )
        await measure(browser, server.url, json.dumps(kept), options.rounds)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
