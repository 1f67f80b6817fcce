"""The built extension in a real Chromium, on fake sites, with the real server behind it."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import BrowserContext, Page, Worker, async_playwright, expect

from core.config import ROOT
from tests.browser import chromium
from tests.conftest import PASSWORD, Server, execute, until, url_of
from tests.extension.sites import HOSTS, Sites, X, serve

EXTENSION = ROOT / "extension"
ALL_SITES = list(HOSTS)
EMPTY_OUTBOX = """async () => {
  await chrome.storage.local.clear();
  await chrome.storage.session.clear();
  const opening = indexedDB.open("memory-layer");
  const database = await new Promise((done) => (opening.onsuccess = () => done(opening.result)));
  const names = [...database.objectStoreNames];
  if (names.length === 0) return;
  const work = database.transaction(names, "readwrite");
  for (const name of names) work.objectStore(name).clear();
  await new Promise((done) => (work.oncomplete = done));
  database.close();
}"""


def build() -> Path:
    """Build the extension as `make extension` does, and the editors of the fake sites."""
    npm = shutil.which("npm")
    assert npm, "Node is needed to build the extension"
    for command in ([npm, "run", "--silent", "build"], ["node", "build.mjs", "--tests"]):
        run = subprocess.run(command, cwd=EXTENSION, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    return EXTENSION / "dist" / "chrome"


@pytest.fixture(scope="session")
def built(testrun_uid: str) -> Path:
    """Built once in a run: a second build would take the files from under a parallel browser."""
    (EXTENSION / "dist").mkdir(exist_ok=True)
    with (EXTENSION / "dist" / "built-for").open("a+") as built_for:
        fcntl.flock(built_for, fcntl.LOCK_EX)
        built_for.seek(0)
        if built_for.read() != testrun_uid:
            build()
            built_for.truncate(0)
            built_for.write(testrun_uid)
    return EXTENSION / "dist" / "chrome"


@pytest.fixture(scope="session")
async def fake_sites(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sites]:
    async with serve(Sites(), tmp_path_factory.mktemp("tls")) as sites:
        yield sites


@pytest.fixture
def sites(fake_sites: Sites) -> Sites:
    fake_sites.clear()
    return fake_sites


def chrome_arguments(extension: Path, port: int) -> list[str]:
    hosts = [*HOSTS.values(), "ws.chatgpt.com", X]
    rules = ", ".join(f"MAP {host} 127.0.0.1:{port}" for host in hosts)
    return [
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--ignore-certificate-errors",
        f"--host-resolver-rules={rules}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--disable-extensions-except={extension}",
        f"--load-extension={extension}",
    ]


@pytest.fixture(scope="session")
async def chrome(
    built: Path, fake_sites: Sites, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=chromium(),
            headless=True,
            args=chrome_arguments(built, fake_sites.port),
            # Then the new headless mode is used, which runs extensions.
            channel=None if chromium() else "chromium",
        )
        context.set_default_timeout(30_000)
        yield context
        await context.close()


@asynccontextmanager
async def browser_with(
    built: Path, sites: Sites, profile: Path, server: Server
) -> AsyncIterator["Extension"]:
    """A browser of a test's own, which may be closed and opened again on the same profile."""
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium(),
            channel=None if chromium() else "chromium",
            args=chrome_arguments(built, sites.port),
        )
        worker = await worker_of(context)
        own = await context.new_page()
        await own.goto(f"chrome-extension://{worker.url.split('/')[2]}/popup.html")
        yield Extension(context, server, own)
        await context.close()


class Home(Server):
    def __init__(self, database_url: str) -> None:
        super().__init__(DATABASE_URL=database_url)
        self.database_url = database_url


@pytest.fixture(scope="session")
async def home(cluster: str) -> AsyncIterator[Home]:
    """One server for all tests of the extension; each test is a person of its own there."""
    name = f"test_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    server = Home(url_of(cluster, name))
    server.start()
    await asyncio.to_thread(server.wait_until_ready)
    yield server
    server.close()
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


class Extension:
    """The extension as its user has it: its pages, the sites' pages, and what the server holds."""

    def __init__(self, chrome: BrowserContext, server: Server, own: Page) -> None:
        self.chrome = chrome
        self.server = server
        self.own = own
        self.id = own.url.split("/")[2]
        self.email = f"user-{uuid4().hex[:8]}@example.com"
        self.headers: dict[str, str] = {}
        self.pages: list[Page] = []

    async def send(self, message: dict[str, Any]) -> Any:
        """Say to the worker what a page of the extension would say."""
        return await self.own.evaluate("message => chrome.runtime.sendMessage(message)", message)

    async def status(self, page: Page | None = None) -> Any:
        tab = await self.tab_of(page) if page else None
        return await self.send({"type": "status", "tabId": tab})

    async def tab_of(self, page: Page) -> int:
        find = """async url => (await chrome.tabs.query({})).find(
            tab => (tab.url ?? tab.pendingUrl ?? "") === url)?.id ?? null"""
        await page.bring_to_front()
        active = "async () => (await chrome.tabs.query({active: true, lastFocusedWindow: true}))[0]"
        found: Any = await self.own.evaluate(find, page.url)
        if found is None:
            found = (await self.own.evaluate(active))["id"]
        return int(found)

    async def open(self, site: str, path: str = "/") -> Page:
        page = await self.chrome.new_page()
        self.pages.append(page)
        await page.goto(f"https://{HOSTS[site]}{path}")
        await expect(page).to_have_title("ready", timeout=30_000)
        return page

    async def own_page(self, name: str, width: int = 400, height: int = 600) -> Page:
        page = await self.chrome.new_page()
        self.pages.append(page)
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(f"chrome-extension://{self.id}/{name}.html")
        return page

    async def say(self, page: Page, text: str, **options: Any) -> None:
        """Send a prompt and wait until the page shows that its answer has ended."""
        await page.evaluate("([text, options]) => send(text, options)", [text, options])

    async def kill_worker(self) -> None:
        """End the worker as Chrome does after half a minute without work."""
        session = await self.chrome.new_cdp_session(self.own)
        await session.send("ServiceWorker.enable")
        await session.send("ServiceWorker.stopAllWorkers")
        await session.detach()

    async def memories(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with httpx.AsyncClient(base_url=self.server.url, headers=self.headers) as client:
            cursor = None
            while cursor or not found:
                query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
                answer = (await client.get("/memories", params=query)).json()["data"]
                found += answer["memories"]
                if not (cursor := answer["next_cursor"]):
                    break
        return found[::-1]

    async def until_saved(
        self, wanted: Callable[[list[dict[str, Any]]], bool], seconds: float = 30
    ) -> list[dict[str, Any]]:
        """Wait until what the server holds is as it should be; return it, the oldest first."""

        async def holds() -> bool:
            self._seen = await self.memories()
            return wanted(self._seen)

        try:
            await until(holds, seconds)
        except TimeoutError:
            shown = [(m["prompt"], m["response"], m["status"], m["metadata"]) for m in self._seen]
            raise AssertionError(f"the server holds {str(shown)[:3_000]}") from None
        return self._seen

    async def close(self) -> None:
        for page in self.pages:
            await page.close()


def whole(count: int) -> Callable[[list[dict[str, Any]]], bool]:
    """So many memories, and none that waits for its prompt or its answer."""
    return lambda found: (
        len(found) == count and all(m["status"] == "complete" and m["prompt"] for m in found)
    )


async def worker_of(chrome: BrowserContext) -> Worker:
    return chrome.service_workers[0] if chrome.service_workers else await _new_worker(chrome)


async def _new_worker(chrome: BrowserContext) -> Worker:
    return await chrome.wait_for_event("serviceworker")


@pytest.fixture
async def fresh(chrome: BrowserContext, home: Home) -> AsyncIterator[Extension]:
    """The extension as it is just after it was installed."""
    worker = await worker_of(chrome)
    own = await chrome.new_page()
    await own.goto(f"chrome-extension://{worker.url.split('/')[2]}/popup.html")
    await own.evaluate(EMPTY_OUTBOX)
    extension = Extension(chrome, home, own)
    yield extension
    await extension.close()
    await own.close()


SignUp = Callable[[Extension], Awaitable[None]]


async def set_up(extension: Extension) -> None:
    url = extension.server.url
    assert (await extension.send({"type": "useServer", "server": url}))["answers"] is True
    person = {"email": extension.email, "password": PASSWORD}
    assert await extension.send({"type": "signUp"} | person) == {"ok": True}
    await extension.send({"type": "agree", "sites": ALL_SITES})
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/auth/v1/token?grant_type=password", json=person)
        extension.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.fixture
async def extension(fresh: Extension, sites: Sites) -> Extension:
    """Set up, signed in at the server, agreed to all four sites."""
    await set_up(fresh)
    return fresh
