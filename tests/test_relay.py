"""Unchanged clients of OpenAI and Anthropic work through this server, and their chats are kept."""

import asyncio
import contextlib
import time

import anthropic
import httpx
import httpx2
import openai
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from core.injection import MARK
from tests.answering import ANTHROPIC_KEY, OPENAI_KEY, answering_server, memories_of, mint, remember
from tests.conftest import issue_token, until
from tests.model_server import EXTRA, MODELS, Fault

QUESTION = "Where does the walrus sleep?"
SAID = [{"role": "user", "content": QUESTION}]
FACT = "The walrus can sleep on ice, that is where it does."
TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
async def served(cluster):
    patience = {"PROVIDER_SILENCE_SECONDS": "3"}
    async with answering_server(cluster, **patience) as parts:
        yield parts


class Person:
    """Somebody new with a personal token, and official clients that know nothing of us."""

    def __init__(self, url, token):
        self.headers = token
        self.key = token["Authorization"].removeprefix("Bearer ")
        self.http = httpx.AsyncClient(base_url=url, timeout=30)
        self.openai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=self.key, max_retries=0)
        self.anthropic = anthropic.AsyncAnthropic(base_url=url, api_key=self.key, max_retries=0)

    async def memories(self):
        return await memories_of(self.http, self.headers)

    async def remember(self, *texts, **facts):
        return await remember(self.http, self.headers, *texts, **facts)

    async def kept(self, *replies):
        """Wait until these replies are memories, the newest first."""

        async def are_there():
            return [m["response"] for m in await self.memories() if m["response"]] == [*replies]

        await until(are_there, 10)

    async def ask(self, protocol, stream, **more):
        """Ask by the official client and return what it made of the reply."""
        if protocol == "openai":
            create = self.openai.chat.completions.create
            answer = await create(model="walrus-1", messages=SAID, stream=stream, **more)
            if not stream:
                return answer.choices[0].message.content
            return "".join([c.choices[0].delta.content or "" async for c in answer if c.choices])
        create = self.anthropic.messages.create
        answer = await create(model="walrus-1", max_tokens=50, messages=SAID, stream=stream, **more)
        if not stream:
            return answer.content[0].text
        texts = [e.delta.text async for e in answer if e.type == "content_block_delta"]
        return "".join(texts)

    async def aclose(self):
        await self.http.aclose()
        await self.openai.close()
        await self.anthropic.close()


@pytest.fixture
async def models(served):
    served[1].forget()
    return served[1]


@pytest.fixture
async def alice(served):
    server, _, keys = served
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        token = await issue_token(http, {"Authorization": f"Bearer {mint(keys)}"})
    person = Person(server.url, token)
    yield person
    await person.aclose()


@pytest.fixture
async def bob(served):
    server, _, keys = served
    person = Person(server.url, {"Authorization": f"Bearer {mint(keys)}"})
    yield person
    await person.aclose()


both = pytest.mark.parametrize("protocol", ["openai", "anthropic"])
streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
ERRORS = {"openai": openai, "anthropic": anthropic}


@both
@streamed
async def test_an_official_client_chats_with_memory(alice, models, protocol, stream):
    known = await alice.remember(FACT)

    assert await alice.ask(protocol, stream) == "The walrus sleeps."

    sent = models.received[0]
    assert sent.path == PATHS[protocol]
    last = sent.body["messages"][-1]["content"]
    assert last.startswith("Between the next line") and last.endswith(f"\n\n{QUESTION}")
    assert known in last and last.count(MARK) == 1
    key = OPENAI_KEY if protocol == "openai" else ANTHROPIC_KEY
    assert key in f"{sent.headers.get('authorization')} {sent.headers.get('x-api-key')}"
    assert alice.key not in str(sent.headers)
    await alice.kept("The walrus sleeps.")
    saved = (await alice.memories())[0]
    assert (saved["prompt"], saved["status"]) == (QUESTION, "complete")
    assert (saved["provider"], saved["model"], saved["source"]) == (protocol, "walrus-1", "proxy")


@both
@streamed
async def test_the_bytes_are_the_providers_own(alice, models, protocol, stream):
    await alice.remember(FACT)
    body = {"model": "walrus-1", "messages": SAID, "stream": stream, "max_tokens": 9}
    body |= {"x_unknown": {"deep": [1.50, "é", None]}, "temperature": 0.25}

    answer = await alice.http.post(PATHS[protocol], json=body, headers=alice.headers)

    assert answer.content == models.sent[0]
    assert EXTRA in answer.text
    sent = models.received[0].body
    assert {k: v for k, v in sent.items() if k != "messages"} == {
        k: v for k, v in body.items() if k != "messages"
    }
    kind = "text/event-stream" if stream else "application/json"
    assert answer.headers["content-type"].startswith(kind)


@both
@pytest.mark.parametrize(
    ("wish", "reads", "writes"),
    [("on", True, True), ("off", False, False), ("read", True, False), ("write", False, True)],
)
async def test_memory_is_switched_by_a_header(alice, models, protocol, wish, reads, writes):
    known = await alice.remember(FACT)
    headers = alice.headers | {"X-Memory": wish, "X-Conversation-Id": "c-7"}
    body = {"model": "walrus-1", "messages": SAID, "max_tokens": 9}

    answer = await alice.http.post(PATHS[protocol], json=body, headers=headers)

    assert answer.status_code == 200
    assert answer.headers["x-memory-sources"] == (known if reads else "")
    assert (MARK in models.prompt()) == reads
    if not reads:
        assert models.received[0].body == body
    kept = [m for m in await alice.memories() if m["prompt"] == QUESTION]
    assert [m["response"] for m in kept] == (["The walrus sleeps."] if writes else [])
    assert ("x-memory-id" in answer.headers) == writes
    if writes:
        assert answer.headers["x-memory-id"] == kept[0]["id"]
        assert kept[0]["conversation_id"] == "c-7"


async def test_an_unknown_wish_is_refused(alice, models):
    headers = alice.headers | {"X-Memory": "perhaps"}
    answer = await alice.http.post("/v1/messages", json={"messages": SAID}, headers=headers)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert not models.received


@both
@streamed
async def test_tools_pass_untouched_and_one_turn_is_one_memory(alice, models, protocol, stream):
    await alice.remember(FACT)
    models.tool_calls = True
    if protocol == "openai":
        tools = [{"type": "function", "function": TOOL}]
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "look", "arguments": '{"at": "sea"}'},
        }
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sea: empty"}
        more = [*SAID, {"role": "assistant", "tool_calls": [call]}, result]
    else:
        tools = [{"name": "look", "input_schema": TOOL["parameters"]}]
        use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sea"}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sea: empty"}
        more = [
            *SAID,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
    body = {"model": "walrus-1", "max_tokens": 9, "tools": tools, "stream": stream}

    first = await alice.http.post(
        PATHS[protocol], json=body | {"messages": SAID}, headers=alice.headers
    )
    models.tool_calls = False
    await alice.http.post(PATHS[protocol], json=body | {"messages": more}, headers=alice.headers)

    assert "look" in first.text
    assert models.received[0].body["tools"] == tools
    sent = models.received[1].body["messages"]
    assert sent[1:] == more[1:]
    assert sent[0]["content"].endswith(QUESTION) and MARK in sent[0]["content"]
    await alice.kept("The walrus sleeps.")
    assert len([m for m in await alice.memories() if m["prompt"] == QUESTION]) == 1


async def test_official_clients_read_tool_calls(alice, models):
    models.tool_calls = True

    whole = await alice.openai.chat.completions.create(model="walrus-1", messages=SAID)
    async with alice.anthropic.messages.stream(
        model="walrus-1", max_tokens=9, messages=SAID
    ) as stream:
        message = await stream.get_final_message()

    assert whole.choices[0].message.tool_calls[0].function.arguments == '{"at": "sea"}'
    assert message.content[0].input == {"at": "sea"}


async def test_pictures_pass_and_only_the_words_are_kept(alice, models):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [picture, {"type": "text", "text": "What walrus is this?"}]

    await alice.openai.chat.completions.create(
        model="walrus-1", messages=[{"role": "user", "content": content}]
    )

    assert models.received[0].body["messages"][0]["content"] == content
    assert [m["prompt"] for m in await alice.memories()] == ["What walrus is this?"]


@both
@streamed
async def test_a_providers_refusal_is_passed_on_as_it_is(alice, models, protocol, stream):
    body = b'{"type": "error", "error": {"type": "x", "message": "No such walrus.", "code": "no"}}'
    models.fail_next("status", status=404, body=body)

    with pytest.raises(ERRORS[protocol].NotFoundError, match="No such walrus"):
        await alice.ask(protocol, stream)

    assert [m["prompt"] for m in await alice.memories()] == [QUESTION]


@both
async def test_a_limit_of_the_provider_comes_with_its_retry_after(alice, models, protocol):
    body = b'{"error": {"type": "rate_limit_error", "message": "Slow down."}}'
    models.fail_next("status", status=429, headers={"retry-after": "17"}, body=body)

    with pytest.raises(ERRORS[protocol].RateLimitError, match="Slow down") as caught:
        await alice.ask(protocol, True)

    assert caught.value.response.headers["retry-after"] == "17"
    assert len(models.received) == 1


@both
@pytest.mark.parametrize("kind", ["status", "close"])
async def test_a_passing_fault_is_tried_again_until_the_first_byte(alice, models, protocol, kind):
    models.fail_next(kind, 2, status=503, body=b"<html>")

    assert await alice.ask(protocol, True) == "The walrus sleeps."

    assert len(models.received) == 3


@both
async def test_a_provider_that_is_down_is_told_in_its_own_shape(alice, models, protocol):
    models.fail_next("status", 3, status=500, body=b"<html>oops</html>")

    with pytest.raises(ERRORS[protocol].InternalServerError) as caught:
        await alice.ask(protocol, False)

    assert (caught.value.status_code, "PROVIDER_FAILED" in str(caught.value.body)) == (502, True)
    assert "oops" not in str(caught.value)
    assert [m["prompt"] for m in await alice.memories()] == [QUESTION]


@both
async def test_our_own_key_is_neither_told_nor_taken_for_the_callers(alice, models, protocol):
    wrong = f'{{"error": {{"message": "Incorrect API key: {OPENAI_KEY} {ANTHROPIC_KEY}"}}}}'
    for status in (401, 403):
        models.fail_next("status", status=status, body=wrong.encode())
        with pytest.raises(ERRORS[protocol].InternalServerError) as caught:
            await alice.ask(protocol, False)
        assert caught.value.status_code == 502
        assert "sk-" not in str(caught.value)
    models.fail_next("status", status=400, body=wrong.encode())
    with pytest.raises(ERRORS[protocol].BadRequestError) as caught:
        await alice.ask(protocol, False)
    assert (OPENAI_KEY if protocol == "openai" else ANTHROPIC_KEY) not in str(caught.value)


@both
async def test_a_slow_first_token_is_waited_for(alice, models, protocol):
    models.fail_next("slow", seconds=0.5)

    assert await alice.ask(protocol, True) == "The walrus sleeps."


@both
async def test_a_provider_that_hangs_is_given_up(alice, models, protocol):
    models.fail_next("hang")

    with pytest.raises(ERRORS[protocol].InternalServerError) as caught:
        await alice.ask(protocol, True)

    assert (caught.value.status_code, "PROVIDER_TOO_SLOW" in str(caught.value.body)) == (504, True)


@both
async def test_a_cut_stream_is_an_error_of_the_client_and_kept_as_partial(alice, models, protocol):
    after = 3 if protocol == "openai" else 5
    models.fail_next("cut", after=after)

    with pytest.raises(ERRORS[protocol].APIError, match="broke off"):
        await alice.ask(protocol, True)

    await alice.kept("The walrus ")
    assert (await alice.memories())[0]["status"] == "partial"


@both
async def test_a_stream_that_is_cut_within_an_event_breaks_off(alice, models, protocol):
    models.fail_next("cut in an event", after=3)

    # One SDK gives it a name of its own, the other lets it through as it is.
    with pytest.raises((ERRORS[protocol].APIConnectionError, httpx2.RemoteProtocolError)):
        await alice.ask(protocol, True)


@both
async def test_what_a_provider_garbles_is_passed_on_and_not_kept(alice, models, protocol):
    models.fail_next("malformed", after=5)
    body = {"model": "walrus-1", "messages": SAID, "stream": True, "max_tokens": 9}

    answer = await alice.http.post(PATHS[protocol], json=body, headers=alice.headers)

    assert answer.content == models.sent[0] and b"{not json" in answer.content

    async def is_partial():
        return (await alice.memories())[0]["status"] == "partial"

    await until(is_partial, 10)


@both
async def test_a_client_that_leaves_ends_the_call_and_keeps_what_came(alice, models, protocol):
    models.reply, models.pause = ["walrus "] * 500, 0.02
    body = {"model": "walrus-1", "messages": SAID, "stream": True, "max_tokens": 9}
    async with alice.http.stream(
        "POST", PATHS[protocol], json=body, headers=alice.headers
    ) as answer:
        async for _ in answer.aiter_bytes():
            if len(models.received) and answer.num_bytes_downloaded > 1_000:
                break

    await asyncio.wait_for(models.gone.acquire(), 5)

    async def is_partial():
        memory = (await alice.memories())[0]
        return memory["status"] == "partial" and memory["response"].startswith("walrus walrus")

    await until(is_partial, 10)


@both
@streamed
async def test_a_client_that_leaves_before_the_first_byte_ends_the_call(
    alice, models, protocol, stream
):
    models.fail_next("hang")
    body = {"model": "walrus-1", "messages": SAID, "stream": stream, "max_tokens": 9}
    with pytest.raises(httpx.ReadTimeout):
        await alice.http.post(PATHS[protocol], json=body, headers=alice.headers, timeout=0.6)

    await asyncio.wait_for(models.gone.acquire(), 5)

    async def is_kept():
        return [m["prompt"] for m in await alice.memories()] == [QUESTION]

    await until(is_kept, 10)


@both
async def test_an_own_key_goes_to_the_provider_and_nowhere_else(alice, models, served, protocol):
    own = {"X-Provider-Key": "sk-alices-very-own"}

    await alice.ask(protocol, False, extra_headers=own)
    wrong = b'{"error": {"type": "x", "message": "sk-alices-very-own is wrong"}}'
    models.fail_next("status", status=401, body=wrong)
    with pytest.raises(ERRORS[protocol].AuthenticationError) as caught:
        await alice.ask(protocol, False, extra_headers=own)

    assert "sk-alices-very-own" in str(models.received[0].headers)
    assert "sk-operator" not in str(models.received[0].headers)
    assert "sk-alices-very-own" not in str(caught.value)
    assert "sk-alices-very-own" not in served[0].output
    await alice.ask(protocol, False)
    assert "sk-alices-very-own" not in str(models.received[-1].headers)


async def test_keys_come_in_either_header_and_wrong_ones_are_told_in_shape(served, alice, models):
    url = served[0].url
    body = {"model": "walrus-1", "messages": SAID, "max_tokens": 9}
    for headers in ({"x-api-key": alice.key}, alice.headers):
        assert (
            await alice.http.post("/v1/messages", json=body, headers=headers)
        ).status_code == 200

    stranger = anthropic.AsyncAnthropic(base_url=url, api_key="ml_" + "x" * 43, max_retries=0)
    with pytest.raises(anthropic.AuthenticationError, match="UNAUTHORIZED"):
        await stranger.messages.create(**body)
    other = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="nonsense", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        await other.models.list()
    assert caught.value.code == "UNAUTHORIZED"
    await stranger.close()
    await other.close()


async def test_the_models_are_listed_for_either_client_and_cached(alice, models):
    listed = [model.id async for model in alice.openai.models.list()]
    others = [model.id async for model in alice.anthropic.models.list()]
    asked = len(models.received)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        await alice.openai.models.list()
        took.append(time.perf_counter() - start)

    assert listed == others == [model["id"] for model in MODELS]
    assert len(models.received) == asked <= 2
    print(f"a warm list of models in {min(took) * 1000:.1f} ms")


async def test_nothing_of_another_persons_is_shown_to_a_model_or_a_client(alice, bob, models):
    await alice.remember(FACT, conversation_title="Secret of alice")

    for protocol in ("openai", "anthropic"):
        for stream in (False, True):
            await bob.ask(protocol, stream)
            await alice.ask(protocol, stream)

    for number, request in enumerate(models.received):
        assert ("Secret of alice" in models.prompt(number)) == bool(number % 2), request.path
    assert {m["prompt"] for m in await bob.memories()} == {QUESTION}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"messages": 1}',
        b'{"model": 1}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b"\xff",
    ],
)
@both
async def test_a_body_that_is_none_is_refused_in_shape(alice, models, protocol, raw):
    answer = await alice.http.post(PATHS[protocol], content=raw, headers=alice.headers)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert not models.received


@pytest.mark.parametrize(
    ("more", "size", "status"),
    [
        ({}, 5_000_000, 413),
        ({"Content-Encoding": "gzip"}, 10, 415),
        ({"Host": "evil.example"}, 10, 421),
    ],
)
@both
async def test_what_comes_no_further_than_the_door_is_refused_in_shape(
    alice, models, protocol, more, size, status
):
    body, headers = b" " * size, alice.headers | more
    answer = await alice.http.post(PATHS[protocol], content=body, headers=headers)

    assert answer.status_code == status
    kind = answer.json()["error"]["type"]
    assert kind in ("invalid_request_error", "request_too_large")
    assert answer.json().get("type") == ("error" if protocol == "anthropic" else None)
    assert not models.received


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [None, 7, "x", []],
        [{"role": "user"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": [None, {"type": "text"}, {"type": "text", "text": 7}]}],
        [{"role": "user", "content": "nul \0 byte"}],
        [{"role": "user", "content": "é" * 700_000}],
    ],
)
@both
async def test_strange_messages_are_the_providers_to_refuse(alice, models, protocol, messages):
    body = {"model": "walrus-1", "messages": messages}

    answer = await alice.http.post(PATHS[protocol], json=body, headers=alice.headers)

    assert answer.status_code == 200
    assert models.received[0].body["messages"] == messages
    assert len(await alice.memories()) == (1 if "nul" in str(messages) else 0)


async def test_the_log_holds_no_word_of_a_chat(served, alice, models):
    models.fail_next("cut in an event", after=4)
    models.faults.append(Fault("status", 500, body=b'{"error": {"message": "walrus"}}'))
    for stream in (True, False):
        body = {"model": "walrus-1", "messages": SAID, "stream": stream}
        with contextlib.suppress(httpx.HTTPError):
            await alice.http.post(PATHS["openai"], json=body, headers=alice.headers)

    for word in ("walrus", "sk-operator", alice.key):
        assert word not in served[0].output


@contextlib.asynccontextmanager
async def assistant(person, url):
    async with httpx2.AsyncClient(headers=person.headers) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with McpClient(transport) as client:
            yield client


async def test_an_assistant_asks_ones_own_memories_alone(served, alice, bob, models):
    url = served[0].url
    known = await alice.remember(FACT, conversation_title="Secret of alice")
    models.reply = ["On ice [1]."]

    async with assistant(alice, url) as client, assistant(bob, url) as other:
        assert "ask_memory" in [tool.name for tool in (await client.list_tools()).tools]
        mine = (await client.call_tool("ask_memory", {"question": QUESTION})).structured_content
        others = (await other.call_tool("ask_memory", {"question": QUESTION})).structured_content

    assert (mine["answer"], mine["cited"]) == ("On ice [1].", [1])
    assert [source["memory_id"] for source in mine["sources"]] == [known]
    assert others["sources"] == [] and "Secret" not in str(others)
    assert len(models.received) == 1


async def test_a_token_that_may_not_read_asks_nothing(served, alice, models):
    token = await issue_token(alice.http, {"Authorization": f"Bearer {mint(served[2])}"}, "chat")
    async with httpx2.AsyncClient(headers=token) as http:
        transport = streamable_http_client(f"{served[0].url}/mcp", http_client=http)
        async with McpClient(transport) as client:
            refused = await client.call_tool("ask_memory", {"question": QUESTION})

    assert refused.is_error and refused.meta["error_code"] == "MISSING_SCOPE"
