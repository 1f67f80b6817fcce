"""What a person does on the page of their own, in a real browser on a real server."""

import asyncio
import hashlib
import io
import json
import re
import zipfile
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import expect

from core import age
from tests.answering import answering_server, own_database
from tests.conftest import PASSWORD, Server
from tests.exports import chatgpt, chats, zipped
from tests.test_panel import CONTRAST, WATCH, Watched, squeezed
from tests.xss import PAYLOADS

SCREENS = ("ask", "import", "export", "trash", "tokens", "usage", "setup", "account")
# Nobody can answer the browser's own dialog: the file goes into the page's own folder.
OWN_FOLDER = """
    window.showSaveFilePicker = async ({ suggestedName }) => {
      const folder = await navigator.storage.getDirectory();
      return folder.getFileHandle(suggestedName, { create: true });
    };
"""
READ_FROM_OWN_FOLDER = """
    async () => {
      const folder = await navigator.storage.getDirectory();
      for await (const [name, handle] of folder.entries()) {
        const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
        return [name, Array.from(bytes)];
      }
      return null;
    }
"""
NO_PICKER = "delete window.showSaveFilePicker;"


@pytest.fixture(scope="module")
async def service(cluster, tmp_path_factory):
    """A server without a model provider."""
    async with own_database(cluster) as url:
        server = Server(DATABASE_URL=url, DATA_DIR=str(tmp_path_factory.mktemp("data")))
        server.start()
        await asyncio.to_thread(server.wait_until_ready)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            yield SimpleNamespace(url=server.url, client=client)
        server.close()


@pytest.fixture(scope="module")
async def answering(cluster):
    """A server with a model provider, and that provider."""
    async with (
        answering_server(cluster) as (server, models, _),
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        yield SimpleNamespace(url=server.url, client=client, models=models)


class Person:
    """Somebody with an account, and what the API says of it."""

    def __init__(self, service, email, session):
        self.url = service.url
        self.email = email
        self.session = session
        self._client = service.client
        self._headers = {"Authorization": f"Bearer {session['access_token']}"}

    async def api(self, method, path, headers=None, **more):
        return await self._client.request(method, path, headers=headers or self._headers, **more)

    async def data(self, method, path, **more):
        answer = await self.api(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    async def save(self, prompt, **more):
        body = {"prompt": prompt, "provider": "claude"} | more
        return (await self.data("POST", "/save-prompt", json=body))["memory_id"]

    async def save_deleted(self, prompt):
        await self.data("DELETE", f"/memories/{await self.save(prompt)}")


async def somebody(service):
    email = f"walrus-{uuid4().hex[:8]}@example.com"
    body = {"email": email, "password": PASSWORD}
    answer = await service.client.post("/auth/v1/signup", json=body)
    return Person(service, email, answer.json())


@asynccontextmanager
async def signed_in(browser, person, screen, script="", **context):
    """A page of somebody who has signed in before, watched to its end."""
    kept = {
        "kind": "session",
        "access_token": person.session["access_token"],
        "refresh_token": person.session["refresh_token"],
        "expires_at": person.session["expires_at"],
        "email": person.email,
    }
    stored = [{"name": "memory-layer-session", "value": json.dumps(kept)}]
    state = {"cookies": [], "origins": [{"origin": person.url, "localStorage": stored}]}
    window = await browser.new_context(locale="en-GB", storage_state=state, **context)
    await window.add_init_script(WATCH + script)
    page = await window.new_page()
    watched = Watched(page)
    await go_to(page, person, screen)
    yield page
    await watched.end()
    await window.close()


async def go_to(page, person, screen):
    await page.goto(f"{person.url}/#/{screen}")
    await expect(page.locator(f".screen[data-screen={screen}]:not([aria-busy])")).to_have_count(1)
    await expect(page.locator("main > .screen > .state button")).to_have_count(0)


async def drop(page, *files):
    """Drop files, (name, content) each, as a file manager does."""
    told = [[name, list(content)] for name, content in files]
    transfer = await page.evaluate_handle(
        """
        (files) => {
          const transfer = new DataTransfer();
          for (const [name, bytes] of files) {
            transfer.items.add(new File([new Uint8Array(bytes)], name));
          }
          return transfer;
        }
        """,
        told,
    )
    zone = page.locator("label.drop")
    for event in ("dragenter", "dragover", "drop"):
        await zone.dispatch_event(event, {"dataTransfer": transfer})


def job(page, number=0):
    """The imports that are shown, the latest first."""
    return page.locator(".job").nth(number)


async def test_an_export_dropped_on_the_page_is_imported_and_counted(browser, service):
    ann = await somebody(service)
    past = zipped({"conversations.json": chatgpt(chats(3))})
    async with signed_in(browser, ann, "import") as page:
        await drop(page, ("my chats.zip", past))

        await expect(job(page)).to_contain_text(
            "6 found = 6 imported + 0 already here + 0 skipped + 0 failed"
        )
        await expect(job(page)).to_contain_text("my chats.zip")
        await expect(job(page)).to_contain_text("ChatGPT")
        await expect(job(page).get_by_role("link", name="timeline")).to_be_visible()
        found = await ann.data("POST", "/search", json={"query": "question"})
        assert len(found["hits"]) == 6

        await drop(page, ("my chats.zip", past))

        await expect(page.locator(".job")).to_have_count(2)
        await expect(job(page)).to_contain_text("6 found = 0 imported + 6 already here")
        assert len((await ann.data("GET", "/memories"))["memories"]) == 6


async def test_what_cannot_be_imported_says_why_in_words(browser, service):
    ann = await somebody(service)
    whole = zipped({"conversations.json": chatgpt(chats(400))})
    async with signed_in(browser, ann, "import") as page:
        await page.locator("#files").set_input_files(
            [
                {"name": "people.json", "mimeType": "", "buffer": b'[{"name": "Ann", "age": 7}]'},
                {"name": "cut.zip", "mimeType": "", "buffer": whole[: len(whole) * 3 // 4]},
            ]
        )

        cut, unknown = (page.locator(".job").filter(has_text=n) for n in ("cut.zip", "people.json"))
        await expect(cut).to_contain_text("the file ends in the middle")
        await expect(cut.locator(".badge")).to_have_text("Imported")
        await expect(unknown.locator(".badge")).to_have_text("Failed")
        jobs = (await ann.data("GET", "/import"))["imports"]
        told = next(one["message"] for one in jobs if one["file_name"] == "people.json")
        assert "keys name, age" in told
        await expect(unknown.locator(".callout")).to_have_text(told)

        await unknown.get_by_role("button", name="Send it again").click()
        await expect(page.locator(".job")).to_have_count(3)


async def test_an_upload_is_cancelled_or_sent_again_when_it_broke_off(browser, service):
    ann = await somebody(service)
    async with signed_in(browser, ann, "import") as page:
        waiting = asyncio.Event()

        async def hold(route):
            waiting.set()
            await asyncio.sleep(30)

        await page.route("**/import?*", hold, times=1)
        await page.route("**/import?*", lambda route: route.abort(), times=1)
        await drop(page, ("first.json", chatgpt(chats(1))), ("second.json", chatgpt(chats(1))))
        first = page.get_by_role("region", name="first.json")
        await expect(first).to_contain_text("The connection broke off")
        await waiting.wait()
        await page.get_by_role("region", name="second.json").get_by_text("Cancel").click()
        await expect(page.get_by_role("region", name="second.json")).to_have_count(0)

        await first.get_by_role("button", name="Try again").click()

        await expect(job(page)).to_contain_text("2 found = 2 imported")
        assert [one["file_name"] for one in (await ann.data("GET", "/import"))["imports"]] == [
            "first.json"
        ]


async def test_a_long_import_shows_how_far_it_is_and_can_be_stopped(browser, service):
    ann = await somebody(service)
    async with signed_in(browser, ann, "import") as page:
        content = zipped({"conversations.json": chatgpt(chats(4_000, turns=4))})
        await page.locator("#files").set_input_files(
            {"name": "long.zip", "mimeType": "", "buffer": content}
        )
        await expect(job(page).locator(".sum")).to_contain_text(re.compile("[1-9][0-9,]* imported"))
        await expect(page.locator(".embedding")).to_contain_text("Words find them already")

        await job(page).get_by_role("button", name="Cancel").click()

        await expect(job(page).locator(".badge")).to_have_text("Cancelled")
        [one] = (await ann.data("GET", "/import"))["imports"]
        assert 0 < one["imported"] < 16_000
        await expect(job(page)).to_contain_text(f"{one['imported']:,} imported")


def memories_in(content):
    """How many memories an export holds, of which its manifest says the same."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        told = json.loads(archive.read("manifest.json"))["memories.jsonl"]
        lines = archive.read("memories.jsonl")
    assert told["memories"] == len(lines.splitlines())
    assert told["sha256"] == hashlib.sha256(lines).hexdigest()
    return told["memories"]


@pytest.mark.parametrize("script", [OWN_FOLDER, NO_PICKER], ids=["to a place", "as a download"])
async def test_an_export_is_saved_whole_and_reconciles(browser, service, tmp_path, script):
    ann = await somebody(service)
    for text in ("walrus", "zebra"):
        await ann.save(text)
    async with signed_in(browser, ann, "export", script) as page:
        if script is NO_PICKER:
            async with page.expect_download() as started:
                await page.get_by_role("button", name="Download").click()
            download = await started.value
            name = download.suggested_filename
            content = (await _saved(download, tmp_path)).read_bytes()
        else:
            await page.get_by_role("button", name="Download").click()
            await expect(page.locator(".notice")).to_contain_text("saved")
            name, told = await page.evaluate(READ_FROM_OWN_FOLDER)
            content = bytes(told)

    assert name.startswith("memory-layer-")
    assert memories_in(content) == 2


async def _saved(download, folder):
    await download.save_as(folder / "export")
    return folder / "export"


async def test_an_export_under_a_passphrase_opens_with_it(browser, service, tmp_path):
    ann = await somebody(service)
    await ann.save("walrus")
    async with signed_in(browser, ann, "export", NO_PICKER) as page:
        await page.get_by_text("Encrypt it").click()
        await page.get_by_label("Passphrase").fill("a long one")
        await page.get_by_label("The same again").fill("another one")
        await page.get_by_role("button", name="Download").click()
        assert not await page.get_by_label("The same again").evaluate("it => it.validity.valid")
        await page.get_by_label("The same again").fill("a long one")
        async with page.expect_download() as started:
            await page.get_by_role("button", name="Download").click()
        file = await _saved(await started.value, tmp_path)

    with file.open("rb") as sealed:
        opened = b"".join(age.decrypted(sealed, "a long one"))
    assert memories_in(opened) == 1


async def test_an_export_that_breaks_off_leaves_no_file_that_looks_whole(browser, service):
    ann = await somebody(service)
    async with signed_in(browser, ann, "export", OWN_FOLDER) as page:
        await page.route("**/export/full", lambda route: route.abort(), times=1)
        await page.get_by_role("button", name="Download").click()
        await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        assert (await page.evaluate(READ_FROM_OWN_FOLDER))[1] == []

        await page.get_by_role("button", name="Download").click()
        await expect(page.locator(".notice")).to_contain_text("saved")


async def test_what_was_deleted_comes_back_or_is_forgotten(browser, service):
    ann = await somebody(service)
    for text in ("the walrus", "the zebra", "the lion"):
        await ann.save_deleted(text)
    async with signed_in(browser, ann, "trash") as page:
        await expect(page.get_by_role("row").filter(has_text="the walrus")).to_contain_text(
            "30 days"
        )

        await page.get_by_role("button", name="Restore: the walrus").click()
        await expect(page.get_by_role("row").filter(has_text="the walrus")).to_have_count(0)
        await page.get_by_role("button", name="Forget: the zebra").click()
        await page.get_by_role("dialog").get_by_role("button", name="Forget").click()
        await expect(page.get_by_role("row").filter(has_text="the zebra")).to_have_count(0)
        left = (await ann.data("GET", "/trash"))["memories"]
        assert [one["memory"]["prompt"] for one in left] == ["the lion"]

        await page.get_by_role("button", name="Empty the trash…").click()
        await page.get_by_role("dialog").get_by_role("button", name="Empty the trash").click()
        await expect(page.get_by_text("The trash is empty.")).to_be_visible()
    kept = (await ann.data("GET", "/memories"))["memories"]
    assert [memory["prompt"] for memory in kept] == ["the walrus"]
    assert (await ann.data("GET", "/trash"))["memories"] == []


async def test_a_token_works_until_it_is_revoked(browser, service):
    ann = await somebody(service)
    permissions = ["clipboard-read", "clipboard-write"]
    async with signed_in(browser, ann, "tokens", permissions=permissions) as page:
        await page.get_by_label("Name").fill("my editor")
        await page.get_by_label("Write:").uncheck()
        await page.get_by_label("It works for").select_option("30 days")
        await page.get_by_role("button", name="Make the token").click()
        text = await page.locator(".snippet code").inner_text()
        await page.get_by_role("button", name="Copy the new token").click()
        assert await page.evaluate("navigator.clipboard.readText()") == text

        bearer = {"Authorization": f"Bearer {text}"}
        assert (await ann.api("GET", "/memories", bearer)).status_code == 200
        saved = await ann.api("POST", "/save-prompt", bearer, json={"prompt": "x", "provider": "c"})
        assert saved.json()["error_code"] == "MISSING_SCOPE"
        await page.reload()
        row = page.get_by_role("row").filter(has_text="my editor")
        await expect(row).to_contain_text("read")
        assert text not in await page.content()

        await page.get_by_role("button", name="Revoke my editor").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        await expect(page.get_by_text("You have no tokens.")).to_be_visible()
    async with asyncio.timeout(6):
        while (await ann.api("GET", "/memories", bearer)).status_code != 401:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_question_is_answered_with_its_sources_as_it_comes(browser, answering):
    ann = await somebody(answering)
    walrus = await ann.save("Where does the walrus sleep?", conversation_id="c-1")
    answering.models.forget()
    answering.models.reply = ["The walrus ", "sleeps **on ice** [1].", "\n\n- and [7] snores"]
    answering.models.pause = 0.3
    async with signed_in(browser, ann, "ask") as page:
        await page.get_by_label("Your question").fill("Where does the walrus sleep?")
        await page.keyboard.press("Enter")

        answer = page.locator(".asked .answer")
        await expect(answer).to_contain_text("The walrus")
        await expect(page.get_by_role("button", name="Stop")).to_be_visible()
        await expect(answer.locator("strong")).to_have_text("on ice")
        await expect(answer).not_to_contain_text("[7]")
        await expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        await page.get_by_role("button", name="Source 1").click()
        source = page.locator(".source a")
        await expect(source).to_be_focused()
        assert walrus in await source.get_attribute("href")


async def test_an_answer_can_be_stopped_and_the_provider_hears_of_it(browser, answering):
    ann = await somebody(answering)
    await ann.save("Where does the walrus sleep?")
    answering.models.forget()
    answering.models.reply = [f"word{n} " for n in range(500)]
    answering.models.pause = 0.1
    async with signed_in(browser, ann, "ask") as page:
        await page.get_by_label("Your question").fill("Where does the walrus sleep?")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator(".answer")).to_contain_text("word3")

        await page.get_by_role("button", name="Stop").click()

        await expect(page.locator(".asked .callout")).to_have_text("Stopped.")
        await expect(page.locator(".answer")).to_contain_text("word3")
        async with asyncio.timeout(10):
            await answering.models.gone.acquire()


async def test_a_provider_that_fails_is_told_and_the_question_is_kept(browser, answering):
    ann = await somebody(answering)
    await ann.save("Where does the walrus sleep?")
    answering.models.forget()
    answering.models.fail_next("status", times=3, status=400, body=b"{}")
    async with signed_in(browser, ann, "ask") as page:
        await page.get_by_label("Your question").fill("Where does the walrus sleep?")
        await page.get_by_role("button", name="Ask").click()

        await expect(page.locator(".asked .callout.bad")).to_be_visible()
        question = page.get_by_label("Your question")
        await expect(question).to_have_value("Where does the walrus sleep?")

        answering.models.fail_next("cut", after=2)
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator(".asked").first.locator(".callout.bad")).to_be_visible()


async def test_without_a_provider_the_sources_are_shown_and_it_is_said(browser, service):
    ann = await somebody(service)
    await ann.save("Where does the walrus sleep?")
    async with signed_in(browser, ann, "ask") as page:
        await expect(page.get_by_text("This server has no model provider")).to_be_visible()
        await page.get_by_label("Your question").fill("Where does the walrus sleep?")
        await page.get_by_role("button", name="Ask").click()

        await expect(page.locator(".asked .callout")).to_contain_text("No model is set up")
        await expect(page.locator(".source")).to_contain_text("Where does the walrus sleep?")


async def test_the_usage_says_what_is_left(browser, service):
    ann = await somebody(service)
    for n in range(3):
        await ann.save(f"walrus {n}")
    async with signed_in(browser, ann, "usage") as page:
        use = await ann.data("GET", "/usage")

        today = page.locator(".span").filter(has_text="Today")
        await expect(today).to_contain_text(f"{use['day']['used']} / {use['day']['limit']:,}")
        await expect(page.locator("main")).to_contain_text("Enterprise")


async def test_the_set_up_names_this_server_and_a_token_that_works(browser, service):
    ann = await somebody(service)
    permissions = ["clipboard-read", "clipboard-write"]
    async with signed_in(browser, ann, "setup", permissions=permissions) as page:
        await page.get_by_role("button", name="Copy the address of this server").click()
        assert await page.evaluate("navigator.clipboard.readText()") == service.url
        await page.get_by_role("button", name="Make a token").first.click()
        await expect(page.get_by_text("The token stands in the lines below")).to_be_visible()
        await page.get_by_role("button", name="Copy the lines for Cursor").click()
        told = json.loads(await page.evaluate("navigator.clipboard.readText()"))

    server = told["mcpServers"]["memory-layer"]
    assert server["url"] == f"{service.url}/mcp"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    more = {"Accept": "application/json, text/event-stream"}
    answer = await ann.api("POST", "/mcp", server["headers"] | more, json=call)
    assert "search_memories" in answer.text


async def test_the_password_is_changed_by_who_knows_the_old_one(browser, service):
    ann = await somebody(service)
    async with signed_in(browser, ann, "account") as page:
        await expect(page.locator("main")).to_contain_text(ann.email)
        await page.get_by_role("button", name="Change…").click()
        await page.get_by_label("Password until now").fill("wrong")
        await page.get_by_label("New password").fill("another long password")
        await page.get_by_role("button", name="Change", exact=True).click()
        await expect(page.get_by_role("alert")).to_be_visible()

        await page.get_by_label("Password until now").fill(PASSWORD)
        await page.get_by_role("button", name="Change", exact=True).click()

        await expect(page.locator(".notice")).to_contain_text("The password is changed")
    body = {"email": ann.email, "password": "another long password"}
    signed = await ann.api("POST", "/auth/v1/token?grant_type=password", json=body)
    assert signed.status_code == 200


async def test_an_account_is_deleted_with_a_receipt_and_signs_out(browser, service):
    ann = await somebody(service)
    await ann.save("walrus")
    async with signed_in(browser, ann, "account") as page:
        await page.get_by_role("button", name="Delete…").click()
        dialog = page.get_by_role("dialog")
        confirm = dialog.get_by_role("button", name="Delete everything")
        await expect(confirm).to_be_disabled()
        await dialog.get_by_label("Type").fill(ann.email)
        await dialog.get_by_label("Password").fill("wrong")
        await confirm.click()
        await expect(dialog.get_by_role("alert")).to_be_visible()

        await dialog.get_by_label("Password").fill(PASSWORD)
        await confirm.click()

        await expect(page.get_by_text("Your account is erased")).to_be_visible()
        await expect(page.locator("dl").filter(has_text="memories")).to_contain_text("1")
        assert (await ann.api("GET", "/memories")).status_code == 401
        await page.get_by_role("button", name="Leave").click()
        await expect(page.get_by_label("E-mail")).to_be_visible()
        assert await page.evaluate("localStorage.length") == 0


async def test_a_session_that_ended_asks_who_it_is_and_goes_on_where_it_was(browser, service):
    ann = await somebody(service)
    async with signed_in(browser, ann, "tokens") as page:
        await page.evaluate(
            """
            () => {
              const kept = JSON.parse(localStorage["memory-layer-session"]);
              const ended = { ...kept, access_token: "x", refresh_token: "y", expires_at: 0 };
              localStorage["memory-layer-session"] = JSON.stringify(ended);
            }
            """
        )
        await page.get_by_label("Name").fill("my editor")
        await page.get_by_role("button", name="Make the token").click()

        await expect(page.get_by_text("Your session has ended")).to_be_visible()
        await page.get_by_label("E-mail").fill(ann.email)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Tokens", exact=True)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
async def test_every_screen_fits_its_window(browser, service, width, scheme):
    ann = await somebody(service)
    await ann.save_deleted("word " * 300)
    await ann.data("POST", "/tokens", json={"name": "x" * 100, "scopes": ["read"]})
    await ann.api("POST", f"/import?name={'y' * 400}", content=b"nothing")
    size = {"width": width, "height": 900}
    async with signed_in(browser, ann, "ask", viewport=size, color_scheme=scheme) as page:
        for screen in SCREENS:
            await go_to(page, ann, screen)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, screen
            unnamed = "[...document.querySelectorAll('input, select, textarea')]"
            unnamed += ".filter(it => !it.labels.length && !it.ariaLabel).length"
            assert await page.evaluate(unnamed) == 0, screen
            contrast = await page.evaluate(CONTRAST)
            assert contrast >= 4.5, (screen, contrast)


async def test_no_text_of_a_hundred_attacks_runs_as_script(browser, service):
    ann = await somebody(service)
    await asyncio.gather(*map(ann.save_deleted, PAYLOADS))
    for payload in PAYLOADS[:8]:
        await ann.data("POST", "/tokens", json={"name": payload[:100], "scopes": ["read"]})
        await ann.save(f"walrus {payload}", conversation_title=payload)
    for payload in PAYLOADS[:2]:
        content = json.dumps([{payload: 1}]).encode()
        await ann.api("POST", "/import", params={"name": payload}, content=content)
    async with signed_in(browser, ann, "import") as page:
        await expect(page.locator(".job .badge").filter(has_text="Failed")).to_have_count(
            8, timeout=30_000
        )
        seen = await page.inner_text("main")
        assert squeezed(PAYLOADS[0]) in squeezed(seen)
        await go_to(page, ann, "tokens")
        assert squeezed(PAYLOADS[0]) in squeezed(await page.inner_text("main"))
        await go_to(page, ann, "trash")
        await page.get_by_role("button", name="Show older").click()
        await expect(page.get_by_role("row")).to_have_count(len(set(PAYLOADS)) + 1)
        seen = squeezed(await page.inner_text("table"))
        assert sum(squeezed(payload) in seen for payload in PAYLOADS) >= 95
        await go_to(page, ann, "ask")
        await page.get_by_label("Your question").fill("walrus")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator(".source").first).to_be_visible()
        await page.goto(f"{service.url}/#/ask?q={PAYLOADS[0]}")
