"""Set-up, popup and side panel, as their user meets them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.conftest import PASSWORD, Server, until
from tests.extension.conftest import Extension, set_up, whole
from tests.extension.sites import Plan, Sites
from tests.model_server import model_server


async def popup_beside(extension: Extension, page: Page) -> Page:
    """The popup as it is when it opens over this tab."""
    tab = await extension.tab_of(page)
    popup = await extension.own_page("popup", 340)
    await popup.add_init_script(f"chrome.tabs.query = async () => [{{id: {tab}}}]")
    await popup.reload()
    return popup


async def test_a_newcomer_is_asked_where_who_and_what_and_then_it_saves(
    fresh: Extension, sites: Sites
) -> None:
    chat = await fresh.open("claude")
    popup = await popup_beside(fresh, chat)
    await expect(popup.locator("#state")).to_have_text("Not set up: nothing is saved")
    page = await fresh.own_page("welcome", 800)
    await expect(page.locator("#state")).to_contain_text("Nothing is saved yet")
    assert await page.locator("#sites input:checked").count() == 0

    await page.get_by_role("textbox", name="Where is your server?").fill("127.0.0.1:1")
    await page.get_by_role("button", name="Use it").first.click()
    await expect(page.locator("#server-said")).to_contain_text("Nothing answers")
    await page.get_by_role("textbox", name="Where is your server?").fill(fresh.server.url)
    await page.get_by_role("button", name="Use it").first.click()
    await expect(page.locator("#server-said")).to_have_text("It answers.")

    await page.get_by_label("E-mail").fill(fresh.email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#account-said")).to_have_class("problem")
    await page.get_by_role("button", name="Make an account").click()
    await expect(page.locator("#who")).to_have_text(fresh.email)
    await expect(page.locator("#state")).to_contain_text("choose the sites")

    await page.get_by_label("Claude").check()
    await page.get_by_role("button", name="I agree").click()
    await expect(page.locator("#state")).to_have_text("Saving on Claude. You can close this page.")
    await expect(popup.locator("#state")).to_have_text("Saving on Claude")
    await fresh.say(chat, "Do you keep this?")
    await expect(popup.locator("#detail")).to_have_text(
        "1 of 1 turn of this conversation saved.", timeout=15_000
    )
    await expect(popup.locator("#last-label")).to_have_text("Do you keep this?")

    await page.get_by_role("button", name="Stop saving everywhere").click()
    await expect(page.locator("#state")).to_contain_text("Nothing is saved yet")
    await expect(popup.locator("#state")).to_have_text("Not set up: nothing is saved")


async def test_the_popup_pauses_undoes_and_says_what_is_wrong(
    extension: Extension, sites: Sites
) -> None:
    chat = await extension.open("grok")
    await extension.say(chat, "A question")
    await extension.until_saved(whole(1))
    popup = await popup_beside(extension, chat)

    await popup.get_by_role("button", name="Undo").click()
    await expect(popup.locator("#last")).to_be_hidden()
    assert await extension.memories() == []

    await popup.get_by_role("button", name="Pause this conversation").click()
    await expect(popup.locator("#state")).to_have_text("This conversation is paused")
    await popup.get_by_role("button", name="Save this conversation again").click()
    await popup.get_by_role("button", name="Pause on Grok").click()
    await expect(popup.locator("#state")).to_have_text("Paused on Grok")
    await popup.get_by_role("button", name="Save on Grok").click()
    await expect(popup.locator("#state")).to_have_text("Saving on Grok")

    sites.plan("Far too long", Plan(answer="x" * (1024 * 1024 + 1)))
    await extension.say(chat, "Far too long")
    dead = popup.locator("#dead")
    await expect(dead).to_contain_text("TOO_LARGE", timeout=15_000)
    await dead.get_by_role("button", name="Discard").click()
    await expect(dead).to_be_hidden()


@pytest.fixture
async def walruses(extension: Extension, sites: Sites) -> Extension:
    """A person who has talked of walruses, with two assistants."""
    sites.plan("How warm is a walrus?", Plan(answer="Very warm."))
    chat = await extension.open("chatgpt")
    await extension.say(chat, "How warm is a walrus?")
    await extension.say(chat, "And a seal?")
    await extension.say(await extension.open("gemini"), "Draw a walrus")
    await extension.until_saved(whole(3))
    return extension


async def test_the_panel_finds_filters_and_reads(walruses: Extension) -> None:
    panel = await walruses.own_page("panel")
    await panel.get_by_role("searchbox").fill("walrus")
    await panel.get_by_role("button", name="Search").click()
    results = panel.locator("#results > li")
    await expect(results).to_have_count(2)
    await expect(results.first.locator("mark").first).to_contain_text("walrus")

    await panel.get_by_text("Filters").click()
    await panel.get_by_label("Assistant").select_option("chatgpt")
    await panel.get_by_role("button", name="Search").click()
    await expect(results).to_have_count(1)
    await panel.get_by_label("To", exact=True).fill("2020-01-01")
    await panel.get_by_role("button", name="Search").click()
    await expect(panel.locator("#status")).to_have_text("Nothing found.")

    await panel.get_by_label("To", exact=True).fill("")
    await panel.get_by_role("button", name="Search").click()
    await results.get_by_role("button", name="Read").click()
    await expect(panel.locator(".turn")).to_have_count(2)
    await expect(panel.locator(".turn").first).to_contain_text("Very warm.")
    await panel.get_by_role("button", name="Back to the results").click()
    await expect(results).to_have_count(1)


async def ask(extension: Extension, question: str) -> Page:
    panel = await extension.own_page("panel")
    await panel.get_by_role("searchbox").fill(question)
    await panel.get_by_role("button", name="Ask").click()
    return panel


async def test_a_question_is_answered_with_its_sources(
    fresh: Extension, sites: Sites, make_server: Callable[..., Server]
) -> None:
    async with model_server() as models:
        models.reply = ["On ", "ice [1]."]
        fresh.server = make_server(
            OPENAI_API_KEY="sk-operator",
            OPENAI_BASE_URL=models.openai_url,
            CHAT_MODEL="openai:walrus-1",
        )
        await asyncio.to_thread(fresh.server.wait_until_ready)
        await set_up(fresh)
        sites.plan("Where does the walrus sleep?", Plan(answer="On ice."))
        await fresh.say(await fresh.open("claude"), "Where does the walrus sleep?")
        await fresh.until_saved(whole(1))

        panel = await ask(fresh, "walrus sleep")

        await expect(panel.locator("#status")).to_have_text(
            "The answer and its sources:", timeout=20_000
        )
        await expect(panel.locator("#answer")).to_have_text("On ice [1].")
        source = panel.locator("#results > li")
        await expect(source).to_contain_text("[1] Claude")
        await source.get_by_role("button", name="Read").click()
        await expect(panel.locator(".turn")).to_contain_text("Where does the walrus sleep?")
        await panel.get_by_role("button", name="Back to the results").click()
        await expect(panel.locator("#answer")).to_have_text("On ice [1].")

        models.reply, models.pause = ["It ", "sleeps ", *["and sleeps "] * 200], 0.1
        await panel.get_by_role("button", name="Ask").click()
        await expect(panel.locator("#answer")).to_contain_text("It sleeps and", timeout=20_000)
        await expect(source).to_contain_text("[1] Claude")
        await panel.get_by_role("button", name="Stop").click()
        await expect(panel.locator("#status")).to_have_text("Stopped.")
        # The model is no longer paid for an answer that nobody reads.
        await asyncio.wait_for(models.gone.acquire(), 20)

        models.pause = 0.0
        models.fail_next("status", 3, status=500)
        await panel.get_by_role("button", name="Ask").click()
        await expect(panel.locator("#status")).to_contain_text("provider", timeout=20_000)


async def test_without_a_model_the_panel_says_so_and_shows_what_matches(
    walruses: Extension,
) -> None:
    panel = await ask(walruses, "walrus")

    await expect(panel.locator("#status")).to_contain_text("This server has no model")
    await expect(panel.locator("#results > li")).to_have_count(2)
    await expect(panel.locator("#answer")).to_be_hidden()


async def test_the_popups_search_opens_in_the_panel(walruses: Extension) -> None:
    panel = await walruses.own_page("panel")
    popup = await walruses.own_page("popup")
    await popup.get_by_role("searchbox").fill("seal")
    await popup.get_by_role("button", name="Search").click()

    await expect(panel.locator("#results > li")).to_have_count(1)
    await expect(panel.get_by_role("searchbox")).to_have_value("seal")


async def test_signed_out_the_panel_says_so(walruses: Extension) -> None:
    panel = await walruses.own_page("panel")
    await walruses.send({"type": "signOut"})
    await panel.get_by_role("searchbox").fill("walrus")
    await panel.get_by_role("button", name="Search").click()

    await expect(panel.locator("#status")).to_contain_text("Sign in again")


async def test_no_page_of_a_site_can_read_the_session(extension: Extension, sites: Sites) -> None:
    """Neither the page nor the script beside it: a flaw of either gives nobody a token."""
    await extension.open("claude")
    session = await extension.chrome.new_cdp_session(extension.pages[-1])
    worlds: list[int] = []
    session.on(
        "Runtime.executionContextCreated", lambda event: worlds.append(event["context"]["id"])
    )
    await session.send("Runtime.enable")
    await until(lambda: asyncio.sleep(0, len(worlds) >= 2), 10)
    ask = """typeof chrome === 'undefined' || !chrome.storage ? 'no storage'
      : chrome.storage.local.get(null).then(JSON.stringify, (error) => 'refused: ' + error)"""
    answers = [
        (
            await session.send(
                "Runtime.evaluate", {"expression": ask, "contextId": world, "awaitPromise": True}
            )
        )["result"]["value"]
        for world in worlds
    ]

    assert any("refused" in answer for answer in answers)
    assert not any("token" in answer for answer in answers)


@pytest.mark.parametrize("name", ["popup", "panel", "welcome"])
async def test_pages_are_usable_by_keyboard_and_named_for_readers(
    fresh: Extension, sites: Sites, name: str
) -> None:
    await set_up(fresh)
    page = await fresh.own_page(name, 380)
    await page.wait_for_timeout(300)
    unnamed = """() => [...document.querySelectorAll("button, input, select")]
      .filter((one) => one.checkVisibility())
      .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim()
        || one.getAttribute("aria-labelledby")))
      .map((one) => one.outerHTML)"""
    assert await page.evaluate(unnamed) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0
    reached = set()
    for _ in range(30):
        await page.keyboard.press("Tab")
        reached.add(
            await page.evaluate("document.activeElement.id || document.activeElement.tagName")
        )
    assert {"popup": {"query", "copy", "set-up"}, "panel": {"query", "find", "ask"}}.get(
        name, {"server", "sign-out", "withdraw"}
    ) <= reached


def test_the_manifest_is_ready_for_a_store(built: Path) -> None:
    for size in (16, 32, 48, 128):
        png = (built / "icons" / f"{size}.png").read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(png[16:20]) == int.from_bytes(png[20:24]) == size
