"""Questions are answered from one's own memories, with sources, and never by pretending."""

import asyncio

import httpx
import pytest

from core.injection import END, MARK
from core.rag import NOTHING_FOUND
from tests.answering import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    answering,
    events_in,
    remember,
)
from tests.conftest import issue_token, sign_up, until

WALRUS = "Where does the walrus sleep?"


async def ask(client, who, question=WALRUS, **more):
    return await client.post("/rag/query", json={"question": question} | more, headers=who)


async def test_an_answer_names_its_sources(asked):
    client, models, alice = asked
    facts = {"conversation_id": "c-1", "conversation_title": "Animals"}
    memory_id = await remember(client, alice, "Tell me of it", "The walrus sleeps on ice.", **facts)
    models.reply = ["On i", "ce [", "1]."]

    answer = await ask(client, alice, "walrus sleeps")

    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert (data["answer"], data["cited"], data["removed_citations"]) == ("On ice [1].", [1], 0)
    assert (data["used_tokens"], data["provider"], data["model"]) == (25, "openai", "walrus-1")
    (source,) = data["sources"]
    assert (source["n"], source["memory_id"]) == (1, memory_id)
    assert (source["provider"], source["conversation_title"]) == ("claude", "Animals")
    assert "ice" in source["response"]
    system, user = models.received[0].body["messages"]
    assert system["role"] == "system" and "walrus" not in system["content"]
    assert user["content"].endswith("\n\nwalrus sleeps")
    assert user["content"].count(MARK) == user["content"].count(END) == 1
    assert '"conversation": "Animals"' in user["content"]
    assert models.received[0].headers["authorization"] == f"Bearer {OPENAI_KEY}"


async def test_citations_that_point_nowhere_are_taken_out_and_counted(asked):
    client, models, alice = asked
    await remember(client, alice, "walrus sleeps")
    models.reply = ["Ice [1], snow [2] [7].", " ![x](https://evil.example/?q=ice)"]

    data = (await ask(client, alice)).json()["data"]

    assert data["answer"] == "Ice [1], snow. x"
    assert (data["cited"], data["removed_citations"]) == ([1], 2)


async def test_what_is_not_in_the_memories_is_not_asked_of_a_model(asked):
    client, models, alice = asked
    await remember(client, alice, "A recipe for bread")

    data = (await ask(client, alice)).json()["data"]

    assert (data["answer"], data["sources"], data["used_tokens"]) == (NOTHING_FOUND, [], 0)
    assert data["model"] is None
    assert not models.received


async def test_a_stream_begins_with_the_sources_and_is_closed(asked):
    client, models, alice = asked
    await remember(client, alice, "walrus sleeps")
    models.reply = ["On ", "ice ", "[1]."]

    answer = await ask(client, alice, stream=True)

    assert answer.headers["content-type"].startswith("text/event-stream")
    (first, found), *texts, (last, done) = events_in(answer.text)
    assert (first, last) == ("sources", "done")
    assert [source["n"] for source in found["sources"]] == [1]
    assert {name for name, _ in texts} == {"text"} and len(texts) > 1
    assert "".join(data["text"] for _, data in texts) == done["answer"] == "On ice [1]."
    assert (done["cited"], done["used_tokens"]) == ([1], 25)


async def test_nothing_found_can_be_streamed_too(asked):
    client, _, alice = asked

    answer = await ask(client, alice, stream=True)

    assert [name for name, _ in events_in(answer.text)] == ["sources", "text", "done"]


@pytest.mark.parametrize("kind", ["cut", "malformed", "cut in an event"])
async def test_an_error_after_the_start_is_an_event(asked, kind):
    client, models, alice = asked
    await remember(client, alice, "walrus sleeps")
    models.fail_next(kind, after=3)

    answer = await ask(client, alice, stream=True)

    assert answer.status_code == 200
    *_, (name, error) = events_in(answer.text)
    assert (name, error["error_code"], error["success"]) == ("error", "PROVIDER_FAILED", False)


async def test_filters_hold_as_in_search(asked):
    client, models, alice = asked
    await remember(client, alice, "walrus of one", conversation_id="one")
    await remember(client, alice, "walrus of two", conversation_id="two", provider="gemini")

    for filters in ({"conversation_id": "two"}, {"provider": "Gemini"}):
        data = (await ask(client, alice, "walrus", **filters)).json()["data"]
        assert [source["prompt"] for source in data["sources"]] == ["walrus of two"]
        assert "walrus of one" not in models.prompt()
    late = (await ask(client, alice, "walrus", after="2100-01-01")).json()["data"]
    assert late["answer"] == NOTHING_FOUND
    assert len((await ask(client, alice, "walrus", limit=1)).json()["data"]["sources"]) == 1


async def test_memories_take_their_share_of_the_prompt_and_no_more(settings):
    async with answering(settings, memory_tokens=300) as (client, models):
        alice = await sign_up(client, "alice")
        for n in range(6):
            await remember(client, alice, f"walrus {n} " + "word " * 2_000)

        data = (await ask(client, alice, "walrus")).json()["data"]

        assert data["sources"]
        assert len(models.received[0].body["messages"][1]["content"].encode()) < 300 * 4 + 50


async def test_without_a_provider_the_sources_are_served_and_nothing_pretends(client, alice):
    await remember(client, alice, "walrus sleeps")

    answer = await ask(client, alice)
    streamed = await ask(client, alice, stream=True)

    assert answer.status_code == 200
    data = answer.json()["data"]
    assert data["answer"] is None and data["model"] is None
    assert data["details"]["error_code"] == "NO_CHAT_PROVIDER"
    assert [source["prompt"] for source in data["sources"]] == ["walrus sleeps"]
    (_, sources), (name, done) = events_in(streamed.text)
    assert sources["sources"] == data["sources"]
    assert (name, done["answer"], done["details"]) == ("done", None, data["details"])


async def test_a_key_of_ones_own_is_used_once_and_costs_no_budget(settings, capfd):
    more = {"openai_api_key": "", "default_tier": "free", "free_tokens_per_day": 10}
    more |= {"openai_base_url": "https://api.openai.com/v1", "chat_model": "anthropic:walrus-1"}
    async with answering(settings, **more) as (client, models):
        alice = await sign_up(client, "alice")
        await remember(client, alice, "walrus sleeps")
        own = alice | {"X-Provider-Key": "sk-alices-own"}

        assert (await ask(client, own)).json()["data"]["answer"] == "The walrus sleeps."
        assert models.received[0].headers["authorization"] == "Bearer sk-alices-own"
        assert ANTHROPIC_KEY not in str(models.received[0].headers)
        refused = await ask(client, alice)
        assert (refused.status_code, refused.json()["error_code"]) == (403, "TOKENS_SPENT")
        assert (await client.get("/usage", headers=alice)).json()["data"]["tokens"]["used"] == 0
    printed = capfd.readouterr()
    assert "sk-alices-own" not in printed.out + printed.err


@pytest.mark.parametrize("key", ["", "two words", "x" * 600, "ü"])
async def test_a_key_that_can_be_none_is_refused(asked, key):
    client, models, alice = asked

    answer = await ask(client, httpx.Headers(alice | {"X-Provider-Key": key}, encoding="utf-8"))

    assert answer.status_code == 400
    assert not models.received


async def test_a_spent_budget_is_403_and_shown_in_the_usage(settings):
    more = {"default_tier": "free", "free_tokens_per_day": 300}
    async with answering(settings, **more) as (client, _):
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
        for who in (alice, bob):
            await remember(client, who, "walrus sleeps")
        before = (await client.get("/usage", headers=alice)).json()["data"]["tokens"]
        assert (before["limit"], before["used"], before["remaining"]) == (300, 0, 300)

        statuses = []
        while 403 not in statuses:
            statuses.append((await ask(client, alice)).status_code)
            assert len(statuses) < 20

        refused = await ask(client, alice)
        assert refused.json()["error_code"] == "TOKENS_SPENT"
        details = refused.json()["details"]
        assert (details["tier"], details["limit"]) == ("free", 300)
        assert int(refused.headers["Retry-After"]) > 0
        usage = (await client.get("/usage", headers=alice)).json()["data"]
        assert usage["tokens"]["used"] == 25 * (len(statuses) - 1)
        assert usage["days"][-1]["tokens"] == usage["tokens"]["used"]
        assert (await ask(client, bob)).status_code == 200


async def test_a_burst_does_not_pass_on_one_look_at_the_budget(settings):
    async with answering(settings, default_tier="free", free_tokens_per_day=3_000) as (
        client,
        models,
    ):
        alice = await sign_up(client, "alice")
        await remember(client, alice, "walrus sleeps")
        models.fail_next("slow", times=20, seconds=0.7)

        answers = await asyncio.gather(*(ask(client, alice) for _ in range(20)))

        passed = [answer for answer in answers if answer.status_code == 200]
        assert 1 <= len(passed) <= 3
        assert {a.status_code for a in answers} == {200, 403}


async def test_tokens_that_a_provider_does_not_count_are_estimated(asked):
    client, models, alice = asked
    models.counts_tokens = False
    await remember(client, alice, "walrus sleeps")

    data = (await ask(client, alice)).json()["data"]

    assert 200 < data["used_tokens"] < 600

    async def are_counted():
        usage = (await client.get("/usage", headers=alice)).json()["data"]
        return usage["days"][-1]["tokens"] == data["used_tokens"]

    await until(are_counted, 10)


async def test_what_is_anothers_is_in_no_prompt_and_no_answer(app, asked):
    client, models, alice = asked
    bob = app.person()
    await remember(client, alice, "walrus of alice", conversation_title="Secret of alice")
    await remember(client, bob, "walrus of bob")

    answer = await ask(client, bob, "walrus")

    assert "of alice" not in answer.text
    assert "of alice" not in models.prompt()
    assert [s["prompt"] for s in answer.json()["data"]["sources"]] == ["walrus of bob"]


async def test_a_token_that_may_not_read_gets_no_answer_from_memories(asked):
    client, _, alice = asked
    for scopes, status in ((("chat",), 403), (("read",), 403), (("read", "chat"), 200)):
        token = await issue_token(client, alice, *scopes)
        assert (await ask(client, token)).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"question": " "},
        {"question": "x" * 20_001},
        {"question": "a\0b"},
        {"question": "x", "limit": 0},
        {"question": "x", "limit": 21},
        {"question": "x", "model": "a" * 501},
    ],
)
async def test_a_bad_question_is_400(asked, body):
    client, _, alice = asked
    answer = await client.post("/rag/query", json=body, headers=alice)

    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_INPUT")


async def test_a_model_of_another_provider_can_be_asked_by_name(asked):
    client, models, alice = asked
    await remember(client, alice, "walrus sleeps")

    data = (await ask(client, alice, model="anthropic/walrus-2", stream=False)).json()["data"]

    assert (data["provider"], data["model"]) == ("anthropic", "walrus-2")
    assert models.received[0].path == "/v1/messages"
    assert data["used_tokens"] == 25
    assert "walrus" not in models.received[0].body["system"]
