"""Memories come into the prompt box as if typed, are not sent, and are not saved again."""

from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.extension.conftest import Extension, whole
from tests.extension.sites import Plan, Sites
from tests.xss import PAYLOADS

PLACES = [
    pytest.param("chatgpt", "prosemirror", id="ProseMirror"),
    pytest.param("grok", "tiptap", id="TipTap"),
    pytest.param("gemini", "quill", id="Quill"),
    pytest.param("grok", "textarea", id="textarea"),
]


def found(**more: Any) -> dict[str, Any]:
    memory = {
        "id": "1",
        "prompt": "What is a walrus?\n\nAsked with two lines",
        "response": "A large animal <b>of the sea</b> 🙂",
        "provider": "claude",
        "conversationId": None,
        "title": None,
        "occurredAt": "2026-11-20T09:30:00Z",
        "relevant": True,
        "snippet": [],
    }
    return memory | more


async def box_of(page: Page) -> str:
    return str(await page.evaluate("readEditor()"))


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize(("site", "editor"), PLACES)
async def test_the_editors_own_model_holds_what_was_inserted(
    extension: Extension, sites: Sites, site: str, editor: str
) -> None:
    page = await extension.open(site, f"/?editor={editor}")
    await page.locator("[contenteditable=true], textarea").click()
    await page.keyboard.type("hi")
    tab = await extension.tab_of(page)

    said = await extension.send({"type": "insert", "tabId": tab, "found": [found()]})

    assert said == {"ok": True}
    await page.keyboard.type("!")
    box = await box_of(page)
    assert box.startswith("hi\n\n[Memory Layer context]")
    assert box.endswith("[/Memory Layer context]!")
    for line in lines(found()["prompt"]) + lines(found()["response"]):
        assert line in box
    assert sites.turns == []

    await page.keyboard.press("Enter")
    [memory] = await extension.until_saved(whole(1))
    assert "walrus" in sites.turns[0].prompt
    assert memory["prompt"] == "hi\n\n!"


async def test_a_page_without_a_prompt_box_is_told_of(extension: Extension, sites: Sites) -> None:
    tab = await extension.tab_of(extension.own)

    said = await extension.send({"type": "insert", "tabId": tab, "found": [found()]})

    assert said == {"problem": "Open a chat in the tab beside this panel first."}


async def open_list(extension: Extension, page: Page) -> None:
    """What the keyboard shortcut of the extension does."""
    tab = await extension.tab_of(page)
    show = "tab => chrome.tabs.sendMessage(tab, {type: 'openMemories'})"
    assert await extension.own.evaluate(show, tab)


async def test_the_button_finds_what_matches_the_draft_and_the_keyboard_inserts_it(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("claude")
    sites.plan("Tell me about the walrus", Plan(answer="It lives on ice."))
    await extension.say(page, "Tell me about the walrus")
    await extension.until_saved(whole(1))

    await page.locator("[contenteditable=true]").click()
    await page.keyboard.type("walrus")
    await open_list(extension, page)
    await page.wait_for_timeout(1_000)
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.wait_for_timeout(500)

    box = await box_of(page)
    assert box.startswith("walrus\n\n[Memory Layer context]")
    assert "Answer: It lives on ice." in box
    assert len(sites.turns) == 1
    # The editor has the focus again.
    await page.keyboard.type("?")
    assert (await box_of(page)).endswith("?")


async def used(extension: Extension) -> int:
    """Requests that the person has spent today."""
    async with httpx.AsyncClient(base_url=extension.server.url) as client:
        answer = await client.get("/usage", headers=extension.headers)
        return int(answer.json()["data"]["day"]["used"])


async def test_a_draft_leaves_the_page_only_when_its_owner_asks(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("claude")
    before = await used(extension)
    await page.locator("[contenteditable=true]").click()
    await page.keyboard.type("a thought that is not sent")
    await page.wait_for_timeout(1_500)
    assert await used(extension) == before

    await open_list(extension, page)
    await page.wait_for_timeout(1_000)
    assert await used(extension) == before + 1


async def test_no_memory_runs_a_script_anywhere(extension: Extension, sites: Sites) -> None:
    hurt = "walrus <img src=x onerror=window.pwned=1>"
    sites.plan(hurt, Plan(answer=hurt))
    page = await extension.open("claude")
    await extension.say(page, hurt)
    await extension.until_saved(whole(1))
    async with httpx.AsyncClient(
        base_url=extension.server.url, headers=extension.headers
    ) as client:
        for text in PAYLOADS:
            chat = {"conversation_id": "c-1", "conversation_title": f"walrus {text}"[:400]}
            body = {"prompt": f"walrus {text}", "provider": "claude"} | chat
            saved = await client.post("/save-prompt", json=body)
            assert saved.status_code == 201, saved.text

    panel = await extension.own_page("panel")
    await panel.fill("#query", "walrus")
    await panel.keyboard.press("Enter")
    await panel.locator("#results li").first.wait_for()
    assert await panel.locator("#results li").count() == 20
    await panel.get_by_text("Read", exact=True).nth(5).click()
    await expect(panel.locator("#results .turn")).to_have_count(len(PAYLOADS))
    popup = await extension.own_page("popup")
    await expect(popup.locator("#last-label")).to_have_text(hurt)
    await page.bring_to_front()
    await page.locator("[contenteditable=true]").click()
    await page.keyboard.type("walrus")
    await open_list(extension, page)
    await page.wait_for_timeout(1_000)

    for place in (panel, popup, page):
        assert await place.evaluate("window.pwned === undefined")
    inside = "document.querySelectorAll('main :is(script, img, svg, iframe, a, style)').length"
    assert await panel.evaluate(inside) == 0
