"""A turn is kept from the moment it is said, whichever of page, worker and extension ends first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page, expect

from tests.conftest import until
from tests.extension.conftest import PASSWORD, Extension, Home, browser_with, set_up, whole
from tests.extension.sites import Plan, Sites

HOLD_THE_DISK = """() => new Promise((held) => {
  const opening = indexedDB.open("memory-layer");
  opening.onsuccess = () => {
    const stores = ["turns", "deliveries", "bodies"];
    const work = opening.result.transaction(stores, "readwrite");
    window.letGo = false;
    const again = () => {
      held();
      if (window.letGo) opening.result.close();
      else work.objectStore("turns").count().onsuccess = again;
    };
    again();
  };
})"""


@asynccontextmanager
async def slow_disk(extension: Extension) -> AsyncIterator[None]:
    """Nothing that the worker writes gets to the disk meanwhile."""
    await extension.own.evaluate(HOLD_THE_DISK)
    yield
    await extension.own.evaluate("window.letGo = true")


async def close(extension: Extension, page: Page) -> None:
    extension.pages.remove(page)
    await page.close()


async def kept_aside(extension: Extension) -> int:
    return len(await left_by_pages(extension))


async def left_by_pages(extension: Extension) -> dict[str, Any]:
    stored: dict[str, Any] = await extension.own.evaluate("chrome.storage.session.get(null)")
    return {name: left for name, left in stored.items() if name.startswith("turn/")}


async def test_a_tab_that_closes_as_the_worker_dies_loses_nothing(
    extension: Extension, sites: Sites
) -> None:
    plan = sites.plan("Farewell", Plan(answer="slow " * 200, gate=asyncio.Event()))
    page = await extension.open("claude")
    async with slow_disk(extension):
        await page.evaluate("void send('Farewell')")
        await until(lambda: asyncio.sleep(0, len(sites.turns) == 1), 10)
        await page.wait_for_timeout(300)
        await close(extension, page)
        await asyncio.sleep(0.3)
        await extension.kill_worker()
    await extension.status()

    [memory] = await extension.until_saved(lambda found: bool(found) and bool(found[0]["response"]))
    assert (memory["prompt"], memory["status"]) == ("Farewell", "partial")
    assert (plan.answer or "").startswith(memory["response"])


async def test_a_whole_answer_outlives_its_tab_and_the_worker_too(
    extension: Extension, sites: Sites
) -> None:
    pages = {site: await extension.open(site) for site in ("chatgpt", "grok")}
    async with slow_disk(extension):
        for site, page in pages.items():
            await extension.say(page, f"Said to {site}")
        await page.wait_for_timeout(1_300)
        for page in pages.values():
            await close(extension, page)
        await extension.kill_worker()
    await extension.status()

    saved = await extension.until_saved(
        lambda found: whole(2)(found) and all(memory["prompt"] for memory in found)
    )
    assert {(m["prompt"], m["response"]) for m in saved} == {
        (turn.prompt, turn.answer) for turn in sites.turns
    }


async def test_a_page_that_never_hears_from_the_worker_loses_nothing(
    extension: Extension, sites: Sites
) -> None:
    """It is opened, used and closed while the worker is busy; the last of them at once."""
    async with slow_disk(extension):
        for site, moment in (("claude", 2_500), ("gemini", 300)):
            page = await extension.open(site)
            await extension.say(page, f"Said to {site}")
            await page.wait_for_timeout(moment)
            await close(extension, page)
        await extension.kill_worker()
    await extension.status()

    saved = await extension.until_saved(whole(2))
    assert {(m["prompt"], m["response"]) for m in saved} == {
        (turn.prompt, turn.answer) for turn in sites.turns
    }


async def test_what_the_worker_has_taken_is_kept_nowhere_else(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("claude")
    await extension.say(page, "Once is enough")
    await extension.until_saved(whole(1))

    async def forgotten() -> bool:
        return await kept_aside(extension) == 0

    await until(forgotten, 10)


async def sign_in(extension: Extension, **person: str) -> None:
    assert await extension.send({"type": "signOut"}) == {"ok": True}
    assert await extension.send(
        {"type": "signUp" if "new" in person["email"] else "signIn"} | person
    )
    async with httpx.AsyncClient(base_url=extension.server.url) as client:
        answer = await client.post("/auth/v1/token?grant_type=password", json=person)
    extension.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def test_what_a_page_has_left_is_never_saved_for_the_next_person(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("claude")
    async with slow_disk(extension):
        await extension.say(page, "Mine alone")
        # Closed in the very moment of its end, a page may have left the prompt alone.
        await page.wait_for_timeout(300)
        await close(extension, page)
        await extension.kill_worker()
        left = await left_by_pages(extension)
    owner = {"email": extension.email, "password": PASSWORD}
    await sign_in(extension, email=f"new-{extension.email}", password=PASSWORD)
    # As if the disk had refused what the page left even then.
    await extension.own.evaluate("(left) => chrome.storage.session.set(left)", left)
    await extension.kill_worker()
    await extension.status()
    await asyncio.sleep(1)
    assert await extension.memories() == []
    assert await kept_aside(extension) == len(left) > 0

    await sign_in(extension, **owner)
    await extension.kill_worker()

    await extension.status()
    [memory] = await extension.until_saved(whole(1))
    assert memory["prompt"] == "Mine alone"


async def update(extension: Extension) -> None:
    """What Chrome does when there is a new version: the old one's pages lose their worker."""
    page = await extension.chrome.new_page()
    await page.goto("chrome://extensions")
    replace = """async (id) => {
      await chrome.developerPrivate.updateProfileConfiguration({inDeveloperMode: true});
      await chrome.developerPrivate.reload(id, {failQuietly: true});
    }"""
    await page.evaluate(replace, extension.id)
    await page.close()


async def test_an_update_in_mid_answer_loses_nothing_once_the_page_is_reloaded(
    built: Path, sites: Sites, home: Home, tmp_path: Path
) -> None:
    """The old script says that it has no worker any more; the new one takes its turns over."""
    plan = sites.plan("Update now", Plan(answer="word " * 200, gate=asyncio.Event()))
    async with browser_with(built, sites, tmp_path, home) as extension:
        await set_up(extension)
        page = await extension.open("claude")
        said = asyncio.create_task(extension.say(page, "Update now"))
        await extension.until_saved(lambda found: len(found) == 1)
        await update(extension)
        await page.bring_to_front()
        assert plan.gate
        plan.gate.set()
        await said
        await page.wait_for_timeout(1_500)
        [memory] = await extension.memories()
        assert memory["status"] != "complete"
        await page.reload()
        await expect(page).to_have_title("ready")

        [memory] = await extension.until_saved(whole(1))

    assert memory["response"] == plan.answer
