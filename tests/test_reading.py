"""A person leafs through what was kept, corrects it, and deletes it."""

from urllib.parse import quote
from uuid import uuid4

import pytest


async def save(client, user, prompt, **more):
    body = {"prompt": prompt, "provider": "chatgpt"} | more
    answer = await client.post("/save-prompt", json=body, headers=user)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["memory_id"]


async def leaf(client, user, path, key="memories"):
    """Follow next_cursor to the end and return all pages."""
    pages, cursor = [], None
    while True:
        joined = f"{path}{'&' if '?' in path else '?'}cursor={cursor}" if cursor else path
        answer = await client.get(joined, headers=user)
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        pages.append(data[key])
        cursor = data["next_cursor"]
        if cursor is None:
            return pages


def prompts(pages):
    return [memory["prompt"] for page in pages for memory in page]


async def test_the_list_is_newest_first_and_complete_also_at_equal_times(client, alice):
    for n in range(7):
        await save(client, alice, f"n{n}", occurred_at=f"2025-01-0{1 + n // 3}T00:00:00Z")

    pages = await leaf(client, alice, "/memories?limit=2")

    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert sorted(prompts(pages)) == [f"n{n}" for n in range(7)]
    days = [memory["occurred_at"] for page in pages for memory in page]
    assert days == sorted(days, reverse=True)


async def test_a_page_that_is_just_full_has_no_next_one(client, alice):
    for n in range(2):
        await save(client, alice, f"n{n}")

    assert len(await leaf(client, alice, "/memories?limit=2")) == 1


async def test_the_list_can_be_narrowed(client, alice):
    await save(client, alice, "old", occurred_at="2024-01-01T00:00:00Z", conversation_id="a")
    await save(client, alice, "new", occurred_at="2025-01-01T00:00:00Z", conversation_id="b")
    await save(client, alice, "other", occurred_at="2025-01-02T00:00:00Z", provider="Claude")

    assert prompts(await leaf(client, alice, "/memories?provider=claude")) == ["other"]
    assert prompts(await leaf(client, alice, "/memories?conversation_id=a")) == ["old"]
    assert prompts(await leaf(client, alice, "/memories?after=2025-01-02T00:00:00Z")) == ["other"]
    assert prompts(await leaf(client, alice, "/memories?before=2025-01-01T00:00:00Z")) == ["old"]


async def test_conversations_are_listed_and_read_in_order(client, alice):
    for n, (conversation, title) in enumerate((("a", "First"), ("b", None), ("a", "Renamed"))):
        await save(
            client,
            alice,
            f"n{n}",
            conversation_id=conversation,
            occurred_at=f"2025-01-0{n + 1}T00:00:00Z",
            **({"conversation_title": title} if title else {}),
        )
    await save(client, alice, "alone")

    pages = await leaf(client, alice, "/conversations?limit=1", "conversations")

    listed = [conversation for page in pages for conversation in page]
    assert [(c["id"], c["title"], c["memories"]) for c in listed] == [
        ("a", "Renamed", 2),
        ("b", None, 1),
    ]
    assert prompts(await leaf(client, alice, "/conversations/a?limit=1")) == ["n0", "n2"]


async def test_any_conversation_id_can_be_listed_and_read(client, alice):
    names = ["a/b", "c d", "e\u00a0f", "g\u200dh", "i?j#k", "l%2Fm", "..", "\u202e🦜"]
    for name in names:
        await save(client, alice, name, conversation_id=name)

    pages = await leaf(client, alice, "/conversations?limit=1", "conversations")

    assert sorted(c["id"] for page in pages for c in page) == sorted(names)
    for name in names:
        path = f"/conversations/{quote(name, safe='')}"
        # "." and ".." alone are taken out of a path by clients before they send it.
        if name != "..":
            assert prompts(await leaf(client, alice, path)) == [name]


async def test_a_conversation_of_nobody_or_of_another_person_is_404(client, alice, bob):
    await save(client, bob, "his", conversation_id="c")

    for name in ("c", "nothing"):
        answer = await client.get(f"/conversations/{name}", headers=alice)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


async def test_an_edit_is_kept_and_marked(client, alice):
    memory_id = await save(client, alice, "I live in Berlin", metadata={"a": 1})
    changes = {"prompt": "I live in Porto", "response": "Noted.", "metadata": {"b": [2]}}

    edited = await client.patch(f"/memories/{memory_id}", json=changes, headers=alice)

    read = await client.get(f"/memories/{memory_id}", headers=alice)
    assert edited.json() == read.json()
    memory = read.json()["data"]
    assert {name: memory[name] for name in changes} == changes
    assert memory["edited"] is True


async def test_a_new_title_is_no_edit_of_the_text(client, alice):
    memory_id = await save(client, alice, "a")

    edited = await client.patch(
        f"/memories/{memory_id}", json={"conversation_title": "T"}, headers=alice
    )

    assert edited.json()["data"]["edited"] is False


async def test_a_deleted_memory_is_gone_everywhere(client, alice, database):
    memory_id = await save(client, alice, "canary", conversation_id="c")

    answer = await client.delete(f"/memories/{memory_id}", headers=alice)

    assert answer.json() == {"success": True, "data": None, "error": None}
    for method in ("GET", "DELETE", "PATCH"):
        again = await client.request(
            method, f"/memories/{memory_id}", json={"prompt": "x"}, headers=alice
        )
        assert (again.status_code, again.json()["error_code"]) == (404, "NOT_FOUND")
    assert (await client.get("/memories", headers=alice)).json()["data"]["memories"] == []
    assert (await client.get("/conversations/c", headers=alice)).status_code == 404
    found = await client.post("/search", json={"query": "canary"}, headers=alice)
    assert found.json()["data"]["hits"] == []
    rows = await database.fetch("SELECT m::text FROM memory_layer.memories m")
    assert "canary" not in str(rows)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_the_memory_of_another_person_is_403_and_stays_as_it_is(client, alice, bob, method):
    memory_id = await save(client, alice, "hers")

    answer = await client.request(
        method, f"/memories/{memory_id}", json={"prompt": "his"}, headers=bob
    )

    assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")
    assert "hers" not in answer.text
    kept = await client.get(f"/memories/{memory_id}", headers=alice)
    assert kept.json()["data"]["prompt"] == "hers"


async def test_lists_and_searches_hold_no_other_persons_rows(client, alice, bob):
    await save(client, alice, "zebra", conversation_id="c")
    same_id = str(uuid4())
    await save(client, alice, "zebra", id=same_id)

    for answer in (
        await client.get("/memories", headers=bob),
        await client.get("/memories?conversation_id=c", headers=bob),
        await client.get("/conversations", headers=bob),
        await client.post("/search", json={"query": "zebra"}, headers=bob),
        await client.post("/search", json={"query": "zebra", "conversation_id": "c"}, headers=bob),
    ):
        assert answer.status_code == 200
        assert "zebra" not in answer.text


async def test_large_answers_are_compressed(client, alice):
    await save(client, alice, "word " * 1_000)

    answer = await client.get("/memories", headers=alice | {"Accept-Encoding": "gzip"})

    assert answer.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in (await client.get("/healthz")).headers
