"""A person brings years of chats, and finds them here: all of them, and each once."""

import asyncio
import gc
import io
import zipfile
from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from core.memory_ids import memory_id
from storage import analyzer
from storage.keyword_index import KeywordField
from storage.packed_terms import hashes_of
from tests.conftest import PASSWORD, app_client, sign_up, until
from tests.exports import FORMATS, START, Chat, Said, chatgpt, chats, gemini, zipped

ENDED = ("done", "failed", "cancelled")


async def upload(client, user, content, status=202, **more):
    answer = await client.post("/import", content=content, headers=user, **more)
    assert answer.status_code == status, answer.text
    return answer.json()["data"] if status == 202 else answer.json()


async def ended(client, user, job_id):
    job = {}

    async def is_over():
        answer = await client.get(f"/import/{job_id}", headers=user)
        job.update(answer.json()["data"])
        return job["state"] in ENDED

    await until(is_over)
    assert job["found"] == sum(
        job[name] for name in ("imported", "already_here", "skipped", "failed")
    )
    assert sum(job["reasons"].values()) == job["skipped"] + job["failed"]
    return job


async def import_file(client, user, content):
    return await ended(client, user, (await upload(client, user, content))["id"])


def counts(job):
    names = ("found", "imported", "already_here", "skipped", "failed")
    return tuple(job[name] for name in names)


@pytest.mark.parametrize("name", FORMATS)
async def test_each_format_is_imported_once_however_often_it_is_sent(client, alice, name):
    export = FORMATS[name](chats(3))

    first = await import_file(client, alice, export)
    again = await import_file(client, alice, zipped({"any/name.bin": export}))

    assert (first["state"], first["format"]) == ("done", name)
    assert counts(first) == (6, 6, 0, 0, 0)
    assert counts(again) == (6, 0, 6, 0, 0)
    found = await client.post("/search", json={"query": "question"}, headers=alice)
    assert len(found.json()["data"]["hits"]) == 6


async def save_live(client, user, chat, said, response=None):
    """As the extension does: under the id that it derives from the site's message."""
    me = UUID((await client.get("/auth/v1/user", headers=user)).json()["id"])
    body = {
        "id": str(memory_id(me, "chatgpt", said.id)),
        "prompt": said.prompt,
        "provider": "chatgpt",
        "conversation_id": chat.id,
        "occurred_at": said.at.isoformat(),
        "source": "extension",
    }
    assert (await client.post("/save-prompt", json=body, headers=user)).status_code == 201
    if response:
        told = {"memory_id": body["id"], "response": response}
        assert (await client.post("/save-response", json=told, headers=user)).status_code == 200
    return body["id"]


async def memories_of(client, user):
    answer = await client.get("/memories?limit=100", headers=user)
    return answer.json()["data"]["memories"]


async def test_what_was_captured_live_is_there_once_and_as_it_was_captured(client, alice):
    past = chats(3)
    (one, two), (three, four) = past[0].turns, past[1].turns
    await save_live(client, alice, past[0], one, one.answers[0])
    await save_live(client, alice, past[0], two, "another wording of the answer")
    await save_live(client, alice, past[1], three)
    gone = await save_live(client, alice, past[1], four, four.answers[0])
    await client.delete(f"/memories/{gone}", headers=alice)

    job = await import_file(client, alice, chatgpt(past))
    again = await import_file(client, alice, chatgpt(past))

    # Two new ones, and one that was given the answer which it lacked.
    assert counts(job) == (6, 3, 2, 1, 0)
    assert counts(again) == (6, 0, 5, 1, 0)
    assert job["reasons"] == again["reasons"] == {"deleted": 1}
    kept = {memory["prompt"]: memory["response"] for memory in await memories_of(client, alice)}
    assert len(kept) == 5
    assert kept[two.prompt] == "another wording of the answer"
    assert kept[three.prompt] == three.answers[0]


async def test_an_activity_without_ids_meets_what_was_captured_live(client, alice):
    past = chats(2)
    for said in past[0].turns:
        body = {"prompt": said.prompt, "provider": "gemini", "source": "extension"}
        body["occurred_at"] = (said.at + timedelta(seconds=40)).isoformat()
        await client.post("/save-prompt", json=body, headers=alice)

    job = await import_file(client, alice, gemini(past))
    again = await import_file(client, alice, gemini(past))

    assert counts(job) == (4, 2, 2, 0, 0)
    assert counts(again) == (4, 0, 4, 0, 0)
    assert len(await memories_of(client, alice)) == 4


async def test_an_activity_does_not_bring_back_what_was_captured_live_and_purged(client, alice):
    past = chats(2)
    for n, said in enumerate(past[0].turns):
        body = {"prompt": f" {said.prompt}\n", "provider": "gemini", "source": "extension"}
        body["occurred_at"] = (said.at + timedelta(minutes=9 * (1 - 2 * n))).isoformat()
        saved = await client.post("/save-prompt", json=body, headers=alice)
        await client.delete(f"/memories/{saved.json()['data']['memory_id']}", headers=alice)
    assert (await client.delete("/trash", headers=alice)).json()["data"] == {"purged": 2}

    job = await import_file(client, alice, gemini(past))
    again = await import_file(client, alice, gemini(past))

    assert counts(job) == (4, 2, 0, 2, 0)
    assert counts(again) == (4, 0, 2, 2, 0)
    assert job["reasons"] == {"deleted": 2}
    kept = [memory["prompt"] for memory in await memories_of(client, alice)]
    assert sorted(kept) == [said.prompt for said in past[1].turns]


async def test_times_models_titles_and_order_are_those_of_the_site(client, alice):
    await import_file(client, alice, chatgpt(chats(2)))

    answer = await client.get("/conversations/c1", headers=alice)

    first, second = answer.json()["data"]["memories"]
    assert (first["prompt"], second["prompt"]) == ("question c1 0", "question c1 1")
    assert first["occurred_at"] == "2025-03-01T10:00:00Z"
    assert (first["model"], first["conversation_title"]) == ("model-1", "Chat 1")
    assert (first["source"], first["url"]) == ("import", "https://chatgpt.com/c/c1")


async def test_what_is_no_export_fails_and_says_why(client, alice):
    job = await import_file(client, alice, b'[{"name": "Ann", "age": 7}]')

    assert (job["state"], counts(job)) == ("failed", (0, 0, 0, 0, 0))
    assert "Expected: ChatGPT" in job["message"]
    assert "keys name, age" in job["message"]


async def test_a_cut_file_is_imported_up_to_the_cut_and_says_so(client, alice):
    content = zipped({"conversations.json": chatgpt(chats(400))})

    job = await import_file(client, alice, content[: len(content) * 3 // 4])

    assert job["state"] == "done"
    assert 0 < job["imported"] < 800
    assert job["reasons"] == {"cut": 1}
    assert job["message"] == "The file ends in the middle; what came before was kept."


async def test_a_form_is_as_good_as_the_body_itself(client, alice):
    content = chatgpt(chats(1))
    files = {"note": (None, "x"), "file": ("C:\\data\\my export.zip", content)}

    answer = await client.post("/import", files=files, headers=alice)

    job = answer.json()["data"]
    assert (job["file_name"], job["bytes"]) == ("my export.zip", len(content))
    assert counts(await ended(client, alice, job["id"])) == (2, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(b"", "application/octet-stream", id="nothing"),
        pytest.param(b"--x\r\n\r\n", "multipart/form-data; boundary=x", id="no file"),
        pytest.param(b"abc", "multipart/form-data; boundary=x", id="no form"),
        pytest.param(b"abc", "multipart/form-data", id="no boundary"),
        pytest.param(
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n[{',
            "multipart/form-data; boundary=x",
            id="a form that ends within the file",
        ),
    ],
)
async def test_an_upload_that_is_none_leaves_nothing(client, alice, settings, content, kind):
    more = {"Content-Type": kind}
    answer = await client.post("/import", content=content, headers=alice | more)

    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_INPUT")
    assert [path for path in settings.data_dir.rglob("*") if path.is_file()] == []
    listed = await client.get("/import", headers=alice)
    assert listed.json()["data"]["imports"] == []


async def test_too_large_an_upload_is_refused_before_and_while_it_comes(settings):
    small = settings.model_copy(update={"import_max_mb": 1})

    async def endless():
        while True:
            yield bytes(65_536)

    async with app_client(small) as client:
        user = await sign_up(client, "carol")
        for content in (bytes(2 * 1024 * 1024), endless()):
            answer = await client.post("/import", content=content, headers=user)
            assert (answer.status_code, answer.json()["error_code"]) == (413, "TOO_LARGE")
        assert [path for path in settings.data_dir.rglob("*") if path.is_file()] == []


async def test_an_import_costs_one_request(settings):
    free = settings.model_copy(update={"default_tier": "free", "free_per_day": 1})
    async with app_client(free) as client:
        user = await sign_up(client, "carol")
        job = await import_file(client, user, chatgpt(chats(3)))
        assert job["imported"] == 6
        await upload(client, user, b"x", 403)


async def test_the_job_shows_what_waits_for_its_vectors(client, alice):
    few = await import_file(client, alice, chatgpt(chats(3)))
    many = await import_file(client, alice, chatgpt(chats(600)))

    assert few["to_embed"] == 6
    assert many["to_embed"] == 1_206


async def test_another_persons_import_is_nobodys(client, alice, bob):
    job = await upload(client, alice, chatgpt(chats(1)))

    for method, path in (("GET", ""), ("POST", "/cancel")):
        answer = await client.request(method, f"/import/{job['id']}{path}", headers=bob)
        assert answer.status_code == 404
    assert (await client.get("/import", headers=bob)).json()["data"]["imports"] == []
    assert (await ended(client, alice, job["id"]))["state"] == "done"


async def test_an_import_goes_on_after_the_server_was_killed(make_server, tmp_path):
    server = make_server(DATA_DIR=str(tmp_path))
    await asyncio.to_thread(server.wait_until_ready)
    past = chats(1_500, turns=4)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        user = await sign_up(client, "carol")
        job = await upload(client, user, chatgpt(past))

        async def has_begun():
            answer = await client.get(f"/import/{job['id']}", headers=user)
            return answer.json()["data"]["imported"] > 0

        await until(has_begun)
        server.kill()
        server.start()
        await asyncio.to_thread(server.wait_until_ready)
        done = await ended(client, user, job["id"])

    assert done["state"] == "done"
    # What the first try had written is not counted again as something that was here already.
    assert counts(done) == (6_000, 6_000, 0, 0, 0)
    await no_files_in(tmp_path / "imports")


async def test_a_cancelled_import_stops_and_keeps_what_it_brought(client, alice, settings):
    job = await upload(client, alice, chatgpt(chats(2_000, turns=4)))

    async def has_begun():
        answer = await client.get(f"/import/{job['id']}", headers=alice)
        return answer.json()["data"]["imported"] > 0

    await until(has_begun)
    cancelled = await client.post(f"/import/{job['id']}/cancel", headers=alice)
    stopped = await ended(client, alice, job["id"])

    assert cancelled.json()["data"]["state"] == stopped["state"] == "cancelled"
    assert 0 < stopped["imported"] < 8_000

    await no_files_in(settings.data_dir)
    again = (await client.get(f"/import/{job['id']}", headers=alice)).json()["data"]
    assert again["imported"] == stopped["imported"]


async def no_files_in(folder):
    """The file goes when its process has ended, a moment after its job."""

    async def is_empty():
        return not [path for path in folder.rglob("*") if path.is_file()]

    await until(is_empty)


async def test_an_import_whose_file_is_lost_says_so(client, alice, database, settings):
    job = await import_file(client, alice, chatgpt(chats(1)))
    await no_files_in(settings.data_dir)
    await database.execute(
        "UPDATE memory_layer.imports SET state = 'running', updated_at = now() - interval '1 hour'"
    )

    # Whatever looks next finds it: here, that another file has come.
    await import_file(client, alice, chatgpt(chats(1)))

    lost = (await client.get(f"/import/{job['id']}", headers=alice)).json()["data"]
    assert (lost["state"], "send it again" in lost["message"]) == ("failed", True)


async def test_of_what_was_imported_and_purged_no_trace_is_left(client, alice, database, settings):
    canary = "canarywordthatisnowhereelse"
    past = [Chat("c", f"{canary} title", (Said(f"{canary} q", (f"{canary} a",), START, "m"),))]
    await import_file(client, alice, chatgpt(past))
    [memory] = await memories_of(client, alice)
    path = f"/memories/{memory['id']}"
    await client.patch(path, json={"prompt": f"{canary} edited"}, headers=alice)
    found = await client.post("/search", json={"query": canary}, headers=alice)
    assert len(found.json()["data"]["hits"]) == 1
    await client.delete(path, headers=alice)

    await client.delete(f"/trash/{memory['id']}", headers=alice)

    tables = await database.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname LIKE 'memory_layer%'"
    )
    for table in tables:
        rows = await database.fetch(f"SELECT t::text FROM {table['name']} t")
        assert canary not in str(rows), table
    indexes = [held for held in gc.get_objects() if isinstance(held, KeywordField)]
    [term] = hashes_of(analyzer.terms(canary))
    assert not any(term in part.terms for index in indexes for part in index._segments)
    export = await client.get("/export/full", headers=alice)
    with zipfile.ZipFile(io.BytesIO(export.content)) as archive:
        assert canary not in str([archive.read(name) for name in archive.namelist()])
    await no_files_in(settings.data_dir)
    found = await client.post("/search", json={"query": canary}, headers=alice)
    assert canary not in found.text
    again = await import_file(client, alice, chatgpt(past))
    assert counts(again) == (1, 0, 0, 1, 0)


async def test_the_words_of_an_import_wait_for_no_search(client, alice, database):
    job = await import_file(client, alice, chatgpt(chats(3)))

    # Packed, they are counted at once; to analyse a whole past would take the first search minutes.
    packed = await database.fetchval("SELECT count(*) FROM memory_layer.keywords")
    assert packed == job["imported"]


async def test_an_erased_account_takes_its_imports_and_files_along(
    client, alice, database, settings
):
    user = (await client.get("/auth/v1/user", headers=alice)).json()
    await upload(client, alice, chatgpt(chats(3_000, turns=4)))
    body = {"user_id": user["id"], "password": PASSWORD}

    erased = await client.request("DELETE", "/account", json=body, headers=alice)

    assert erased.status_code == 200, erased.text

    async def nothing_is_left():
        files = [path for path in settings.data_dir.rglob("*") if path.is_file()]
        counted = [
            await database.fetchval(f"SELECT count(*) FROM memory_layer.{table}")
            for table in ("memories", "versions", "imports")
        ]
        return not files and not any(counted)

    await until(nothing_is_left)
