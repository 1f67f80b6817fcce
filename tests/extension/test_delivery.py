"""Whatever happens to worker, server, network or session: everything arrives, and once."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from playwright.async_api import Page

from tests.conftest import PASSWORD, Server, until
from tests.extension.conftest import (
    ALL_SITES,
    Extension,
    Home,
    browser_with,
    set_up,
    whole,
)
from tests.extension.sites import Plan, Sites


async def waiting(extension: Extension, count: int) -> None:
    async def holds() -> bool:
        return bool((await extension.status())["waiting"] == count)

    await until(holds, 20)


async def asking_for_a_sign_in(extension: Extension) -> None:
    async def asks() -> bool:
        return bool((await extension.status())["needsSignIn"])

    await until(asks, 20)


async def up(server: Server) -> None:
    await asyncio.to_thread(server.wait_until_ready)


@pytest.fixture
async def own_server(make_server: Callable[..., Server]) -> Server:
    """A server that a test may kill."""
    server = make_server()
    await up(server)
    return server


@pytest.fixture
async def guest(fresh: Extension, sites: Sites, own_server: Server) -> Extension:
    """The extension, set up for a server that a test may kill."""
    fresh.server = own_server
    await set_up(fresh)
    return fresh


async def test_a_server_that_was_away_gets_everything_once(guest: Extension, sites: Sites) -> None:
    guest.server.kill()
    for site in ALL_SITES:
        await guest.say(await guest.open(site), f"Said to {site} meanwhile")
    await waiting(guest, 8)
    status = await guest.status()
    assert status["why"] == "away"

    guest.server.start()
    await up(guest.server)
    await guest.send({"type": "retryNow"})

    saved = await guest.until_saved(whole(4))
    assert {(m["prompt"], m["response"]) for m in saved} == {
        (turn.prompt, turn.answer) for turn in sites.turns
    }
    assert (await guest.status())["waiting"] == 0


async def test_nobody_needs_to_press_a_button_for_that(guest: Extension, sites: Sites) -> None:
    guest.server.kill()
    await guest.say(await guest.open("claude"), "Said meanwhile")
    await waiting(guest, 2)
    guest.server.start()
    await up(guest.server)

    await guest.until_saved(whole(1))


async def test_a_worker_that_is_killed_leaves_nothing_behind(
    guest: Extension, sites: Sites
) -> None:
    """What waits is on disk, and an alarm wakes a new worker up."""
    guest.server.kill()
    page = await guest.open("chatgpt")
    await guest.say(page, "Before the worker died")
    await waiting(guest, 2)
    await guest.kill_worker()
    guest.server.start()
    await up(guest.server)

    await guest.until_saved(whole(1))


async def test_a_worker_may_die_at_any_moment(extension: Extension, sites: Sites) -> None:
    page = await extension.open("claude")
    for n in range(10):
        said = asyncio.create_task(extension.say(page, f"Turn {n}"))
        await asyncio.sleep(sites.chance.random() / 10)
        await extension.kill_worker()
        await said

    saved = await extension.until_saved(whole(10))

    assert [memory["prompt"] for memory in saved] == [f"Turn {n}" for n in range(10)]


async def test_what_waits_outlives_the_browser(
    built: Path,
    sites: Sites,
    own_server: Server,
    tmp_path: Path,
) -> None:
    async with browser_with(built, sites, tmp_path, own_server) as extension:
        await set_up(extension)
        headers = extension.headers
        own_server.kill()
        await extension.say(await extension.open("grok"), "Said before the browser closed")
        await waiting(extension, 2)
    own_server.start()
    await up(own_server)
    async with browser_with(built, sites, tmp_path, own_server) as extension:
        extension.headers = headers
        [memory] = await extension.until_saved(whole(1))

    assert memory["prompt"] == "Said before the browser closed"


async def test_an_expired_access_token_is_renewed(
    fresh: Extension, sites: Sites, make_server: Callable[..., Server]
) -> None:
    fresh.server = make_server(ACCESS_TOKEN_SECONDS="60")
    await up(fresh.server)
    await set_up(fresh)
    # It is in its last 90 seconds from the beginning: every call renews it.
    before = await session_of(fresh)
    await fresh.say(await fresh.open("claude"), "Who am I?")

    await fresh.until_saved(whole(1))

    assert (await session_of(fresh))["refresh_token"] != before["refresh_token"]


async def session_of(extension: Extension) -> Any:
    get = "async () => JSON.parse((await chrome.storage.local.get('session')).session)"
    return await extension.own.evaluate(get)


async def test_a_lost_session_holds_everything_until_the_same_person_signs_in(
    extension: Extension, sites: Sites
) -> None:
    async with httpx.AsyncClient(base_url=extension.server.url) as client:
        await client.post("/auth/v1/logout", headers=extension.headers)
    break_session = """async () => {
      const stored = JSON.parse((await chrome.storage.local.get("session")).session);
      const session = {...stored, access_token: "x.y.z", refresh_token: "spent"};
      await chrome.storage.local.set({session: JSON.stringify(session)});
    }"""
    await extension.own.evaluate(break_session)
    page = await extension.open("claude")
    await extension.say(page, "Said without a session")
    await waiting(extension, 2)
    await asking_for_a_sign_in(extension)

    other = {"email": f"{uuid4().hex[:8]}@example.com", "password": PASSWORD}
    assert await extension.send({"type": "signUp"} | other) == {"ok": True}
    status = await extension.status()
    assert (status["waiting"], status["others"]) == (0, 2)
    person = {"email": extension.email, "password": PASSWORD}
    assert await extension.send({"type": "signIn"} | person) == {"ok": True}

    async with httpx.AsyncClient(base_url=extension.server.url) as client:
        answer = await client.post("/auth/v1/token?grant_type=password", json=person)
        extension.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        stranger = await client.post("/auth/v1/token?grant_type=password", json=other)
    [memory] = await extension.until_saved(whole(1))
    assert memory["prompt"] == "Said without a session"
    extension.headers = {"Authorization": f"Bearer {stranger.json()['access_token']}"}
    assert await extension.memories() == []


async def test_a_personal_token_does_instead_of_a_password(
    extension: Extension, sites: Sites
) -> None:
    async with httpx.AsyncClient(
        base_url=extension.server.url, headers=extension.headers
    ) as client:
        body = {"name": "a browser", "scopes": ["read", "write"]}
        made = (await client.post("/tokens", json=body)).json()["data"]
        assert await extension.send({"type": "signOut"}) == {"ok": True}
        wrong = await extension.send({"type": "useToken", "token": "ml_nobodys"})
        assert "refuses" in wrong["problem"]
        assert await extension.send({"type": "useToken", "token": made["token"]}) == {"ok": True}
        page = await extension.open("gemini")
        await extension.say(page, "Said with a token")
        await extension.until_saved(whole(1))

        await client.delete(f"/tokens/{made['about']['id']}")
        await asyncio.sleep(5)
    await extension.say(page, "Said after the token was revoked")
    await waiting(extension, 2)
    await asking_for_a_sign_in(extension)


async def test_accounts_of_a_supabase_project_sign_in_there(
    fresh: Extension, sites: Sites, make_server: Callable[..., Server]
) -> None:
    """A server at home speaks the project's protocol, and so stands for one here."""
    project = make_server()
    keys = f"{project.url}/auth/v1/.well-known/jwks.json"
    fresh.server = make_server(SUPABASE_URL="http://127.0.0.1", SUPABASE_JWKS_URL=keys)
    await up(project)
    await up(fresh.server)
    asked = await fresh.send({"type": "useServer", "server": fresh.server.url})
    assert asked == {"answers": False, "services": []}
    url = f"{project.url}/"
    offered = await fresh.send({"type": "useSupabase", "url": url, "key": "sb_publishable_x"})
    assert offered["answers"] is True
    person = {"email": fresh.email, "password": PASSWORD}
    assert await fresh.send({"type": "signUp"} | person) == {"ok": True}
    await fresh.send({"type": "agree", "sites": ["claude"]})

    await fresh.say(await fresh.open("claude"), "Kept for a user of Supabase")

    async with httpx.AsyncClient(base_url=project.url) as client:
        answer = await client.post("/auth/v1/token?grant_type=password", json=person)
    fresh.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    await fresh.until_saved(whole(1))


async def test_a_full_outbox_keeps_the_oldest_and_says_so(guest: Extension, sites: Sites) -> None:
    """Texts are counted as two bytes a character: 30 of 2 MB are more than 50 MB."""
    guest.server.kill()
    page = await guest.open("claude")
    for n in range(30):
        sites.plan(f"Turn {n}", Plan(answer="x" * 1_000_000, chunks=8))
        await guest.say(page, f"Turn {n}")

    async def full() -> bool:
        return bool((await guest.status())["full"])

    async def marked() -> bool:
        return bool(await guest.own.evaluate("chrome.action.getBadgeText({})") == "!")

    await until(full, 60)
    await until(marked)
    here = (await guest.status(page))["here"]
    # What could not be kept is counted all the same.
    assert (here["saved"], here["all"]) == (0, 30)
    guest.server.start()
    await up(guest.server)
    await guest.send({"type": "retryNow"})
    await waiting(guest, 0)

    saved = await guest.until_saved(lambda found: len(found) == 30)
    kept = [memory["prompt"] for memory in saved if memory["status"] == "complete"]
    assert 20 <= len(kept) < 30
    assert kept == [f"Turn {n}" for n in range(len(kept))]
    here = (await guest.status(page))["here"]
    assert (here["saved"], here["all"]) == (len(kept), 30)


async def test_a_spent_day_is_held_until_it_is_reset(
    fresh: Extension, sites: Sites, make_server: Callable[..., Server]
) -> None:
    fresh.server = make_server(DEFAULT_TIER="free", FREE_PER_DAY="1")
    await up(fresh.server)
    await set_up(fresh)
    await fresh.say(await fresh.open("claude"), "One too many")
    await waiting(fresh, 1)

    async def held() -> bool:
        status = await fresh.status()
        return status["why"] == "quota" and status["until"] is not None

    await until(held, 10)
    assert (await fresh.status())["dead"] == []


async def test_only_what_the_server_calls_invalid_is_set_aside_and_shown(
    extension: Extension, sites: Sites, cluster: str
) -> None:
    sites.plan("Too long", Plan(answer="x" * (1024 * 1024 + 1)))
    page = await extension.open("claude")
    await extension.say(page, "Too long")
    await extension.say(page, "Fine")

    async def buried() -> bool:
        return bool((await extension.status())["dead"])

    await until(buried, 20)
    [dead] = (await extension.status())["dead"]
    assert (dead["code"], dead["label"]) == ("TOO_LARGE", "Too long")
    assert len(dead["text"]) == 1024 * 1024 + 1
    saved = await extension.until_saved(lambda found: len(found) == 2)
    assert {memory["prompt"] for memory in saved} == {"Too long", "Fine"}
    here = (await extension.status(page))["here"]
    assert (here["saved"], here["all"]) == (1, 2)

    await extension.send({"type": "discardDead", "key": dead["key"]})
    assert (await extension.status())["dead"] == []


async def test_the_page_of_a_cafe_is_not_taken_for_an_acknowledgement(
    guest: Extension, sites: Sites
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"<h1>Welcome to our Wi-Fi</h1>"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n"
        writer.write(head + f"content-length: {len(page)}\r\n\r\n".encode() + page)
        await writer.drain()
        writer.close()

    guest.server.kill()
    cafe = await asyncio.start_server(answer, "127.0.0.1", guest.server.port)
    await guest.say(await guest.open("claude"), "Said in a café")
    await waiting(guest, 2)
    cafe.close()
    await cafe.wait_closed()
    guest.server.start()
    await up(guest.server)
    await guest.send({"type": "retryNow"})

    await guest.until_saved(whole(1))


@asynccontextmanager
async def proxied(extension: Extension, judge: Callable[[bytes], str]) -> AsyncIterator[None]:
    """Something between browser and server that, as `judge` says of a request, lets it "pass",
    "refuse"s it with a page of its own, or "swallow"s the server's reply."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        body = await reader.readexactly(int(length[1])) if length else b""
        verdict = judge(body)
        if verdict == "refuse":
            page = b"<h1>413 Request Entity Too Large</h1>"
            writer.write(b"HTTP/1.1 413 No\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n")
            writer.write(page)
        else:
            to, back = await asyncio.open_connection("127.0.0.1", extension.server.port)
            back.write(re.sub(rb"(?i)connection: keep-alive", b"connection: close", head) + body)
            said = await to.read()
            back.close()
            writer.write(b"" if verdict == "swallow" else said)
        await writer.drain()
        writer.close()

    between = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = between.sockets[0].getsockname()[1]
    change = "server => chrome.storage.local.set({server})"
    await extension.own.evaluate(change, f"http://127.0.0.1:{port}")
    yield
    between.close()


async def test_a_proxy_that_refuses_one_turn_does_not_hold_up_the_others(
    extension: Extension, sites: Sites
) -> None:
    """It is no server of ours that says so, so the turn waits: its proxy may be mended."""
    strict = True
    async with proxied(
        extension, lambda body: "refuse" if strict and b"Forbidden words" in body else "pass"
    ):
        page = await extension.open("claude")
        await extension.say(page, "Forbidden words")
        await extension.say(page, "Harmless words")
        await extension.until_saved(
            lambda found: "Harmless words" in {m["prompt"] for m in found if m["response"]}
        )
        status = await extension.status()
        assert status["dead"] == [] and status["waiting"] >= 1

        strict = False
        await extension.send({"type": "retryNow"})
        await extension.until_saved(whole(2))


async def test_a_prompt_whose_reply_got_lost_is_not_saved_under_another_name(
    extension: Extension, sites: Sites
) -> None:
    """Grok names its prompts late: by then the first name may be on the server."""
    swallowed: list[bytes] = []

    def judge(body: bytes) -> str:
        if b"Who are you?" in body and len(swallowed) < 3:
            swallowed.append(body)
            return "swallow"
        return "pass"

    async with proxied(extension, judge):
        news = {
            "key": str(uuid4()),
            "provider": "grok",
            "facts": {"metadata": {"capture": "network"}},
            "occurredAt": "2026-11-21T09:00:00Z",
        }
        page = await extension.open("grok")
        tell = await beside(page)
        prompt = {"type": "prompt", "prompt": "Who are you?", "unnamed": True}
        assert await tell(news | prompt)
        await until(lambda: asyncio.sleep(0, len(swallowed) > 0), 10)
        named = news | {"messageId": "u-1", "unnamed": False}
        assert await tell(named | prompt | {"unnamed": False})
        answer = {"type": "answer", "response": "Grok", "status": "complete", "checkpoint": False}
        assert await tell(named | answer)
        await waiting(extension, 0)

    assert [m["prompt"] for m in await extension.until_saved(whole(1))] == ["Who are you?"]


async def beside(page: Page) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Return a way to tell the worker something as the script beside this page would."""
    session = await page.context.new_cdp_session(page)
    worlds: list[dict[str, Any]] = []
    session.on("Runtime.executionContextCreated", lambda event: worlds.append(event["context"]))
    await session.send("Runtime.enable")

    def own() -> list[int]:
        return [w["id"] for w in worlds if w["origin"].startswith("chrome-extension://")]

    await until(lambda: asyncio.sleep(0, bool(own())), 10)

    async def tell(message: dict[str, Any]) -> Any:
        expression = f"chrome.runtime.sendMessage({json.dumps(message)})"
        sent = {"expression": expression, "contextId": own()[0], "awaitPromise": True}
        return (await session.send("Runtime.evaluate", sent))["result"].get("value")

    return tell


async def test_an_undo_that_the_server_has_not_heard_of_is_none(
    guest: Extension, sites: Sites
) -> None:
    await guest.say(await guest.open("claude"), "Not this")
    await guest.until_saved(whole(1))
    await waiting(guest, 0)
    last = (await guest.status())["last"]
    guest.server.kill()

    said = await guest.send({"type": "undo", "key": last["key"]})

    assert said == {"problem": "The server does not answer."}
    assert (await guest.status())["last"] == last
    guest.server.start()
    await up(guest.server)
    assert await guest.send({"type": "undo", "key": last["key"]}) == {"ok": True}
    assert await guest.memories() == []


async def test_undo_deletes_the_last_memory_and_nothing_brings_it_back(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("claude")
    await extension.say(page, "Keep this")
    await extension.say(page, "Not this")
    await extension.until_saved(whole(2))
    await waiting(extension, 0)
    last = (await extension.status())["last"]
    assert last["label"] == "Not this"

    assert await extension.send({"type": "undo", "key": last["key"]}) == {"ok": True}

    assert [memory["prompt"] for memory in await extension.memories()] == ["Keep this"]
    assert (await extension.status())["last"]["label"] == "Keep this"


async def test_without_an_agreement_nothing_is_kept_anywhere(
    fresh: Extension, sites: Sites
) -> None:
    await fresh.send({"type": "useServer", "server": fresh.server.url})
    person = {"email": fresh.email, "password": PASSWORD}
    assert await fresh.send({"type": "signUp"} | person) == {"ok": True}
    page = await fresh.open("chatgpt")
    await fresh.say(page, "Not agreed")
    await fresh.send({"type": "agree", "sites": ["claude"]})
    await fresh.say(page, "Not to this site")
    await page.wait_for_timeout(500)

    counts = """async () => {
      const opening = indexedDB.open("memory-layer");
      const opened = new Promise((done) => (opening.onsuccess = () => done(opening.result)));
      const database = await opened;
      const count = async (name) => {
        const asked = database.transaction(name).objectStore(name).count();
        return new Promise((done) => (asked.onsuccess = () => done(asked.result)));
      };
      const counted = [await count("turns"), await count("bodies")];
      database.close();
      return counted;
    }"""
    assert await fresh.own.evaluate(counts) == [0, 0]


async def test_the_operator_sees_how_well_the_sites_are_read(
    extension: Extension, sites: Sites, home: Home
) -> None:
    await extension.say(await extension.open("gemini"), "Count me")
    await extension.until_saved(whole(1))
    await extension.own.evaluate("chrome.alarms.create('health', {when: Date.now()})")
    database = await asyncpg.connect(home.database_url)
    me = (await extension.status())["account"]
    query = """SELECT h.site, h.network, h.dom, h.missed FROM memory_layer.capture_health h
                 JOIN memory_layer_auth.users u ON u.id = h.user_id WHERE u.email = $1"""

    async def told() -> bool:
        return bool(await database.fetch(query, me))

    await until(told, 20)
    assert [tuple(row) for row in await database.fetch(query, me)] == [("gemini", 1, 0, 0)]
    await database.close()
