"""Memories come into the prompt box as if typed, are not sent, and are not saved again."""

from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.conftest import until
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


BURY_ALL = """async (texts) => {
  const opening = indexedDB.open("memory-layer");
  const database = await new Promise((done) => (opening.onsuccess = () => done(opening.result)));
  const stores = ["turns", "deliveries", "bodies"];
  const work = database.transaction(stores, "readwrite");
  texts.forEach((text, n) => {
    const key = `dead-${n}`;
    const turn = { key, id: key, provider: "claude", conversationId: null, prompt: "dead",
      response: "none", label: text, changedAt: Date.now(), createdAt: Date.now() };
    work.objectStore("turns").put(turn);
    work.objectStore("bodies").put(JSON.stringify({ prompt: text }), `${key}/prompt`);
    work.objectStore("deliveries").put({ key: `${key}/prompt`, turn: key, side: "prompt",
      bytes: 0, createdAt: n, notBefore: 0, attempts: 1, revision: 1,
      dead: { code: "INVALID_INPUT", message: text } });
  });
  await new Promise((done) => (work.oncomplete = done));
  database.close();
}"""
MARKUP = {
    "SCRIPT",
    "IMG",
    "SVG",
    "IFRAME",
    "OBJECT",
    "A",
    "INPUT",
    "VIDEO",
    "FORM",
    "STYLE",
    "MATH",
}


WORDS = [
    "walrus",
    "tundra",
    "violin",
    "copper",
    "saffron",
    "harbour",
    "lantern",
    "meadow",
    "glacier",
    "orchid",
]


async def hostile(extension: Extension) -> list[list[str]]:
    """Fill a history with texts that would be scripts; return them in ten groups, each with a word
    of its own that finds it: two of them are the prompt and the title of a memory."""
    pairs = [PAYLOADS[n : n + 2] for n in range(0, len(PAYLOADS), 2)]
    groups: list[list[str]] = [[] for _ in range(10)]
    async with httpx.AsyncClient(
        base_url=extension.server.url, headers=extension.headers
    ) as client:
        for n, (text, title) in enumerate(pairs):
            groups[n % 10] += [text, title]
            prompt = f"{WORDS[n % 10]} {WORDS[n % 10]} {text}"
            chat = {"conversation_id": "c-1", "conversation_title": title}
            saved = await client.post(
                "/save-prompt", json={"prompt": prompt, "provider": "claude"} | chat
            )
            assert saved.status_code == 201, saved.text
    return groups


async def shown_in_page(page: Page) -> tuple[str, set[str]]:
    """Texts and names of all elements of what the extension shows there, in its closed root."""
    session = await page.context.new_cdp_session(page)
    found = await session.send("DOM.getDocument", {"depth": -1, "pierce": True})
    texts: list[str] = []
    names: set[str] = set()

    def walk(node: dict[str, Any], inside: bool) -> None:
        if inside:
            names.add(node["nodeName"].upper())
            texts.append(node.get("nodeValue", ""))
        for child in node.get("children", []):
            walk(child, inside)
        for root in node.get("shadowRoots", []):
            walk(root, inside or root.get("shadowRootType") == "closed")

    walk(found["root"], False)
    await session.detach()
    return "\n".join(texts), names


async def test_no_memory_runs_a_script_anywhere(extension: Extension, sites: Sites) -> None:
    assert len(PAYLOADS) == 100
    groups = await hostile(extension)
    await extension.own.evaluate(BURY_ALL, PAYLOADS)

    popup = await extension.own_page("popup")
    labels = popup.locator("#dead-list .one-line")
    await expect(labels).to_have_count(100)
    assert sorted(await labels.all_inner_texts()) == sorted(PAYLOADS)

    panel = await extension.own_page("panel")
    await panel.fill("#query", " ".join(WORDS))
    await panel.keyboard.press("Enter")
    await expect(panel.locator("#results > li")).to_have_count(20)
    await panel.get_by_text("Read", exact=True).first.click()
    await expect(panel.locator("#results .turn")).to_have_count(50)
    read = await panel.locator("#results").inner_text()
    assert all(text in read for group in groups for text in group[::2])

    page = await extension.open("claude")
    await open_list(extension, page)
    for word, group in zip(WORDS, groups, strict=True):
        await page.locator("[contenteditable=true]").click()
        await page.keyboard.press("ControlOrMeta+A")
        await page.keyboard.type(word)

        async def all_found(group: list[str] = group) -> bool:
            texts, names = await shown_in_page(page)
            assert not names & MARKUP
            return all(text in texts for text in group[1::2])

        await until(all_found, 15)

    for place in (panel, popup, page):
        assert await place.evaluate("window.pwned === undefined")
    count = (
        "names => document.querySelectorAll(`#results :is(${names}), #dead :is(${names})`).length"
    )
    for place in (panel, popup):
        assert await place.evaluate(count, ", ".join(MARKUP)) == 0
