"""Grok within X is asked for, and then read, also when one comes there from elsewhere on X."""

import json
import shutil
from pathlib import Path

from playwright.async_api import async_playwright, expect

from tests.browser import chromium
from tests.conftest import Server
from tests.extension.conftest import Extension, chrome_arguments, set_up, whole
from tests.extension.sites import Sites


async def test_grok_in_x_is_saved_once_it_is_allowed_and_switched_on(
    built: Path, sites: Sites, home: Server, tmp_path: Path
) -> None:
    # Nobody can press the button of Chrome's question here: the permission is given beforehand.
    allowed = shutil.copytree(built, tmp_path / "extension")
    manifest = json.loads((allowed / "manifest.json").read_text())
    manifest["permissions"].append("scripting")
    manifest["host_permissions"].append("https://x.com/*")
    manifest["optional_permissions"].remove("scripting")
    (allowed / "manifest.json").write_text(json.dumps(manifest))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=chromium(),
            channel=None if chromium() else "chromium",
            args=chrome_arguments(allowed, sites.port),
        )
        workers = context.service_workers
        worker = workers[0] if workers else await context.wait_for_event("serviceworker")
        own = await context.new_page()
        await own.goto(f"chrome-extension://{worker.url.split('/')[2]}/popup.html")
        extension = Extension(context, home, own)
        await set_up(extension)
        page = await context.new_page()
        await page.goto("https://x.com/home")
        await expect(page).to_have_title("ready")
        await extension.say(page, "Before it was switched on")
        await extension.send({"type": "setSite", "site": "xgrok", "on": True})
        await page.reload()
        await expect(page).to_have_title("ready")
        await page.evaluate("history.pushState(null, '', '/i/grok')")
        await extension.say(page, "What is new?")

        [memory] = await extension.until_saved(whole(1))

        assert (memory["prompt"], memory["provider"]) == ("What is new?", "grok")
        assert memory["response"] == sites.turns[-1].answer
        await context.close()
