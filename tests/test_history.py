"""What was edited or deleted can be brought back; clients that keep a copy follow it all."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from core import trash
from storage.database import acting_as, open_pool
from storage.sync import MOST_BYTES
from storage.versions import MOST_VERSIONS


async def save(client, user, prompt, response=None, **more):
    body = {"id": str(uuid4()), "prompt": prompt, "provider": "claude"} | more
    answer = await client.post("/save-prompt", json=body, headers=user)
    assert answer.status_code == 201, answer.text
    if response:
        body = {"memory_id": body["id"], "response": response}
        await client.post("/save-response", json=body, headers=user)
    return answer.json()["data"]["memory_id"]


async def call(client, user, method, path, status=200, **more):
    answer = await client.request(method, path, headers=user | more.pop("headers", {}), **more)
    assert answer.status_code == status, answer.text
    return answer.json()["data"] if status == 200 else answer.json()


async def found(client, user, words):
    answer = await call(client, user, "POST", "/search", json={"query": words})
    return [hit["memory"]["id"] for hit in answer["hits"]]


async def edit(client, user, memory_id, status=200, headers=None, **changes):
    path = f"/memories/{memory_id}"
    return await call(client, user, "PATCH", path, status, json=changes, headers=headers or {})


async def test_a_deleted_memory_comes_back_from_the_trash_as_it_was(client, alice):
    facts = {"model": "m", "conversation_id": "c", "conversation_title": "T", "url": "https://x/"}
    memory_id = await save(client, alice, "a walrus", "swims", metadata={"a": 1}, **facts)
    before = await call(client, alice, "GET", f"/memories/{memory_id}")

    await call(client, alice, "DELETE", f"/memories/{memory_id}")
    assert await found(client, alice, "walrus") == []
    [listed] = (await call(client, alice, "GET", "/trash"))["memories"]
    restored = await call(client, alice, "POST", f"/trash/{memory_id}/restore")

    changing = ("updated_at", "embedding_state")
    assert restored | dict.fromkeys(changing) == before | dict.fromkeys(changing)
    assert listed["memory"] | dict.fromkeys(changing) == before | dict.fromkeys(changing)
    assert await found(client, alice, "walrus") == [memory_id]
    assert (await call(client, alice, "GET", "/trash"))["memories"] == []
    await call(client, alice, "POST", f"/trash/{memory_id}/restore", 404)


async def test_the_trash_is_listed_in_pages_latest_first(client, alice):
    ids = [await save(client, alice, f"n{n}") for n in range(5)]
    for memory_id in ids:
        await call(client, alice, "DELETE", f"/memories/{memory_id}")

    listed, cursor = [], None
    while page := await call(
        client, alice, "GET", "/trash", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
    ):
        listed += [item["memory"]["id"] for item in page["memories"]]
        if not (cursor := page["next_cursor"]):
            break

    assert listed == ids[::-1]


async def test_what_is_purged_leaves_nothing_but_its_id(client, alice, database):
    memory_id = await save(client, alice, "canary prompt", "canary answer", model="canary-model")
    await edit(client, alice, memory_id, prompt="canary edited")
    await call(client, alice, "DELETE", f"/memories/{memory_id}")

    await call(client, alice, "DELETE", f"/trash/{memory_id}")

    tables = await database.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname LIKE 'memory_layer%'"
    )
    for table in tables:
        rows = await database.fetch(f"SELECT t::text FROM {table['name']} t")
        assert "canary" not in str(rows), table
    row = await database.fetchrow("SELECT * FROM memory_layer.memories")
    assert (row["prompt_capture"], row["response_capture"]) == (None, None)
    assert row["content_hash"] == bytes(32)


async def test_no_retry_brings_back_what_was_purged(client, alice, database):
    memory_id = await save(client, alice, "secret")
    await call(client, alice, "DELETE", f"/memories/{memory_id}")
    await call(client, alice, "DELETE", f"/trash/{memory_id}")

    body = {"id": memory_id, "prompt": "secret", "provider": "claude"}
    retry = await client.post("/save-prompt", json=body, headers=alice)
    other = await client.post("/save-prompt", json=body | {"prompt": "x"}, headers=alice)

    assert (retry.status_code, other.status_code) == (200, 200)
    await call(client, alice, "GET", f"/memories/{memory_id}", 404)
    assert (await call(client, alice, "GET", "/trash"))["memories"] == []
    assert await database.fetchval("SELECT prompt_capture FROM memory_layer.memories") is None


async def test_the_trash_forgets_after_thirty_days(client, alice, bob, database, database_url):
    old, new, his = [await save(client, user, "p") for user in (alice, alice, bob)]
    for user, memory_id in ((alice, old), (alice, new), (bob, his)):
        await call(client, user, "DELETE", f"/memories/{memory_id}")
    await database.execute(
        "UPDATE memory_layer.versions SET deleted_at = now() - $1::interval"
        " WHERE memory_id = ANY($2)",
        trash.KEPT_FOR + timedelta(seconds=1),
        [UUID(old), UUID(his)],
    )

    async with open_pool(database_url, 1, 1) as pool:
        assert await trash.purge_expired(pool) == 2
        assert await trash.purge_expired(pool) == 0

    [kept] = (await call(client, alice, "GET", "/trash"))["memories"]
    assert kept["memory"]["id"] == new
    assert (await call(client, bob, "GET", "/trash"))["memories"] == []


async def test_an_emptied_trash_is_empty_however_full_it_was(client, alice, monkeypatch):
    monkeypatch.setattr(trash, "BATCH", 2)
    for n in range(5):
        await call(client, alice, "DELETE", f"/memories/{await save(client, alice, f'n{n}')}")

    assert await call(client, alice, "DELETE", "/trash") == {"purged": 5}
    assert (await call(client, alice, "GET", "/trash"))["memories"] == []


async def test_every_edit_leaves_a_version_that_can_be_restored(client, alice):
    memory_id = await save(client, alice, "I live in Berlin", conversation_title="Home")
    await edit(client, alice, memory_id, prompt="I live in Porto", metadata={"a": 1})
    await edit(client, alice, memory_id, conversation_title="Moved")

    path = f"/memories/{memory_id}/versions"
    listed = (await call(client, alice, "GET", path))["versions"]
    restored = await call(client, alice, "POST", f"{path}/1/restore")

    told = [(v["number"], v["prompt"], v["conversation_title"], v["metadata"]) for v in listed]
    assert told == [
        (2, "I live in Porto", "Home", {"a": 1}),
        (1, "I live in Berlin", "Home", {}),
    ]
    assert (restored["prompt"], restored["conversation_title"]) == ("I live in Berlin", "Home")
    assert (restored["metadata"], restored["edited"]) == ({}, False)
    assert await found(client, alice, "Berlin") == [memory_id]
    assert await found(client, alice, "Porto") == []
    latest = (await call(client, alice, "GET", path))["versions"][0]
    assert (latest["number"], latest["prompt"]) == (3, "I live in Porto")
    await call(client, alice, "POST", f"{path}/9/restore", 404)


async def test_an_edit_that_changes_nothing_leaves_no_version(client, alice):
    memory_id = await save(client, alice, "same", metadata={"b": 1, "a": [2]})

    await edit(client, alice, memory_id, prompt="same", metadata={"a": [2], "b": 1})

    versions = await call(client, alice, "GET", f"/memories/{memory_id}/versions")
    assert versions == {"versions": []}


async def test_of_many_and_of_long_versions_the_latest_are_kept(client, alice):
    memory_id = await save(client, alice, "0")
    for n in range(1, MOST_VERSIONS + 4):
        await edit(client, alice, memory_id, prompt=str(n))
    path = f"/memories/{memory_id}/versions"
    many = (await call(client, alice, "GET", path))["versions"]
    for n in range(6):
        await edit(client, alice, memory_id, prompt=f"{n}" + "x" * 1_000_000)
    long = (await call(client, alice, "GET", path))["versions"]

    assert [v["prompt"] for v in many] == [str(n) for n in range(MOST_VERSIONS + 2, 2, -1)]
    assert [v["prompt"][0] for v in long] == ["4", "3", "2", "1"]


async def test_a_restored_version_does_not_take_away_what_came_later(client, alice):
    memory_id = await save(client, alice, "question")
    await edit(client, alice, memory_id, prompt="better question")
    body = {"memory_id": memory_id, "response": "the answer"}
    await client.post("/save-response", json=body, headers=alice)

    restored = await call(client, alice, "POST", f"/memories/{memory_id}/versions/1/restore")

    assert (restored["prompt"], restored["response"]) == ("question", "the answer")


async def test_an_edit_of_what_has_changed_meanwhile_is_refused(client, alice):
    memory_id = await save(client, alice, "first")
    read = await client.get(f"/memories/{memory_id}", headers=alice)
    tag = {"If-Match": read.headers["ETag"]}
    mine = await client.patch(f"/memories/{memory_id}", json={"prompt": "b"}, headers=alice | tag)

    late = await edit(client, alice, memory_id, 412, tag, prompt="c")

    assert late["error_code"] == "CHANGED_MEANWHILE"
    assert late["details"]["memory"]["prompt"] == "b"
    assert late["details"]["etag"] == mine.headers["ETag"] != read.headers["ETag"]
    again = {"If-Match": f'"other", {late["details"]["etag"]}'}
    assert (await edit(client, alice, memory_id, headers=again, prompt="c"))["prompt"] == "c"
    assert (await edit(client, alice, memory_id, headers={"If-Match": "*"}, prompt="d"))["edited"]
    await edit(client, alice, str(uuid4()), 404, {"If-Match": "*"}, prompt="e")


async def test_of_two_edits_at_once_with_one_etag_one_is_refused(client, alice):
    memory_id = await save(client, alice, "first")
    tag = (await client.get(f"/memories/{memory_id}", headers=alice)).headers["ETag"]

    answers = await asyncio.gather(
        *(
            client.patch(
                f"/memories/{memory_id}", json={"prompt": text}, headers=alice | {"If-Match": tag}
            )
            for text in "abcd"
        )
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]


async def test_that_a_memory_was_embedded_does_not_change_its_etag(client, alice, database):
    memory_id = await save(client, alice, "p")
    first = await client.get(f"/memories/{memory_id}", headers=alice)
    await database.execute(
        "UPDATE memory_layer.memories SET embedding_state = 'done', change_seq = change_seq + 1"
    )

    second = await client.get(f"/memories/{memory_id}", headers=alice)

    assert second.json()["data"]["embedding_state"] == "done"
    assert first.headers["ETag"] == second.headers["ETag"]


async def since(client, user, cursor=None, status=200, **more):
    params = more | ({"cursor": cursor} if cursor else {})
    return await call(client, user, "GET", "/sync/since", status, params=params)


async def test_a_copy_follows_saves_edits_deletions_and_restores(client, alice):
    nothing = await since(client, alice)
    ids = [await save(client, alice, f"n{n}") for n in range(3)]
    start = await since(client, alice)
    await edit(client, alice, ids[0], prompt="edited")
    await call(client, alice, "DELETE", f"/memories/{ids[1]}")

    changed = await since(client, alice, start["next_cursor"])
    await call(client, alice, "POST", f"/trash/{ids[1]}/restore")
    back = await since(client, alice, changed["next_cursor"])
    end = await since(client, alice, back["next_cursor"])

    assert nothing == {"changes": [], "next_cursor": None, "more": False}
    assert [change["memory"]["prompt"] for change in start["changes"]] == ["n0", "n1", "n2"]
    assert [(c["id"], c["deleted"]) for c in changed["changes"]] == [
        (ids[0], False),
        (ids[1], True),
    ]
    assert changed["changes"][1]["memory"] is None
    assert [c["memory"]["prompt"] for c in back["changes"]] == ["n1"]
    assert end == {"changes": [], "next_cursor": back["next_cursor"], "more": False}


async def test_a_page_is_bounded_in_rows_and_in_bytes(client, alice):
    large = "x" * (MOST_BYTES // 5)
    for n in range(6):
        await save(client, alice, f"{n}{large}")
    for n in range(6, 9):
        await save(client, alice, str(n))

    pages, cursor, more = [], None, True
    while more:
        page = await since(client, alice, cursor, limit=4)
        pages.append([change["memory"]["prompt"][0] for change in page["changes"]])
        cursor, more = page["next_cursor"], page["more"]

    assert pages == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8"]]


async def test_a_memory_larger_than_a_page_is_a_page(client, alice, database):
    await save(client, alice, "small")
    await save(client, alice, "x", "y")
    await database.execute(
        "UPDATE memory_layer.memories SET response = repeat('y', $1) WHERE prompt = 'x'",
        MOST_BYTES + 1,
    )

    first = await since(client, alice)
    second = await since(client, alice, first["next_cursor"])

    assert [len(page["changes"]) for page in (first, second)] == [1, 1]
    assert (first["more"], second["more"]) == (True, False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("epoch = gen_random_uuid()", id="restored from a backup"),
        pytest.param("purged_through = change_seq + 1, change_seq = change_seq + 1", id="purged"),
        pytest.param("change_seq = 0", id="ahead of what there is"),
    ],
)
async def test_a_cursor_that_missed_something_must_begin_anew(client, alice, database, change):
    await save(client, alice, "p")
    cursor = (await since(client, alice))["next_cursor"]
    await database.execute(f"UPDATE memory_layer.user_state SET {change}")

    refused = await since(client, alice, cursor, 410)
    anew = await since(client, alice, limit=1)

    assert refused["error_code"] == "RESYNC_REQUIRED"
    if "purged" in change:
        assert [c["memory"]["prompt"] for c in anew["changes"]] == ["p"]
        await since(client, alice, anew["next_cursor"])


async def test_a_cursor_of_another_person_leads_nowhere(client, alice, bob):
    await save(client, alice, "hers")
    await save(client, bob, "his")
    hers = (await since(client, alice))["next_cursor"]

    assert (await since(client, bob, hers, 410))["error_code"] == "RESYNC_REQUIRED"
    assert (await since(client, bob, "nonsense", 400))["error_code"] == "INVALID_INPUT"


async def test_a_role_of_a_person_sees_only_that_persons_history(client, alice, bob, database_url):
    memory_id = await save(client, alice, "hers")
    await edit(client, alice, memory_id, prompt="hers still")
    his = (await client.get("/auth/v1/user", headers=bob)).json()["id"]

    async with open_pool(database_url, 1, 1) as pool, acting_as(pool, UUID(his)) as conn:
        assert await conn.fetch("SELECT * FROM memory_layer.versions") == []
        assert await conn.fetch("SELECT * FROM memory_layer.imports") == []
