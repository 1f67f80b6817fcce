"""The panel as an operator sees it, in a real browser."""

import asyncio
import re
import zipfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from playwright.async_api import expect

from storage.migrate import known
from tests.conftest import ADMIN_KEY, Server, execute, sign_up, url_of
from tests.xss import PAYLOADS

SCREENS = ("overview", "users", "limits", "system", "audit")
WATCH = """
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
"""


@pytest.fixture(scope="module")
async def service(cluster):
    """A server with a database of its own, and the owner's view of that database."""
    name = f"test_{uuid4().hex[:10]}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    server = Server(DATABASE_URL=url_of(cluster, name), DEFAULT_TIER="free", FREE_PER_DAY="1000")
    server.start()
    await asyncio.to_thread(server.wait_until_ready)
    database = await asyncpg.connect(url_of(cluster, name))
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield SimpleNamespace(url=server.url, database=database, client=client)
    await database.close()
    server.close()
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


class Watched:
    """A page, and everything that would say that it ran what it should not have run."""

    def __init__(self, page):
        self.page = page
        self.troubles = []
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)

    async def _dialog(self, dialog):
        self.troubles.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _console(self, message):
        # The browser reports a refused key, too; what the server answers is no trouble.
        expected = "status of" in message.text or "net::ERR_FAILED" in message.text
        if message.type == "error" and not expected:
            self.troubles.append(f"console: {message.text}")

    def _request(self, request):
        if not request.url.startswith("http://127.0.0.1:"):
            self.troubles.append(f"request: {request.url}")

    async def end(self):
        assert await self.page.evaluate("window.violations") == []
        assert await self.page.evaluate("window.pwned === undefined")
        assert self.troubles == []


@asynccontextmanager
async def opened(browser, url, **context):
    """A page of the panel, watched to its end."""
    window = await browser.new_context(locale="en-GB", **context)
    await window.add_init_script(WATCH)
    page = await window.new_page()
    watched = Watched(page)
    await page.goto(f"{url}/admin")
    yield page
    await watched.end()
    await window.close()


async def enter(page, key=ADMIN_KEY):
    await page.get_by_label("Admin key").fill(key)
    await page.get_by_role("button", name="Sign in").click()


async def go_to(page, service, screen):
    await page.goto(f"{service.url}/admin#/{screen}")
    await expect(page.locator(".screen:not([aria-busy])")).to_have_count(1)
    await expect(page.locator("main .state button")).to_have_count(0)


@pytest.fixture
async def page(browser, service):
    """Somebody has signed in."""
    async with opened(browser, service.url) as page:
        await enter(page)
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        yield page


@pytest.fixture
async def alice(service):
    """A user with an account, two memories and some use: id, address and headers."""
    headers = await sign_up(service.client, "alice")
    user = (await service.client.get("/auth/v1/user", headers=headers)).json()
    for text in ("walrus", "zebra"):
        body = {"prompt": text, "provider": "claude"}
        await service.client.post("/save-prompt", json=body, headers=headers)
    return SimpleNamespace(id=user["id"], email=user["email"], headers=headers)


async def open_user(page, service, alice):
    await go_to(page, service, f"users/{alice.id}")
    await expect(page.get_by_role("heading", name=alice.email)).to_be_visible()


async def test_a_wrong_key_is_refused_and_the_right_one_opens_the_panel(browser, service):
    async with opened(browser, service.url) as page:
        await enter(page, "mla_a-key-that-somebody-guessed")
        await expect(page.get_by_role("alert")).to_contain_text("not valid")
        assert await page.get_by_role("heading", name="Overview").count() == 0

        await enter(page)

        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert ADMIN_KEY not in await page.evaluate(stored)
        assert await page.evaluate("document.cookie") == ""


async def test_a_reload_stays_signed_in_and_signing_out_does_not(page):
    await page.reload()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Admin key")).to_be_focused()

    await page.reload()
    await expect(page.get_by_label("Admin key")).to_be_visible()


async def test_a_session_that_ended_asks_for_the_key_and_goes_on_where_it_was(page, service):
    await go_to(page, service, "limits")
    await service.database.execute("DELETE FROM memory_layer.admin_sessions")

    await page.get_by_role("link", name="System").click()
    await expect(page.get_by_text("Your session has ended")).to_be_visible()
    await enter(page)

    await expect(page.get_by_role("heading", name="System")).to_be_visible()


async def test_without_a_configured_key_the_panel_says_what_to_do(browser, service, make_server):
    server = make_server(ADMIN_API_KEY="", SUPABASE_URL="http://127.0.0.1:9")
    await asyncio.to_thread(server.wait_until_ready)

    async with opened(browser, server.url) as page:
        await expect(page.get_by_text("python main.py admin-key")).to_be_visible()


async def test_the_overview_shows_what_was_done(page, service, alice):
    await service.database.execute(
        """
        INSERT INTO memory_layer.traffic
        SELECT date_bin('5 min', now(), '2026-01-01'), route, n, 1, 2,
               array_fill(0, ARRAY[10]) || ARRAY[n] || array_fill(0, ARRAY[26])
          FROM (VALUES ('POST /save-prompt', 4321), ('POST /search', 77)) AS r (route, n)
            ON CONFLICT (slot, route) DO UPDATE SET requests = EXCLUDED.requests
        """
    )
    await go_to(page, service, "overview")

    row = page.get_by_role("row").filter(has_text="POST /save-prompt")
    await expect(row).to_contain_text("4,321")
    await expect(row).to_contain_text("ms")
    assert await page.locator(".chart svg .bar").count() >= 4
    await expect(page.get_by_text("Search is by words alone")).to_be_visible()

    drawing = page.get_by_role("group", name="Saves and searches")
    await drawing.focus()
    await page.keyboard.press("End")
    await expect(drawing.locator(".reading")).to_contain_text("4,321")
    await page.get_by_role("button", name="7 days").click()
    await expect(page.get_by_role("button", name="7 days")).to_have_attribute(
        "aria-pressed", "true"
    )


async def test_a_site_that_can_no_longer_be_read_shows(page, service, alice):
    today = datetime.now(UTC).date().isoformat()
    days = [
        {"day": today, "site": "chatgpt", "network": 4321},
        {"day": today, "site": "grok", "network": 12, "dom": 3, "missed": 3},
    ]
    body = {"installation": str(uuid4()), "version": "0.1.0", "days": days}
    await service.client.post("/capture-health", json=body, headers=alice.headers)
    await go_to(page, service, "overview")

    sites = page.get_by_role("region", name="How well the sites are read").get_by_role("row")
    await expect(sites.filter(has_text="ChatGPT")).to_contain_text("4,321 / 4,321")
    await expect(sites.filter(has_text="ChatGPT")).not_to_contain_text("Has it changed?")
    await expect(sites.filter(has_text="Grok")).to_contain_text("Has it changed?")
    drawing = page.get_by_role("group", name="Chats that were read, by day")
    await drawing.focus()
    await page.keyboard.press("End")
    await expect(drawing.locator(".reading")).to_contain_text("4,333")


async def test_the_overview_updates_itself(browser, service):
    async with opened(browser, service.url) as page:
        await page.clock.install()
        await enter(page)
        before = await page.locator(".tile .value").first.inner_text()
        await sign_up(service.client, "newcomer")

        await page.clock.fast_forward(11_000)

        await expect(page.locator(".tile .value").first).to_have_text(str(int(before) + 1))
        await expect(page.get_by_text("Live")).to_be_visible()


async def test_a_user_is_found_by_a_part_of_the_address(page, service, alice):
    await sign_up(service.client, "somebody-else")
    await go_to(page, service, "users")

    await page.get_by_role("searchbox").fill(alice.email[:12])

    await expect(page.get_by_role("rowheader")).to_have_count(1)
    await page.get_by_role("link", name=alice.email).click()
    await expect(page.get_by_role("heading", name=alice.email)).to_be_visible()
    await page.go_back()
    await page.get_by_role("searchbox").fill("nobody has this")
    await expect(page.get_by_text("Nobody has such an address or id.")).to_be_visible()


async def test_a_tier_changed_in_the_panel_takes_effect_on_the_api(page, service, alice):
    await open_user(page, service, alice)

    await page.get_by_role("button", name="Change plan").click()
    await page.get_by_label("Tier").select_option("Enterprise")
    await page.get_by_label("Requests a day").fill("4")
    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_text("within 5 seconds")).to_be_visible()
    await expect(page.locator("dl").filter(has_text="A day").last).to_contain_text("Enterprise")
    await expect(page.get_by_text("tier: default → Enterprise")).to_be_visible()

    async def usage():
        answer = await service.client.get("/usage", headers=alice.headers)
        return answer.json()["data"]

    async with asyncio.timeout(6):
        while (await usage())["tier"] != "enterprise":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    asked = [await service.client.get("/memories", headers=alice.headers) for _ in range(3)]
    assert [answer.status_code for answer in asked] == [200, 200, 403]


async def test_a_limit_that_makes_no_sense_is_refused_where_it_was_typed(page, service, alice):
    await open_user(page, service, alice)
    await page.get_by_role("button", name="Change plan").click()
    await page.get_by_label("Requests a minute").fill("-3")

    await page.get_by_role("button", name="Save").click()

    assert not await page.get_by_label("Requests a minute").evaluate("it => it.validity.valid")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_the_memories_of_a_user_are_exported_to_a_file(page, service, alice, tmp_path):
    await open_user(page, service, alice)

    async with page.expect_download() as started:
        await page.get_by_role("link", name="Export").click()

    file = tmp_path / "export.zip"
    await (await started.value).save_as(file)
    with zipfile.ZipFile(file) as archive:
        assert "walrus" in archive.read("memories.jsonl").decode()


async def test_an_account_is_deleted_only_after_its_address_was_typed(page, service, alice):
    await open_user(page, service, alice)
    await page.get_by_role("button", name="Delete…").click()
    confirm = page.get_by_role("dialog").get_by_role("button", name="Delete account")
    await expect(confirm).to_be_disabled()
    await page.get_by_role("dialog").get_by_role("textbox").fill(alice.email[:-1])
    await expect(confirm).to_be_disabled()

    await page.get_by_role("dialog").get_by_role("textbox").fill(alice.email)
    await confirm.click()

    await expect(page.get_by_text("The account is erased")).to_be_visible()
    await expect(page.get_by_role("heading", name="Users")).to_be_visible()
    answer = await service.client.get("/memories", headers=alice.headers)
    assert answer.status_code == 401
    left = "SELECT count(*) FROM memory_layer.memories WHERE user_id = $1"
    assert await service.database.fetchval(left, UUID(alice.id)) == 0
    await go_to(page, service, "audit")
    row = page.get_by_role("row").filter(has_text="Erased the account")
    await expect(row.first).to_contain_text(alice.id)


async def test_the_system_shows_its_parts_and_runs_a_job(page, service):
    await go_to(page, service, "system")
    await expect(page.get_by_role("row").filter(has_text="OPENAI_API_KEY")).to_contain_text(
        "Not set"
    )
    await expect(page.get_by_text(known()[-1].stem)).to_be_visible()
    job = page.get_by_role("row").filter(has_text="Forget what was deleted")

    await page.get_by_role("button", name="Run now: Forget what was deleted").click()

    await expect(page.locator(".notice")).to_contain_text("0 memories")
    await expect(job).to_contain_text("ok")
    await expect(job).to_contain_text("just now")


async def test_the_whole_panel_can_be_used_by_keyboard(browser, service, alice):
    async with opened(browser, service.url) as page:
        await expect(page.get_by_label("Admin key")).to_be_focused()
        await page.keyboard.type(ADMIN_KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_focused()

        # The page begins with the link past the navigation; the second screen comes after it.
        await page.get_by_role("link", name="Skip to content").focus()
        for _ in range(2):
            await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        await expect(focused).to_have_text("Users")
        assert await focused.evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Users")).to_be_focused()

        await page.get_by_role("link", name=alice.email).press("Enter")
        await page.get_by_role("button", name="Change plan").press("Enter")
        await expect(page.get_by_label("Tier")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Change plan")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
async def test_every_screen_fits_its_window(browser, service, alice, width, scheme):
    size = {"width": width, "height": 900}
    async with opened(browser, service.url, viewport=size, color_scheme=scheme) as page:
        await enter(page)
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        for screen in (*SCREENS, f"users/{alice.id}"):
            await go_to(page, service, screen)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, screen
            unnamed = "[...document.querySelectorAll('input, select')].filter(it => !it.hidden"
            unnamed += " && !it.labels.length && !it.ariaLabel).length"
            assert await page.evaluate(unnamed) == 0
            contrast = await page.evaluate(CONTRAST)
            assert contrast >= 4.5, (screen, contrast)


# The least contrast of a text with the nearest background that is painted.
CONTRAST = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    const [r, g, b] = parts.slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return getComputedStyle(document.documentElement).backgroundColor;
  };
  const all = [...document.querySelectorAll("main *, header *")].filter((node) =>
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) &&
    node.checkVisibility() && !node.closest("svg, :disabled, .visually-hidden"));
  return Math.min(...all.map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()
"""


async def test_no_text_of_a_hundred_attacks_runs_as_script(page, service):
    assert len(set(PAYLOADS)) == 100
    headers = await sign_up(service.client, "attacker")
    for payload in PAYLOADS:
        body = {"prompt": payload, "provider": "claude", "conversation_title": payload}
        await service.client.post("/save-prompt", json=body, headers=headers)
    ids = [uuid4() for _ in PAYLOADS]
    # A project of Supabase lets through what our own sign-up would refuse as an address.
    await service.database.executemany(
        """
        INSERT INTO memory_layer_auth.users (id, email, password_hash, user_metadata)
        VALUES ($1, $2, 'x', jsonb_build_object('name', $2::text))
        """,
        list(zip(ids, PAYLOADS, strict=True)),
    )
    await service.database.executemany(
        """
        INSERT INTO memory_layer.admin_audit (actor, address, action, subject, details)
        VALUES ($2, $2, $2, $1, jsonb_build_object($2::text, $2::text))
        """,
        list(zip(ids, PAYLOADS, strict=True)),
    )
    await service.database.executemany(
        "INSERT INTO memory_layer.user_state (user_id, per_day) VALUES ($1, 1)",
        [(one,) for one in ids],
    )

    seen = ""
    for screen in (*SCREENS, *(f"users/{one}" for one in ids[:12])):
        await go_to(page, service, screen)
        seen += await page.inner_text("body")
    await go_to(page, service, "users")
    for _ in range(4):
        seen += await page.inner_text("table")
        await page.get_by_role("button", name="Next").click()
        await expect(page.get_by_role("status")).to_contain_text("on page")
        await page.wait_for_timeout(60)
    await page.get_by_role("searchbox").fill(PAYLOADS[0])
    await page.goto(f"{service.url}/admin#/users/{PAYLOADS[0]}")
    await expect(page.locator("main .state")).to_be_visible()

    assert sum(squeezed(payload) in squeezed(seen) for payload in PAYLOADS) >= 95


def squeezed(text):
    return re.sub(r"\s+", "", text)
