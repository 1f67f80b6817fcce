"""The page of a person's own, in a real browser: signing in, and reading what was said."""

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import expect

from core.config import ROOT
from tests.conftest import PASSWORD, Server, execute, issue_token, sign_up, url_of
from tests.test_panel import WATCH, Watched, squeezed
from tests.xss import PAYLOADS

NOW = datetime.now(UTC)
AXE = ROOT / "tests/clients/axe/node_modules/axe-core/axe.min.js"
ANSWER = """Use `sorted`, **always**.

```python
print(sorted(names))
```

1. One
   - nested
2. Two

| a | b |
| - | - |
| 1 | 2 |

See https://example.com/a_b_c and [this](https://example.com/x), not [that](javascript:alert(1)).
![A chart](https://example.com/chart.png) <b>bold</b>
"""


@pytest.fixture(scope="module")
async def server(cluster):
    """A server without an embedder, whose people may do much."""
    name = f"test_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    server = Server(DATABASE_URL=url_of(cluster, name), ACCESS_TOKEN_SECONDS="120")
    server.start()
    await asyncio.to_thread(server.wait_until_ready)
    yield server
    server.close()
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def client(server):
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


@asynccontextmanager
async def opened(browser, url, path="", **context):
    """The page, watched to its end."""
    window = await browser.new_context(locale="en-GB", timezone_id="Europe/Berlin", **context)
    await window.add_init_script(WATCH)
    page = await window.new_page()
    watched = Watched(page)
    await page.goto(f"{url}/{path}")
    yield page
    await watched.end()
    await window.close()


@pytest.fixture
async def page(browser, server, client):
    """Somebody new has signed in; `page.headers` speak for them to the API."""
    email = f"ann-{uuid4().hex[:8]}@example.com"
    answer = await client.post("/auth/v1/signup", json={"email": email, "password": PASSWORD})
    async with opened(browser, server.url) as page:
        page.email = email
        page.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        await sign_in(page, email)
        await expect(page.get_by_role("heading", name="Timeline", level=1)).to_be_visible()
        yield page


async def sign_in(page, email, password=PASSWORD):
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def go_to(page, place):
    await page.goto(f"{page.url.partition('#')[0]}#/{place}")
    await expect(page.locator(".screen:not([aria-busy])")).to_have_count(1)


async def save(client, headers, prompt, response=None, hours_ago=1, **more):
    at = (NOW - timedelta(hours=hours_ago)).isoformat()
    body = {"prompt": prompt, "provider": "claude", "occurred_at": at} | more
    memory = (await client.post("/save-prompt", json=body, headers=headers)).json()["data"]
    if response is not None:
        body = {"memory_id": memory["memory_id"], "response": response}
        await client.post("/save-response", json=body, headers=headers)
    return memory["memory_id"]


def heading(page, text):
    return page.get_by_role("heading", name=text, level=1)


async def test_a_newcomer_makes_an_account_and_finds_what_is_saved_then(browser, server, client):
    async with opened(browser, server.url) as page:
        await page.get_by_role("button", name="Make an account").click()
        await page.get_by_label("E-mail").fill(email := f"new-{uuid4().hex[:8]}@example.com")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Create account").click()
        await expect(page.get_by_text("Your memory is empty")).to_be_visible()

        signed_in = {"email": email, "password": PASSWORD}
        answer = await client.post("/auth/v1/token?grant_type=password", json=signed_in)
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        chat = {"conversation_id": "c/1?x", "conversation_title": "Sorting names"}
        await save(client, headers, "How do I sort names?", ANSWER, **chat)
        await save(client, headers, "A walrus, alone", hours_ago=50, provider="grok")
        await page.reload()

        await page.get_by_role("link", name="Sorting names").click()
        await expect(heading(page, "Sorting names")).to_be_focused()
        await expect(page.locator(".answer code.language-python")).to_have_text(
            "print(sorted(names))"
        )
        await page.get_by_role("link", name="Search").click()
        await page.get_by_role("searchbox").fill("walrus")
        await expect(page.locator("mark")).to_have_text("walrus")
        await page.get_by_role("link", name="A walrus, alone").click()
        await expect(page.get_by_text("A walrus, alone")).to_be_visible()


async def test_a_wrong_password_is_told_and_a_reload_stays_signed_in(browser, server, client):
    email = f"ann-{uuid4().hex[:8]}@example.com"
    await client.post("/auth/v1/signup", json={"email": email, "password": PASSWORD})
    async with opened(browser, server.url, "#/search?q=walrus") as page:
        await sign_in(page, email, "not this one")
        await expect(page.get_by_role("alert")).to_contain_text("Invalid login credentials")
        await sign_in(page, email)
        await expect(page.get_by_role("searchbox")).to_have_value("walrus")

        await page.reload()
        await expect(page.get_by_role("searchbox")).to_have_value("walrus")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()

        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0
        refreshed = await page.evaluate("navigator.cookieEnabled && document.cookie")
        assert refreshed == ""


async def test_two_tabs_go_on_when_their_token_has_ended(browser, server, client):
    email = f"ann-{uuid4().hex[:8]}@example.com"
    await client.post("/auth/v1/signup", json={"email": email, "password": PASSWORD})
    async with opened(browser, server.url) as page:
        await sign_in(page, email)
        await expect(heading(page, "Timeline")).to_be_visible()
        # As after an hour: the access token is of no use, the refresh token is.
        await page.evaluate(
            """() => {
              const kept = JSON.parse(localStorage["memory-layer-session"]);
              localStorage["memory-layer-session"] = JSON.stringify({ ...kept, expires_at: 0 });
            }"""
        )
        other = await page.context.new_page()

        await asyncio.gather(page.reload(), other.goto(server.url))

        for tab in (page, other):
            await expect(tab.get_by_text("Your memory is empty")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(other.get_by_role("button", name="Sign in")).to_be_visible()


async def test_a_session_that_was_ended_elsewhere_asks_again_and_goes_on(page, client):
    await client.post("/auth/v1/logout", headers=page.headers)
    await page.evaluate(
        """() => {
          const kept = JSON.parse(localStorage["memory-layer-session"]);
          localStorage["memory-layer-session"] = JSON.stringify(
            { ...kept, access_token: "x", refresh_token: "y" });
        }"""
    )

    await page.get_by_role("link", name="Search").click()
    await expect(page.get_by_text("Your session has ended")).to_be_visible()
    await sign_in(page, page.email)

    await expect(heading(page, "Search")).to_be_visible()


async def test_a_personal_token_opens_the_page_too_and_a_made_up_one_does_not(
    browser, server, client
):
    owner = await sign_up(client, "ann")
    bearer = (await issue_token(client, owner, "read"))["Authorization"].split()[1]
    async with opened(browser, server.url) as page:
        await page.get_by_role("button", name="Use a personal token").click()
        await page.get_by_label("Token").fill("ml_made-up")
        await page.get_by_role("button", name="Go on").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await page.get_by_label("Keep me signed in").uncheck()
        await page.get_by_label("Token").fill(bearer)
        await page.get_by_role("button", name="Go on").click()

        await expect(page.get_by_text("Your memory is empty")).to_be_visible()
        assert await page.evaluate("localStorage.length") == 0


async def test_the_timeline_goes_on_by_itself_and_is_where_it_was_on_the_way_back(page, client):
    for n in range(45):
        more = {"conversation_id": f"c{n}", "conversation_title": f"Matter {n}"}
        await save(client, page.headers, f"question {n}", hours_ago=n * 5, **more)
    await page.reload()
    await expect(page.locator(".entry").first).to_contain_text("Matter 0")
    await expect(page.get_by_role("heading", level=2).first).to_be_visible()

    await page.locator(".entry").last.scroll_into_view_if_needed()
    await expect(page.locator(".entry")).to_have_count(45)
    await page.get_by_role("link", name="Matter 44").click()
    await expect(heading(page, "Matter 44")).to_be_visible()
    await page.go_back()

    await expect(page.locator(".entry")).to_have_count(45)
    await expect(page.get_by_role("link", name="Matter 44")).to_be_in_viewport()


async def test_the_picture_of_the_year_leads_to_a_day(page, client):
    await save(client, page.headers, "today's", hours_ago=0)
    await save(client, page.headers, "of last month", hours_ago=24 * 30)
    await page.reload()
    picture = page.get_by_role("group", name="Activity by day")
    await expect(page.get_by_text("2 memories on 2 days")).to_be_visible()

    await picture.focus()
    await page.keyboard.press("End")
    for _ in range(3):
        await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Enter")

    await expect(page.locator(".chip.chosen")).to_contain_text("Until")
    await expect(page.locator(".entry")).to_have_count(1)
    await expect(page.locator(".entry")).to_contain_text("of last month")


async def test_one_assistants_chats_can_be_shown_alone(page, client):
    await save(client, page.headers, "to Claude")
    await save(client, page.headers, "to Grok", provider="grok")
    await page.reload()

    await page.get_by_role("link", name="Grok 1").click()

    await expect(page.locator(".entry")).to_have_count(1)
    await expect(page.locator(".entry")).to_contain_text("to Grok")


async def test_the_search_follows_what_is_typed_and_drops_stale_answers(page, client):
    await save(client, page.headers, "walrus on the ice")
    await save(client, page.headers, "zebra in the grass", provider="grok")
    await go_to(page, "search")
    held = asyncio.Event()

    async def hold(route):
        if "walrus" in route.request.post_data:
            await held.wait()
        await route.continue_()

    await page.route("**/search", hold)
    async with page.expect_request("**/search"):
        await page.get_by_role("searchbox").fill("walrus")
    await page.get_by_role("searchbox").fill("zebra")
    await expect(page.locator("mark")).to_have_text("zebra")
    held.set()
    await page.wait_for_timeout(150)

    await expect(page.locator("mark")).to_have_text("zebra")
    await page.get_by_label("Assistant").select_option("Claude")
    await expect(page.get_by_text("Nothing was found")).to_be_visible()
    assert page.url.endswith("#/search?q=zebra&provider=claude")


async def test_repeats_and_what_is_outdated_are_said_in_words(page, client):
    for hours in (3, 2):
        await save(client, page.headers, "My sister lives in Porto by the sea", hours_ago=hours)
    older = "Remember that my favourite colour is green"
    await save(client, page.headers, older, hours_ago=900)
    await save(client, page.headers, "Remember that my favourite colour is blue now", hours_ago=1)
    await go_to(page, "search?q=sister%20Porto")

    await expect(page.locator(".hit")).to_have_count(1)
    await page.get_by_text("1 memory says nearly the same").click()
    await expect(page.locator(".hit details a")).to_be_visible()
    await page.get_by_role("searchbox").fill("favourite colour")
    await expect(page.locator(".hit").last.get_by_text("Something newer")).to_be_visible()


async def test_a_conversation_shows_what_was_said_and_nothing_it_asks_for(page, client):
    chat = {"conversation_id": "c1", "conversation_title": "Sorting"}
    first = await save(client, page.headers, "How do I sort?", ANSWER, hours_ago=3, **chat)
    again = {"metadata": {"replaces": first}}
    await save(client, page.headers, "How do I sort?", "Otherwise.", 2, **chat, **again)
    partial = await save(client, page.headers, "And then?", None, 1, **chat)
    body = {"memory_id": partial, "response": "It brea", "status": "partial"}
    await client.post("/save-response", json=body, headers=page.headers)
    await save(client, page.headers, "Still there?", None, 0, **chat)

    await go_to(page, "conversation/claude/c1")

    turns = page.get_by_role("article")
    await expect(turns).to_have_count(4)
    await expect(turns.nth(0).locator("ol > li")).to_have_count(2)
    await expect(turns.nth(0).locator("ol ul > li")).to_have_text("nested")
    await expect(turns.nth(0).locator("td")).to_have_text(["1", "2"])
    links = (
        await turns.nth(0)
        .locator(".answer a")
        .evaluate_all("links => links.map((link) => [link.textContent, link.href, link.rel])")
    )
    safe = "noopener noreferrer nofollow"
    assert links == [
        ["https://example.com/a_b_c", "https://example.com/a_b_c", safe],
        ["this", "https://example.com/x", safe],
        ["Image: A chart", "https://example.com/chart.png", safe],
    ]
    await expect(turns.nth(0)).to_contain_text("[that](javascript:alert(1))")
    await expect(turns.nth(0)).to_contain_text("<b>bold</b>")
    await expect(turns.nth(1)).to_contain_text("Another answer to the same prompt")
    await expect(turns.nth(2)).to_contain_text("Broke off")
    await expect(turns.nth(3)).to_contain_text("No answer was captured")


async def test_a_long_conversation_opens_where_a_search_leads_and_goes_both_ways(page, client):
    chat = {"conversation_id": "long", "conversation_title": "Long"}
    for n in range(100):
        text = "the walrus" if n == 60 else f"turn {n:03}"
        await save(client, page.headers, text, hours_ago=200 - n, **chat)
    await go_to(page, "search?q=walrus")
    await page.get_by_role("link", name="Long").first.click()

    await expect(page.locator(".target")).to_contain_text("the walrus")
    await expect(page.get_by_role("article")).to_have_count(40)
    await page.get_by_role("button", name="Show what came before").click()
    await expect(page.get_by_role("article")).to_have_count(80)
    await page.get_by_role("button", name="Show what came before").click()
    await expect(page.get_by_role("article")).to_have_count(100)
    texts = await page.locator(".prompt .plain").all_inner_texts()
    assert texts == ["the walrus" if n == 60 else f"turn {n:03}" for n in range(100)]
    await expect(page.get_by_role("button", name="Show what came before")).to_be_hidden()


async def test_a_memory_is_edited_brought_back_deleted_and_undone(page, client):
    memory = await save(client, page.headers, "I like tea", "Noted.")
    await go_to(page, f"memory/{memory}")

    await page.get_by_role("button", name="Edit").click()
    await page.get_by_label("Prompt").fill("I like coffee")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".prompt")).to_contain_text("I like coffee")

    await page.get_by_role("button", name="Versions").click()
    await expect(page.get_by_role("dialog")).to_contain_text("I like tea")
    await page.get_by_role("button", name="Bring this one back").click()
    await expect(page.locator(".prompt")).to_contain_text("I like tea")

    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("In the trash for 30 days")).to_be_visible()
    assert (await client.get(f"/memories/{memory}", headers=page.headers)).status_code == 404
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".prompt")).to_contain_text("I like tea")
    assert (await client.get(f"/memories/{memory}", headers=page.headers)).status_code == 200


async def test_an_edit_does_not_overwrite_what_another_has_changed(page, client):
    memory = await save(client, page.headers, "first", "Noted.")
    await go_to(page, f"memory/{memory}")
    await page.get_by_role("button", name="Edit").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    change = {"prompt": "theirs"}
    await client.patch(f"/memories/{memory}", json=change, headers=page.headers)

    await page.get_by_label("Prompt").fill("mine")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("changed elsewhere")
    await expect(page.locator(".prompt")).to_contain_text("theirs")
    await page.get_by_role("button", name="Save").click()

    await expect(page.locator(".prompt")).to_contain_text("mine")


async def test_reading_can_be_done_by_keyboard_alone(page, client):
    await save(
        client, page.headers, "The walrus", "Sleeps.", conversation_id="c", conversation_title="Ice"
    )
    await page.reload()
    await expect(page.get_by_role("link", name="Ice")).to_be_visible()

    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.type("walrus")
    await expect(page.locator("mark")).to_have_text("walrus")
    await page.get_by_role("link", name="Ice").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".target")).to_be_focused()
    await page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert await focused.evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
    await page.get_by_role("button", name="Edit").press("Enter")
    await expect(page.get_by_label("Prompt")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Edit")).to_be_focused()


async def test_nothing_of_a_hundred_attacks_runs_as_script(page, client):
    made = []
    for n, payload in enumerate(PAYLOADS):
        chat = {"conversation_id": payload[:400], "conversation_title": payload}
        body = {"url": f"javascript:alert({n})", "model": payload[:200]}
        formatted = f"{payload}\n\n[x]({payload})\n\n```{payload}\n{payload}\n```\n> {payload}"
        made.append(await save(client, page.headers, payload, formatted, n, **chat, **body))
    await page.reload()
    await expect(page.locator(".entry").first).to_be_visible()
    for _ in range(4):
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await page.wait_for_timeout(120)
    seen = await page.inner_text("body")
    for n in range(0, 100, 4):
        chat = await page.evaluate("encodeURIComponent", PAYLOADS[n][:400])
        await go_to(page, f"conversation/claude/{chat}")
        seen += await page.inner_text("body")
        await go_to(page, f"memory/{made[n + 1]}")
        seen += await page.inner_text("body")
    await go_to(page, "search?q=" + await page.evaluate("encodeURIComponent", PAYLOADS[0]))
    await go_to(page, f"{PAYLOADS[1]}/{PAYLOADS[2]}")

    links = await page.locator("a").evaluate_all("links => links.map((link) => link.protocol)")
    assert set(links) <= {"http:", "https:"}
    assert sum(squeezed(payload) in squeezed(seen) for payload in PAYLOADS) >= 95


async def test_a_text_of_a_mebibyte_opens_at_once_and_whole_when_asked(page, client):
    long = ("word " * 50 + "*[`_~<h\n\n") * 4_000
    memory = await save(client, page.headers, "What is long?", long)

    await go_to(page, f"memory/{memory}")

    await expect(page.locator(".answer p").first).to_contain_text("word *[`_~<h")
    await page.get_by_role("button", name="Show all 1,036,000 characters").click()
    await expect(page.locator(".answer p")).to_have_count(4_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_screen_has_a_serious_fault_of_accessibility(browser, server, client, scheme):
    """Every screen of the registry, on a phone, a tablet and a wide window."""
    headers = await sign_up(client, "ann")
    token = headers["Authorization"].split()[1]
    chat = {"conversation_id": "c1", "conversation_title": "Sorting"}
    memory = await save(client, headers, "How do I sort?", ANSWER, **chat)
    await save(client, headers, "a walrus", provider="grok", hours_ago=70)
    places = {"conversation": "conversation/claude/c1", "memory": f"memory/{memory}"}
    size = {"width": 360, "height": 900}
    async with opened(browser, server.url, viewport=size, color_scheme=scheme) as page:
        assert await faults(page) == []
        kept = {"kind": "session", "access_token": token, "refresh_token": "", "email": "a@b.c"}
        await page.evaluate(
            "kept => localStorage['memory-layer-session'] = JSON.stringify(kept)",
            kept | {"expires_at": NOW.timestamp() + 110},
        )
        await page.reload()
        listed = "import('/assets/web/screens.js').then((it) => it.SCREENS.map((one) => one.name))"
        for name in [*await page.evaluate(listed), "search?q=sort"]:
            await go_to(page, places.get(name, name))
            await expect(page.locator("main .state button")).to_have_count(0)
            for width in (360, 768, 1600):
                await page.set_viewport_size({"width": width, "height": 900})
                place = (name, width)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, place
                assert await faults(page) == [], place


async def faults(page):
    """What axe finds that is serious or critical: each with its first element."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(AXE.read_text(encoding="utf-8"))
    return await page.evaluate(
        """async () => {
          const { violations } = await axe.run(document, { resultTypes: ["violations"] });
          return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
            .map(({ id, nodes }) => [id, nodes[0].html, nodes[0].failureSummary]);
        }"""
    )


async def test_with_supabase_the_page_signs_in_at_the_project(browser, make_server):
    server = make_server(
        SUPABASE_URL="https://project.example", SUPABASE_PUBLISHABLE_KEY="sb_publishable_x"
    )
    await asyncio.to_thread(server.wait_until_ready)
    asked = []

    async def answer(route):
        asked.append((route.request.url, route.request.headers.get("apikey")))
        allowed = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
        refusal = {"code": "invalid_credentials", "message": "Invalid login credentials"}
        status = 200 if route.request.method == "OPTIONS" else 400
        await route.fulfill(status=status, json=refusal, headers=allowed)

    window = await browser.new_context()
    await window.add_init_script(WATCH)
    page = await window.new_page()
    await page.route("https://project.example/**", answer)
    await page.goto(server.url)
    await sign_in(page, "ann@example.com")

    await expect(page.get_by_role("alert")).to_contain_text("Invalid login credentials")
    address = "https://project.example/auth/v1/token?grant_type=password"
    assert asked[-1] == (address, "sb_publishable_x")
    assert await page.evaluate("window.violations") == []
    await window.close()


def test_every_screen_of_the_registry_has_its_file():
    registry = (ROOT / "admin/web/screens.js").read_text()
    names = re.findall(r'\{ name: "(\w+)"', registry)
    files = {path.stem for path in (ROOT / "admin/web/screens").glob("*.js")}
    assert set(names) == files
