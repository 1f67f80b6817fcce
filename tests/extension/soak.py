"""A thousand turns while worker, server and streams break off; `make test-extension-soak`.

Every turn that a page has sent must be on the server once, byte for byte, and none may be called
invalid. SEED repeats a run, TURNS makes it shorter. Streams that break off are taken up again as
their sites do it; tabs are closed as soon as their last answer has ended.
"""

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Error, Page, async_playwright

from storage.embedded_postgres import embedded_postgres
from tests.browser import chromium
from tests.conftest import Server
from tests.extension.conftest import (
    ALL_SITES,
    Extension,
    build,
    chrome_arguments,
    set_up,
)
from tests.extension.sites import Plan, Sites, serve

TURNS_A_CHAT = 12
SHOWN = ("waiting", "others", "why", "needsSignIn", "full")
ALPHABET = [
    "plain text ",
    "Ümläüt ",
    "🙂👩‍👩‍👧 ",
    "終わり",
    "\r\n",
    "\u2028",
    "```js\n`${x}`\n```\n",
    '"\\u0041" ',
    "עברית ",
    "\t",
]


@dataclass
class Soak:
    extension: Extension
    sites: Sites
    chance: random.Random
    left: int
    asked: dict[str, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    status: dict[str, Any] = field(default_factory=dict)
    dead: list[tuple[str, str]] = field(default_factory=list)

    def words(self, most: int) -> str:
        count = self.chance.randint(1, most)
        return "".join(self.chance.choice(ALPHABET) for _ in range(count)) + "."

    async def chat(self, site: str) -> None:
        """Chats of a few turns each, one after the other, until all turns are spent."""
        while self.left > 0:
            page = await self.extension.open(site)
            for _ in range(TURNS_A_CHAT):
                if self.left <= 0:
                    break
                self.left -= 1
                await self.turn(page, f"Turn {self.left}: {self.words(20)}")
            await self.page_is_done(page)

    async def turn(self, page: Page, prompt: str) -> None:
        answer = self.words(self.chance.choice([5, 50, 500]))
        self.asked[prompt] = answer
        chunks = self.chance.choice([2, 16, 60])
        breaks = self.chance.random() < 0.05
        self.sites.plan(prompt, Plan(answer=answer, chunks=chunks, breaks_off=breaks))
        await self.extension.say(page, prompt)
        if breaks:
            self.faults["streams broken off"] += 1
            self.sites.plan(prompt, Plan(answer=answer, chunks=chunks))
            await page.evaluate("again()")

    async def page_is_done(self, page: Page) -> None:
        """Its user closes the tab, whatever the worker is doing at that moment."""
        # A copy of a stream is read 100 ms after the page at most.
        await page.wait_for_timeout(200)
        self.extension.pages.remove(page)
        await page.close()
        self.faults["tabs closed at once"] += 1

    async def kill_workers(self) -> None:
        while self.left > 0:
            await asyncio.sleep(self.chance.uniform(0.2, 4))
            with suppress(Error):
                await self.extension.kill_worker()
                self.faults["workers killed"] += 1

    async def kill_servers(self) -> None:
        server = self.extension.server
        while self.left > 0:
            await asyncio.sleep(self.chance.uniform(2, 10))
            server.kill()
            await asyncio.sleep(self.chance.uniform(0, 3))
            server.start()
            await asyncio.to_thread(server.wait_until_ready, 120)
            self.faults["servers killed"] += 1


async def run(turns: int, seed: int) -> int:
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        # A build in the meantime must not change what the browser runs.
        built = shutil.copytree(build(), folder / "extension")
        url = await stack.enter_async_context(embedded_postgres(folder / "data", print))
        server = Server(DATABASE_URL=url)
        stack.callback(server.close)
        server.start()
        await asyncio.to_thread(server.wait_until_ready, 120)
        sites = await stack.enter_async_context(serve(Sites(chance=chance), folder))
        playwright = await stack.enter_async_context(async_playwright())
        context = await playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=chromium(),
            channel=None if chromium() else "chromium",
            args=chrome_arguments(built, sites.port),
        )
        stack.push_async_callback(context.close)
        context.set_default_timeout(60_000)
        workers = context.service_workers
        worker = workers[0] if workers else await context.wait_for_event("serviceworker")
        own = await context.new_page()
        await own.goto(f"chrome-extension://{worker.url.split('/')[2]}/popup.html")
        extension = Extension(context, server, own)
        await set_up(extension)

        soak = Soak(extension, sites, chance, turns)
        began = time.monotonic()
        faults = [
            asyncio.create_task(soak.kill_workers()),
            asyncio.create_task(soak.kill_servers()),
        ]
        await asyncio.gather(*(soak.chat(site) for site in ALL_SITES))
        await asyncio.gather(*faults)
        took = time.monotonic() - began
        return report(soak, await settled(soak), turns, seed, took)


async def settled(soak: Soak) -> list[dict[str, Any]]:
    """Wait until nothing is under way any more, and read everything."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        status = await soak.extension.send({"type": "retryNow"}) and await soak.extension.status()
        soak.status = {name: status[name] for name in SHOWN} if status else {}
        soak.dead = [(one["code"], one["label"]) for one in status["dead"]] if status else []
        saved = await soak.extension.memories()
        complete = sum(memory["status"] == "complete" for memory in saved)
        if status and (status["dead"] or (status["waiting"] == 0 and complete >= len(soak.asked))):
            break
        await asyncio.sleep(0.5)
    return await soak.extension.memories()


def report(soak: Soak, saved: list[dict[str, Any]], turns: int, seed: int, took: float) -> int:
    by_prompt = Counter(memory["prompt"] for memory in saved)
    answers = {memory["prompt"]: memory["response"] for memory in saved}
    lost = [prompt for prompt in soak.asked if by_prompt[prompt] == 0]
    doubled = [prompt for prompt, count in by_prompt.items() if count > 1]
    other = [
        prompt
        for prompt, answer in soak.asked.items()
        if prompt in answers and answers[prompt] != answer
    ]
    foreign = [prompt for prompt in by_prompt if prompt not in soak.asked]
    print(f"seed {seed}: {turns} turns in {took:.0f} s, {dict(soak.faults)}")
    print(f"outbox: {soak.status}")
    counts = f"lost {len(lost)}, doubled {len(doubled)}, altered {len(other)}"
    print(f"saved {len(saved)}, {counts}, called invalid {len(soak.dead)}")
    for code, label in soak.dead[:5]:
        print(f"  {code}: {label[:60]!r}")
    for kind, prompts in (("lost", lost), ("doubled", doubled), ("altered", other)):
        for prompt in prompts[:5]:
            print(f"  {kind}: {prompt[:60]!r} {str(answers.get(prompt))[:60]!r}")
    wrong = lost or doubled or other or foreign or soak.dead
    return int(bool(wrong or len(saved) != turns))


if __name__ == "__main__":
    chosen = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={chosen}", flush=True)
    sys.exit(asyncio.run(run(int(os.environ.get("TURNS", "1000")), chosen)))
