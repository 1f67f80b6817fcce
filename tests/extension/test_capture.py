"""What people say to the assistants arrives at their server, word for word and once."""

import asyncio
import json
from uuid import UUID, uuid4

import httpx
import pytest
from playwright.async_api import Page, expect

from core.memory_ids import memory_id
from tests.conftest import until
from tests.extension.conftest import ALL_SITES, Extension, whole
from tests.extension.sites import Plan, Sites

# What the fake sites' own scripts leave in the window.
SITES_OWN_NAMES = [
    *("send", "state", "again", "resume", "make", "show", "byFetch", "byXhr"),
    *("makeEditor", "readEditor", "clearEditor", "0", "__playwright_builtins__"),
]
TEXT = "Line\r\n\n```py\nx = '\\u0000'\n```\n終わり 🙂 עברית "


async def user_of(extension: Extension) -> UUID:
    async with httpx.AsyncClient(base_url=extension.server.url) as client:
        answer = await client.get("/auth/v1/user", headers=extension.headers)
        return UUID(answer.json()["id"])


@pytest.mark.parametrize("site", ALL_SITES)
async def test_a_chat_is_saved_word_for_word(extension: Extension, sites: Sites, site: str) -> None:
    prompt = f"What is this?\r\n\t{TEXT}"
    sites.plan(prompt, Plan(answer=TEXT))
    page = await extension.open(site)
    await extension.say(page, prompt)
    await extension.say(page, "And then?")

    first, second = await extension.until_saved(whole(2))

    assert (first["prompt"], first["response"]) == (prompt, TEXT)
    assert (second["prompt"], second["response"]) == ("And then?", sites.turns[1].answer)
    assert (first["provider"], first["source"]) == (site, "extension")
    assert {first["conversation_id"], second["conversation_id"]} == {sites.turns[0].chat}
    assert first["metadata"] == {"capture": "network"}


@pytest.mark.parametrize("site", ["chatgpt", "claude", "grok"])
async def test_its_id_is_the_one_that_an_import_derives(
    extension: Extension, sites: Sites, site: str
) -> None:
    page = await extension.open(site)
    await extension.say(page, "Who are you?")

    [memory] = await extension.until_saved(whole(1))

    user = await user_of(extension)
    assert memory["id"] == str(memory_id(user, site, sites.turns[0].asked))


@pytest.mark.parametrize("site", ALL_SITES)
async def test_the_prompt_is_safe_before_the_answer_is_there(
    extension: Extension, sites: Sites, site: str
) -> None:
    plan = sites.plan("Think long", Plan(gate=asyncio.Event()))
    page = await extension.open(site)
    said = asyncio.create_task(extension.say(page, "Think long"))

    [memory] = await extension.until_saved(lambda found: len(found) == 1)
    assert (memory["prompt"], memory["response"]) == ("Think long", None)

    assert plan.gate
    plan.gate.set()
    await said
    await extension.until_saved(whole(1))


async def test_an_answer_of_200_kb_is_saved_whole(extension: Extension, sites: Sites) -> None:
    long = "".join(f"{n:05} Zeile mit Umläuten äöü und 🙂\n" for n in range(5_000))
    assert len(long.encode()) > 200_000
    for site in ("claude", "gemini"):
        sites.plan("Write a book", Plan(answer=long))
        page = await extension.open(site)
        await extension.say(page, "Write a book")

    for memory in await extension.until_saved(whole(2)):
        assert memory["response"] == long


async def test_thirty_turns_in_a_row_are_thirty_memories(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("chatgpt")
    for n in range(30):
        await extension.say(page, f"Question {n}")

    saved = await extension.until_saved(whole(30))

    told = {(turn.prompt, turn.answer) for turn in sites.turns}
    assert {(memory["prompt"], memory["response"]) for memory in saved} == told
    here = (await extension.status(page))["here"]
    assert (here["saved"], here["all"]) == (30, 30)


@pytest.mark.parametrize("site", ALL_SITES)
async def test_a_stopped_answer_is_kept_as_far_as_it_came(
    extension: Extension, sites: Sites, site: str
) -> None:
    plan = sites.plan("Count", Plan(answer="one two three four " * 200, gate=asyncio.Event()))
    page = await extension.open(site)
    said = asyncio.create_task(extension.say(page, "Count"))
    await extension.until_saved(lambda found: len(found) == 1)
    # The first half of the stream has been read by then.
    await page.wait_for_timeout(300)
    await page.evaluate("state.stop()")
    await said

    [memory] = await extension.until_saved(lambda found: found[0]["status"] == "partial")

    assert memory["response"]
    assert (plan.answer or "").startswith(memory["response"])


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"lets": True}, id="its reader is cancelled"),
        pytest.param({"lets": True, "piped": True}, id="behind a pipe"),
        pytest.param({"lets": True, "viaRequest": True}, id="of a Request"),
    ],
)
async def test_a_page_that_lets_go_of_an_answer_ends_its_request(
    extension: Extension, sites: Sites, how: dict[str, bool]
) -> None:
    """The site must see that nobody listens any more, as it would without the extension."""
    plan = sites.plan("Count", Plan(answer="one two three " * 200, gate=asyncio.Event()))
    page = await extension.open("chatgpt")
    said = asyncio.create_task(extension.say(page, "Count", **how))
    await extension.until_saved(lambda found: len(found) == 1)
    assert sites.under_way == 1
    await page.evaluate("state.stop()")
    await said

    await until(lambda: asyncio.sleep(0, sites.under_way == 0), 10)
    [memory] = await extension.until_saved(lambda found: found[0]["status"] == "partial")
    assert memory["response"] and (plan.answer or "").startswith(memory["response"])


async def test_a_page_that_lets_go_after_the_end_has_the_whole_answer(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("grok")
    await page.evaluate("""() => {
      const { read } = ReadableStreamDefaultReader.prototype;
      ReadableStreamDefaultReader.prototype.read = function () {
        return read.call(this).then((chunk) => (chunk.done && void this.cancel(), chunk));
      };
    }""")
    for n in range(3):
        await extension.say(page, f"Turn {n}")

    await extension.until_saved(whole(3))


@pytest.mark.parametrize("site", ALL_SITES)
async def test_who_leaves_in_mid_answer_keeps_what_was_there(
    extension: Extension, sites: Sites, site: str
) -> None:
    plan = sites.plan("Count", Plan(answer="one two three four " * 200, gate=asyncio.Event()))
    page = await extension.open(site)
    await page.evaluate("void send('Count')")
    await extension.until_saved(lambda found: len(found) == 1)
    await page.wait_for_timeout(300)
    await page.goto("about:blank")

    await until(lambda: asyncio.sleep(0, sites.under_way == 0), 10)
    [memory] = await extension.until_saved(lambda found: found[0]["status"] == "partial")
    assert memory["response"] and (plan.answer or "").startswith(memory["response"])


async def test_an_answer_that_its_user_lets_go_on_is_one_memory(
    extension: Extension, sites: Sites
) -> None:
    sites.plan("Write", Plan(answer=TEXT * 20, longest=131))
    page = await extension.open("chatgpt")
    await extension.say(page, "Write")
    await extension.until_saved(lambda found: bool(found) and found[0]["status"] == "partial")
    await extension.say(page, "", goOn=True)

    [memory] = await extension.until_saved(whole(1))

    assert (memory["prompt"], memory["response"]) == ("Write", TEXT * 20)
    [row] = json.loads(await extension.send({"type": "diagnostics"}))["counters"]
    assert "unreadable" not in row["counts"]


@pytest.mark.parametrize("site", ALL_SITES)
async def test_another_answer_is_another_memory(
    extension: Extension, sites: Sites, site: str
) -> None:
    page = await extension.open(site)
    sites.plan("Again?", Plan(answer="one"))
    await extension.say(page, "Again?")
    sites.plan("Again?", Plan(answer="two"))
    await extension.say(page, "Again?", again=True)

    first, second = await extension.until_saved(whole(2))

    assert (first["response"], second["response"]) == ("one", "two")
    assert first["prompt"] == second["prompt"] == "Again?"
    assert second["metadata"]["replaces"] == first["id"]
    user = await user_of(extension)
    # Where its prompt has a name of its own, that is the memory's.
    turn = sites.turns[1]
    name = turn.answered if site in ("chatgpt", "claude") else turn.asked
    assert second["id"] == str(memory_id(user, site, name))


async def test_an_edited_prompt_names_the_one_it_replaces(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("chatgpt")
    await extension.say(page, "Hello")
    parent = sites.turns[0].answered
    await extension.say(page, "tpyo", parent=parent)
    await extension.say(page, "typo", parent=parent)

    saved = {memory["prompt"]: memory for memory in await extension.until_saved(whole(3))}

    assert saved["typo"]["metadata"]["replaces"] == saved["tpyo"]["id"]


@pytest.mark.parametrize("site", ALL_SITES)
async def test_a_temporary_chat_is_not_saved(extension: Extension, sites: Sites, site: str) -> None:
    page = await extension.open(site)
    await extension.say(page, "between us", temporary=True)
    await extension.say(page, "for the record")

    [memory] = await extension.until_saved(whole(1))

    assert memory["prompt"] == "for the record"


async def test_names_of_attached_files_are_kept(extension: Extension, sites: Sites) -> None:
    page = await extension.open("chatgpt")
    await extension.say(page, "Read this", attachments=[{"name": "plan.pdf"}], viaRequest=True)

    [memory] = await extension.until_saved(whole(1))

    assert memory["metadata"]["attachments"] == ["plan.pdf"]


async def test_a_handed_over_answer_comes_by_the_stream_that_resumes_it(
    extension: Extension, sites: Sites
) -> None:
    sites.plan("Reason", Plan(handoff="resume"))
    page = await extension.open("chatgpt")
    await extension.say(page, "Reason")
    await page.evaluate("resume()")

    [memory] = await extension.until_saved(whole(1))

    assert memory["response"] == sites.turns[0].answer
    assert memory["metadata"]["capture"] == "network"


async def test_a_handed_over_answer_comes_by_the_websocket(
    extension: Extension, sites: Sites
) -> None:
    sites.plan("Reason", Plan(handoff="socket", answer=TEXT))
    page = await extension.open("chatgpt")
    await extension.say(page, "Reason")
    for frame in sites.socket_frames(sites.turns[0]):
        await sites.sockets[-1].send_text(frame)

    [memory] = await extension.until_saved(whole(1))

    assert memory["response"] == TEXT


async def test_a_handed_over_answer_that_no_stream_brings_is_read_from_the_page(
    extension: Extension, sites: Sites
) -> None:
    sites.plan("Reason", Plan(handoff="nothing"))
    page = await extension.open("chatgpt")
    await extension.say(page, "Reason")

    [memory] = await extension.until_saved(whole(1))

    assert memory["response"] == sites.turns[0].answer
    assert memory["metadata"]["capture"] == "dom"


async def test_a_reload_in_mid_answer_loses_nothing(extension: Extension, sites: Sites) -> None:
    plan = sites.plan("Take your time", Plan(answer="slow " * 200, gate=asyncio.Event()))
    page = await extension.open("chatgpt")
    await extension.say(page, "Hello")
    await page.evaluate("void send('Take your time')")
    await extension.until_saved(lambda found: len(found) == 2)
    await page.reload()
    assert plan.gate
    plan.gate.set()

    saved = await extension.until_saved(whole(2))

    assert saved[1]["response"] == plan.answer


async def test_several_tabs_at_once_do_not_mix(extension: Extension, sites: Sites) -> None:
    pages = [await extension.open(site) for site in ALL_SITES * 2]
    for turn in range(3):
        async with asyncio.TaskGroup() as group:
            for n, page in enumerate(pages):
                group.create_task(extension.say(page, f"Tab {n}, turn {turn}"))

    saved = await extension.until_saved(whole(24))

    told = {(turn.site, turn.chat, turn.prompt, turn.answer) for turn in sites.turns}
    assert told == {
        (m["provider"], m["conversation_id"], m["prompt"], m["response"]) for m in saved
    }


async def test_a_refused_prompt_is_kept_without_an_answer(
    extension: Extension, sites: Sites
) -> None:
    sites.plan("Too much", Plan(status=429))
    page = await extension.open("claude")
    await extension.say(page, "Too much")
    await extension.say(page, "Less")

    saved = await extension.until_saved(
        lambda found: len(found) == 2 and found[1]["status"] == "complete"
    )

    assert [memory["status"] for memory in saved] == ["waiting", "complete"]


async def type_and_send(page: Page, text: str) -> None:
    await page.locator("[contenteditable=true]").click()
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


async def test_a_site_that_has_moved_is_noticed_and_read_from_the_page(
    extension: Extension, sites: Sites
) -> None:
    usual = await extension.open("claude")
    await type_and_send(usual, "Nothing has moved here")
    page = await extension.open("chatgpt")
    moved = json.dumps({"moved": True})
    await page.evaluate("moved => { document.documentElement.dataset.options = moved }", moved)
    await type_and_send(page, "Are you still there?")
    await extension.until_saved(whole(2), 30)
    await type_and_send(page, "And now?")

    here, *saved = await extension.until_saved(whole(3), 30)

    assert here["metadata"]["capture"] == "network"
    assert [memory["prompt"] for memory in saved] == ["Are you still there?", "And now?"]
    assert [memory["response"] for memory in saved] == [turn.answer for turn in sites.turns[1:]]
    assert {memory["metadata"]["capture"] for memory in saved} == {"dom"}
    assert (await extension.status(page))["here"]["domMode"] is True
    told = json.loads(await extension.send({"type": "diagnostics"}))
    [row] = [row for row in told["counters"] if row["site"] == "chatgpt"]
    assert row["counts"] == {"odd": 2, "missed": 2, "dom": 2, "complete": 2}
    assert "odd chatgpt.com/backend-api/*/turns" in row["details"]
    assert "still there" not in json.dumps(told)


async def test_a_page_cannot_see_or_be_hurt_by_the_tap(extension: Extension, sites: Sites) -> None:
    page = await extension.open("chatgpt")
    found = await page.evaluate(
        """async () => {
      const told = [];
      addEventListener("message", (event) => told.push(event.data));
      await send("Hello");
      const failing = await fetch("https://nowhere.invalid/").catch((error) => error.name);
      const frame = document.createElement("iframe");
      document.body.append(frame);
      const usual = new Set(Object.getOwnPropertyNames(frame.contentWindow));
      const own = Object.getOwnPropertyNames(window).filter((name) => !usual.has(name));
      const { open, send: sendXhr } = XMLHttpRequest.prototype;
      return {
        told, failing,
        names: [fetch.name, open.name, sendXhr.name, WebSocket.name],
        isSocket: new WebSocket("wss://ws.chatgpt.com/socket") instanceof WebSocket,
        strange: own.filter((name) => !KNOWN.has(name)),
      };
    }""".replace("KNOWN", f"new Set({SITES_OWN_NAMES!r})")
    )

    assert found == {
        "told": [],
        "failing": "TypeError",
        "names": ["fetch", "open", "send", "WebSocket"],
        "isSocket": True,
        "strange": [],
    }


async def test_forged_messages_of_a_page_save_nothing(extension: Extension, sites: Sites) -> None:
    page = await extension.open("chatgpt")
    forged = {
        "k": "request",
        "n": 1,
        "method": "POST",
        "url": "https://chatgpt.com/backend-api/f/conversation",
        "body": json.dumps({"action": "next", "messages": []}),
    }
    await page.evaluate(
        """forged => {
          const { port1, port2 } = new MessageChannel();
          window.postMessage("", location.origin, [port2]);
          port1.postMessage(forged);
          window.postMessage(forged, location.origin);
        }""",
        forged,
    )
    await extension.say(page, f"Real {uuid4()}")

    [memory] = await extension.until_saved(whole(1))

    assert memory["prompt"].startswith("Real")


async def test_nothing_is_saved_where_it_is_paused(extension: Extension, sites: Sites) -> None:
    page = await extension.open("claude")
    await extension.say(page, "one")
    tab = await extension.tab_of(page)
    await extension.send({"type": "setPause", "tabId": tab, "paused": True})
    assert (await extension.status(page))["here"]["paused"] is True
    await extension.say(page, "secret of this conversation")
    await extension.send({"type": "setPause", "tabId": tab, "paused": False})
    await extension.say(page, "two")
    await extension.send({"type": "setSite", "site": "claude", "on": False})
    await extension.say(page, "secret of this site")
    await extension.send({"type": "setSite", "site": "claude", "on": True})
    await extension.say(page, "three")

    saved = await extension.until_saved(whole(3))

    assert [memory["prompt"] for memory in saved] == ["one", "two", "three"]


async def test_a_new_chat_can_be_paused_before_it_has_a_name(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("grok")
    tab = await extension.tab_of(page)
    await extension.send({"type": "setPause", "tabId": tab, "paused": True})
    await extension.say(page, "secret")
    await page.wait_for_timeout(1_000)
    await page.reload()
    await expect(page).to_have_title("ready")
    await extension.say(page, "secret too")
    other = await extension.open("grok")
    await extension.say(other, "open")

    [memory] = await extension.until_saved(whole(1))

    assert memory["prompt"] == "open"
