"""A chat draws on memories, becomes one, and is never lost because a provider fails."""

import asyncio

import pytest

from tests.answering import answering, events_in, memories_of, remember
from tests.conftest import issue_token, sign_up, until
from tests.model_server import Fault

HELLO = [{"role": "user", "content": "Where does the walrus sleep?"}]


async def chat(client, who, messages=HELLO, **more):
    return await client.post("/chat", json={"messages": messages} | more, headers=who)


async def test_a_chat_draws_on_memories_and_becomes_one(asked):
    client, models, alice = asked
    known = await remember(client, alice, "Tell me", "The walrus can sleep on ice, where it does.")

    answer = await chat(client, alice, conversation_id="c-1", conversation_title="Animals")

    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert (data["reply"], data["provider"]) == ("The walrus sleeps.", "openai")
    assert [source["memory_id"] for source in data["sources"]] == [known]
    assert data["reply_is_saved"] and data["used_tokens"] == 25
    saved, _ = await memories_of(client, alice)
    assert saved["id"] == data["memory_id"]
    assert (saved["prompt"], saved["response"]) == (HELLO[0]["content"], "The walrus sleeps.")
    assert (saved["source"], saved["status"]) == ("chat", "complete")
    assert (saved["provider"], saved["model"]) == ("openai", "walrus-1")
    assert (saved["conversation_id"], saved["conversation_title"]) == ("c-1", "Animals")
    assert "on ice" in models.prompt() and "MEMORIES" in models.prompt()


async def test_the_conversation_so_far_is_recalled_for_too(asked):
    client, models, alice = asked
    await remember(client, alice, "Budapest thermal baths are open on Mondays")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tell me about Budapest thermal baths"},
        {"role": "assistant", "content": "Gladly."},
        {"role": "user", "content": "When open?"},
    ]

    data = (await chat(client, alice, messages)).json()["data"]

    assert ["Mondays" in source["prompt"] for source in data["sources"]] == [True]
    assert models.received[0].body["messages"][:3] == messages[:3]
    assert models.received[0].body["messages"][3]["content"].endswith("\n\nWhen open?")


async def test_what_stands_in_the_chat_already_is_not_put_in_again(asked):
    client, models, alice = asked
    await chat(client, alice)

    data = (await chat(client, alice)).json()["data"]

    assert data["sources"] == []
    assert "MEMORIES" not in models.prompt()


async def test_memory_can_be_left_out_and_nothing_kept(asked):
    client, models, alice = asked
    await remember(client, alice, "The walrus can sleep on ice, where it does.")

    data = (await chat(client, alice, use_memory=False, save=False)).json()["data"]

    assert (data["sources"], data["memory_id"], data["reply_is_saved"]) == ([], None, False)
    assert len(await memories_of(client, alice)) == 1
    assert models.received[0].body["messages"] == HELLO


async def test_a_stream_names_the_memories_first_and_the_memory_last(asked):
    client, models, alice = asked
    await remember(client, alice, "The walrus can sleep on ice, where it does.")

    answer = await chat(client, alice, stream=True)

    (first, shown), *texts, (last, done) = events_in(answer.text)
    assert (first, last) == ("sources", "done")
    assert len(shown["sources"]) == len(done["sources"]) == 1
    assert "".join(data["text"] for _, data in texts) == done["reply"] == "The walrus sleeps."
    saved = (await memories_of(client, alice))[0]
    assert (saved["id"], saved["response"]) == (done["memory_id"], "The walrus sleeps.")
    assert done["reply_is_saved"] and done["used_tokens"] == 25
    assert models.received[0].body["stream_options"] == {"include_usage": True}


async def test_links_of_a_reply_to_memories_are_made_plain(asked):
    client, models, alice = asked
    await remember(client, alice, "The walrus can sleep on ice, where it does.")
    models.reply = ["![x](https://evil.example/?q=", "ice) [1]"]

    assert (await chat(client, alice)).json()["data"]["reply"] == "x [1]"
    plain = (await chat(client, alice, use_memory=False)).json()["data"]["reply"]

    assert plain == "![x](https://evil.example/?q=ice) [1]"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
async def test_each_provider_can_be_chosen(asked, provider, stream):
    client, models, alice = asked
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]

    answer = await chat(
        client, alice, messages, provider=provider, model="walrus-2", stream=stream, max_tokens=77
    )

    data = events_in(answer.text)[-1][1] if stream else answer.json()["data"]
    assert (data["reply"], data["model"]) == ("The walrus sleeps.", "walrus-2")
    sent = models.received[0].body
    assert (sent["model"], sent["max_tokens"], sent.get("stream", False)) == (
        "walrus-2", 77, stream,
    )  # fmt: skip
    assert sent.get("system") == (None if provider == "openai" else "Be brief.")


DOWN = [
    pytest.param([Fault("status", 500, body=b"{}")] * 3, 502, id="answers 500"),
    pytest.param([Fault("status", 503, body=b"<html>")] * 3, 502, id="answers a page"),
    pytest.param([Fault("status", 302, {"location": "/v1/models"})], 502, id="leads elsewhere"),
    pytest.param([Fault("status", 429, {"retry-after": "30"})], 502, id="limits us"),
    pytest.param([Fault("status", 401)], 502, id="refuses our key"),
    pytest.param([Fault("status", 200, body=b"not json")], 502, id="speaks nonsense"),
    pytest.param([Fault("status", 200, body=b'{"error": "no"}')], 502, id="speaks otherwise"),
    pytest.param([Fault("close")] * 3, 502, id="hangs up"),
]


@pytest.mark.parametrize(("faults", "status"), DOWN)
async def test_what_was_said_is_saved_though_the_provider_is_wrong(asked, faults, status):
    client, models, alice = asked
    models.faults.extend(faults)

    answer = await chat(client, alice)

    assert answer.status_code == status
    assert answer.json()["error_code"] == "PROVIDER_FAILED"
    if faults[0].headers.get("retry-after"):
        assert answer.headers["retry-after"] == "30"
    (saved,) = await memories_of(client, alice)
    assert (saved["prompt"], saved["response"]) == (HELLO[0]["content"], None)
    models.faults.clear()
    assert (await chat(client, alice)).status_code == 200
    (saved,) = await memories_of(client, alice)
    assert saved["response"] == "The walrus sleeps."


async def test_a_fault_that_passes_is_not_noticed(asked):
    client, models, alice = asked
    models.fail_next("status", 1, body=b"{}")
    models.fail_next("close")

    assert (await chat(client, alice)).status_code == 200

    assert len(models.received) == 3


async def test_a_broken_stream_is_kept_as_far_as_it_came(asked):
    client, models, alice = asked
    models.fail_next("cut", after=3)

    answer = await chat(client, alice, stream=True)

    *_, (name, error) = events_in(answer.text)
    assert (name, error["error_code"]) == ("error", "PROVIDER_FAILED")

    async def is_saved():
        return [m["response"] for m in await memories_of(client, alice)] == ["The walrus "]

    await until(is_saved, 10)
    assert (await memories_of(client, alice))[0]["status"] == "partial"


async def test_patience_ends(settings):
    more = {"provider_silence_seconds": 0.4, "provider_total_seconds": 0.8}
    async with answering(settings, **more) as (client, models):
        alice = await sign_up(client, "alice")
        for stream in (False, True):
            models.fail_next("hang")
            answer = await chat(client, alice, stream=stream)
            assert (answer.status_code, answer.json()["error_code"]) == (504, "PROVIDER_TOO_SLOW")
        models.fail_next("stall", after=2)
        answer = await chat(client, alice, stream=True)
        assert events_in(answer.text)[-1][1]["error_code"] == "PROVIDER_TOO_SLOW"
        models.reply, models.pause = ["walrus "] * 100, 0.1
        answer = await chat(client, alice, stream=True)
        assert events_in(answer.text)[-1][1]["error_code"] == "PROVIDER_TOO_SLOW"
        assert [m["prompt"] for m in await memories_of(client, alice)] == [HELLO[0]["content"]]


async def test_a_provider_that_is_down_is_spared_and_shown(settings):
    async with answering(settings) as (client, models):
        alice = await sign_up(client, "alice")
        models.faults.extend([Fault("status", 500, body=b"{}")] * 20)
        for _ in range(2):
            await chat(client, alice)
        assert len(models.received) == 5

        refused = await chat(client, alice)

        assert (refused.status_code, refused.json()["error_code"]) == (502, "PROVIDER_FAILED")
        assert 1 <= int(refused.headers["retry-after"]) <= 16
        assert len(models.received) == 5
        health = (await client.get("/health")).json()["data"]
        assert health["chat"]["providers"]["openai"] == "down"
        assert (health["chat"]["state"], health["status"]) == ("degraded", "degraded")
        models.faults.clear()
        assert (await chat(client, alice, provider="anthropic")).status_code == 200


async def test_without_a_provider_a_chat_is_refused(client, alice):
    answer = await chat(client, alice)

    assert (answer.status_code, answer.json()["error_code"]) == (503, "NO_CHAT_PROVIDER")


async def test_named_providers_are_asked_with_their_own_key_and_model(settings):
    async with answering(settings) as (_, models):
        named = {"attic": {"base_url": models.openai_url, "api_key": "sk-attic", "model": "old-1"}}
        async with answering(settings, providers=named) as (client, _):
            alice = await sign_up(client, "alice")
            for more in ({"provider": "attic"}, {"model": "attic/old-1"}):
                data = (await chat(client, alice, **more)).json()["data"]
                assert (data["provider"], data["model"]) == ("attic", "old-1")
                assert models.received[-1].headers["authorization"] == "Bearer sk-attic"
            wrong = await chat(client, alice, provider="nobody")
            assert (wrong.status_code, wrong.json()["error_code"]) == (400, "INVALID_INPUT")


async def test_the_same_question_answered_otherwise_is_a_memory_of_its_own(asked):
    client, models, alice = asked
    first = (await chat(client, alice)).json()["data"]["memory_id"]
    models.reply = ["On ice."]
    again = (await chat(client, alice)).json()["data"]["memory_id"]

    replies = {m["id"]: m["response"] for m in await memories_of(client, alice)}

    assert replies == {first: "The walrus sleeps.", again: "On ice."}


QUARTERS_END = 1_800_000_000


async def said_before_and_after_a_quarters_end(client, who, monkeypatch, between=None):
    """Return the ids of the memories."""
    ids = []
    for seconds in (QUARTERS_END - 1, QUARTERS_END + 1):
        monkeypatch.setattr("core.chat_memory.time.time", lambda now=seconds: now)
        ids.append((await chat(client, who)).json()["data"]["memory_id"])
        if between and len(ids) == 1:
            await between()
    return ids


async def test_the_same_chat_a_moment_later_is_the_same_memory_whatever_the_clock_says(
    asked, monkeypatch
):
    client, _, alice = asked

    first, again = await said_before_and_after_a_quarters_end(client, alice, monkeypatch)

    assert first == again == (await memories_of(client, alice))[0]["id"]


async def test_what_was_deleted_does_not_come_back_with_the_next_call_of_its_chat(
    asked, monkeypatch
):
    client, _, alice = asked

    async def delete():
        for memory in await memories_of(client, alice):
            await client.delete(f"/memories/{memory['id']}", headers=alice)

    await said_before_and_after_a_quarters_end(client, alice, monkeypatch, delete)

    assert await memories_of(client, alice) == []


async def test_the_same_words_later_are_another_memory(settings, database, monkeypatch):
    async def wait():
        await database.execute(
            "UPDATE memory_layer.memories SET created_at = now() - interval '15 minutes'"
        )

    async with answering(settings) as (client, _):
        alice = await sign_up(client, "alice")
        first, later = await said_before_and_after_a_quarters_end(client, alice, monkeypatch, wait)

    assert first != later


async def test_chats_save_no_injected_copy(asked):
    """Each round's chats are the next one's memories; a client that sends our block back is met."""
    client, models, alice = asked
    await remember(client, alice, "Round zero of the walrus chat")

    async def one(n):
        messages = [{"role": "user", "content": f"Round of the walrus chat {n}"}]
        if n % 2 and models.received:
            messages = models.received[-1].body["messages"]
        data = (await chat(client, alice, messages, stream=n % 3 == 0)).status_code
        assert data == 200

    for start in range(0, 150, 10):
        await asyncio.gather(*(one(n) for n in range(start, start + 10)))

    assert any("MEMORIES" in request.raw.decode() for request in models.received)
    cursor, seen = None, 0
    while True:
        page = await client.get(
            "/memories", params={"limit": 100} | ({"cursor": cursor} if cursor else {}),
            headers=alice,
        )  # fmt: skip
        for memory in page.json()["data"]["memories"]:
            seen += 1
            assert "MEMORIES" not in f"{memory['prompt']} {memory['response']}"
            assert len(memory["prompt"]) < 40
        cursor = page.json()["data"]["next_cursor"]
        if not cursor:
            break
    assert seen >= 75


async def test_a_token_chats_within_its_scopes(asked):
    client, _, alice = asked
    token = await issue_token(client, alice, "chat")

    assert (await chat(client, token)).status_code == 403
    assert (await chat(client, token, use_memory=False)).status_code == 403
    assert (await chat(client, token, use_memory=False, save=False)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": "a\0b"}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": HELLO, "max_tokens": 0},
        {"messages": HELLO, "base_url": "x", "provider": "http://evil.example/v1"},
    ],
)
async def test_a_bad_chat_is_400(asked, body):
    client, models, alice = asked

    answer = await client.post("/chat", json=body, headers=alice)

    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_INPUT")
    assert not models.received
