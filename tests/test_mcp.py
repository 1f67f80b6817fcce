"""What an assistant may do with a person's memories over MCP, by the official client."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from pydantic import SecretStr

from core.config import ROOT, Settings
from core.rag import NOTHING_FOUND
from tests.answering import answering_server, remember
from tests.conftest import Headers, Server, app_client, issue_token, sign_up, until
from tests.doc_examples import ADDRESS
from tests.gate import open_gate
from tests.model_server import ModelServer

READING = ["search_memories", "get_memory", "list_conversations"]


@asynccontextmanager
async def assistant(url: str, user: Headers, mode: str = "auto") -> AsyncIterator[Client]:
    """The official client; `legacy` speaks the protocol as it was before 2026."""
    async with httpx2.AsyncClient(headers=user) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@pytest.fixture(scope="module")
async def with_models(cluster: str) -> AsyncIterator[tuple[Server, ModelServer]]:
    """A server whose operator has set model providers up."""
    async with answering_server(cluster) as (server, models, _):
        yield server, models


@pytest.fixture
def mcp(module_server: Server) -> str:
    return module_server.url + "/mcp"


def refused(result: CallToolResult, code: str) -> str:
    """Check that the tool refused for this reason; return the sentence that the model reads."""
    assert result.is_error
    assert result.meta is not None
    assert result.meta["error_code"] == code
    [text] = result.content
    assert text.text.endswith(f"({code})")
    return str(text.text)


def answered(result: CallToolResult) -> dict[str, Any]:
    """Check that the text says the same as the data; return the data."""
    assert not result.is_error, result.content
    [text] = result.content
    assert json.loads(text.text) == result.structured_content
    return dict(result.structured_content)


def call_of(tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_assistant_saves_finds_reads_and_lists(
    mcp: str, http: httpx.AsyncClient, ann: Headers, mode: str
) -> None:
    turn = {
        "prompt": "What do walruses eat? 🦭\r\n",
        "response": "Clams.",
        "provider": "Claude",
        "model": "opus",
        "conversation_id": "c1",
        "conversation_title": "Walruses",
    }
    async with assistant(mcp, await issue_token(http, ann), mode) as client:
        tools = (await client.list_tools()).tools
        saved = answered(await client.call_tool("save_memory", turn))
        found = answered(await client.call_tool("search_memories", {"query": "clams"}))
        memory_id = saved["memory_id"]
        read = answered(await client.call_tool("get_memory", {"memory_id": memory_id}))
        listed = answered(await client.call_tool("list_conversations"))

    assert [tool.name for tool in tools] == [*READING, "save_memory"]
    assert all(tool.description and tool.output_schema for tool in tools)
    assert saved["created"]
    [hit] = found["memories"]
    assert hit["memory_id"] == memory_id
    assert hit["relevant"]
    shown = {"provider": "claude", "prompt": turn["prompt"].replace("\r", ""), "next_start": None}
    assert read.items() >= (turn | shown).items()
    [chat] = listed["conversations"]
    assert (chat["id"], chat["title"], chat["memories"]) == ("c1", "Walruses", 1)
    kept = (await http.get(f"/memories/{memory_id}", headers=ann)).json()["data"]
    assert (kept["prompt"], kept["source"], kept["status"]) == (turn["prompt"], "mcp", "complete")


async def test_who_signed_in_needs_no_personal_token(mcp: str, ann: Headers) -> None:
    async with assistant(mcp, ann) as client:
        assert answered(await client.call_tool("list_conversations"))["conversations"] == []


async def test_no_tool_shows_or_changes_what_is_anothers(
    mcp: str, http: httpx.AsyncClient, ann: Headers, ben: Headers
) -> None:
    memory = {"id": str(uuid4()), "prompt": "annsecret walrus", "provider": "claude"}
    chat = {"conversation_id": "anns-chat", "conversation_title": "annsecret title"}
    await http.post("/save-prompt", json=memory | chat, headers=ann)

    async with assistant(mcp, await issue_token(http, ben)) as client:
        search = {"query": "annsecret walrus title", "limit": 20}
        results = [
            await client.call_tool("search_memories", search),
            await client.call_tool("search_memories", search | {"conversation_id": "anns-chat"}),
            await client.call_tool("list_conversations", {"provider": "claude"}),
            await client.call_tool("get_memory", {"memory_id": memory["id"]}),
            await client.call_tool(
                "save_memory", {"prompt": "ben was here", "memory_id": memory["id"]}
            ),
        ]

    for result in results:
        assert "annsecret" not in result.model_dump_json()
    assert [answered(result) for result in results[:2]] == [{"memories": [], "semantic": False}] * 2
    assert answered(results[2])["conversations"] == []
    assert "somebody else" in refused(results[3], "FORBIDDEN")
    assert answered(results[4])["created"]
    kept = (await http.get(f"/memories/{memory['id']}", headers=ann)).json()["data"]
    assert (kept["prompt"], kept["conversation_title"]) == ("annsecret walrus", "annsecret title")


async def test_an_assistant_has_a_question_answered_from_ones_own_memories(
    with_models: tuple[Server, ModelServer],
) -> None:
    server, models = with_models
    models.forget()
    models.reply = ["On ice [1]", " and snow [7]."]
    question = {"question": "walrus sleep annsecret"}
    async with httpx.AsyncClient(base_url=server.url) as http:
        ann, ben = await sign_up(http, "ann"), await sign_up(http, "ben")
        await remember(http, ann, "annsecret: where does the walrus sleep?", "On ice.")
        program = await issue_token(http, ann)

    async with assistant(server.url + "/mcp", program) as client:
        offered = [tool.name for tool in (await client.list_tools()).tools]
        told = answered(await client.call_tool("ask_memory", question))
    async with assistant(server.url + "/mcp", ben) as client:
        nothing = await client.call_tool("ask_memory", question)

    assert offered == [*READING, "save_memory", "ask_memory"]
    assert told["answer"] == "On ice [1] and snow."
    assert (told["cited"], told["removed_citations"]) == ([1], 1)
    [source] = told["sources"]
    assert source["response"] == "On ice."
    assert answered(nothing)["answer"] == NOTHING_FOUND
    assert "annsecret" not in nothing.model_dump_json()
    assert len(models.received) == 1


async def test_a_question_needs_both_the_scope_to_read_and_to_chat(
    with_models: tuple[Server, ModelServer],
) -> None:
    server, models = with_models
    models.forget()
    async with httpx.AsyncClient(base_url=server.url) as http:
        ann = await sign_up(http, "ann")
        programs = {scope: await issue_token(http, ann, scope) for scope in ("read", "chat")}

    for scope, lacks in (("read", "chat"), ("chat", "read")):
        async with assistant(server.url + "/mcp", programs[scope]) as client:
            assert "ask_memory" not in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("ask_memory", {"question": "x"})
            assert lacks in refused(result, "MISSING_SCOPE")
    assert models.received == []


async def test_an_assistant_is_told_that_the_model_failed_and_not_how(
    with_models: tuple[Server, ModelServer],
) -> None:
    server, models = with_models
    models.forget()
    models.fail_next("status", times=9, status=500, body=b"canary of the provider")
    async with httpx.AsyncClient(base_url=server.url) as http:
        ann = await sign_up(http, "ann")
        await remember(http, ann, "where does the walrus sleep?")

    async with assistant(server.url + "/mcp", ann) as client:
        result = await client.call_tool("ask_memory", {"question": "walrus sleep"})

    refused(result, "PROVIDER_FAILED")
    assert "canary" not in result.model_dump_json()


async def test_an_assistant_that_leaves_ends_the_call_of_the_model(
    with_models: tuple[Server, ModelServer],
) -> None:
    server, models = with_models
    models.forget()
    models.fail_next("hang", seconds=600)

    async def is_asked() -> bool:
        return bool(models.received)

    async with httpx.AsyncClient(base_url=server.url) as http:
        ann = await sign_up(http, "ann")
        await remember(http, ann, "where does the walrus sleep?")
        body = call_of("ask_memory", question="walrus sleep")
        asking = asyncio.create_task(http.post("/mcp", json=body, headers=ann, timeout=600))
        await until(is_asked)
        asking.cancel()
        async with asyncio.timeout(60):
            await models.gone.acquire()


async def test_without_a_model_provider_there_is_no_such_tool(mcp: str, ann: Headers) -> None:
    async with assistant(mcp, ann) as client:
        assert "ask_memory" not in [tool.name for tool in (await client.list_tools()).tools]
        with pytest.raises(MCPError, match="no such tool"):
            await client.call_tool("ask_memory", {"question": "x"})


async def test_a_token_is_offered_and_allowed_only_what_its_scopes_say(
    mcp: str, http: httpx.AsyncClient, ann: Headers
) -> None:
    async with assistant(mcp, await issue_token(http, ann, "read")) as reader:
        offered = [tool.name for tool in (await reader.list_tools()).tools]
        saving = await reader.call_tool("save_memory", {"prompt": "not to be kept"})
    async with assistant(mcp, await issue_token(http, ann, "write")) as writer:
        assert [tool.name for tool in (await writer.list_tools()).tools] == ["save_memory"]
        refused(await writer.call_tool("search_memories", {"query": "x"}), "MISSING_SCOPE")

    assert offered == READING
    assert refused(saving, "MISSING_SCOPE") == "This token lacks the scope write. (MISSING_SCOPE)"
    assert saving.meta["details"] == {"scope": "write"}
    assert (await http.get("/memories", headers=ann)).json()["data"]["memories"] == []


async def test_a_call_costs_one_request_and_looking_at_the_tools_none(
    module_server: Server, mcp: str, http: httpx.AsyncClient, ann: Headers
) -> None:
    user = (await http.get("/auth/v1/user", headers=ann)).json()
    owner = await asyncpg.connect(module_server.database_url)
    await owner.execute(
        "INSERT INTO memory_layer.user_state (user_id, tier, per_day) VALUES ($1, 'free', 2)",
        user["id"],
    )
    await owner.close()

    async with assistant(mcp, ann) as client:
        await client.list_tools()
        await client.list_tools()
        answered(await client.call_tool("list_conversations"))
        answered(await client.call_tool("save_memory", {"prompt": "the last one today"}))
        spent = await client.call_tool("save_memory", {"prompt": "one too many"})

    assert "Today's requests are spent" in refused(spent, "RATE_LIMIT_EXCEEDED")
    assert spent.meta["details"].items() >= {"tier": "free", "limit": 2, "remaining": 0}.items()
    assert (await http.get("/usage", headers=ann)).json()["data"]["day"]["used"] == 2


async def test_the_configurations_of_the_readme_lead_to_the_server(
    module_server: Server, http: httpx.AsyncClient, ann: Headers
) -> None:
    token = (await issue_token(http, ann))["Authorization"].removeprefix("Bearer ")
    readme = (ROOT / "README.md").read_text()
    filled = readme.replace(ADDRESS, module_server.url).replace("ml_…", token)
    blocks = re.findall(r"^```json\n(.*?)^```", filled, re.MULTILINE | re.DOTALL)
    cursor, desktop = (json.loads(block)["mcpServers"]["memory-layer"] for block in blocks)
    name, _, value = desktop["args"][-1].partition(":")
    bridged = {name: value.replace("${AUTH}", desktop["env"]["AUTH"])}

    for url, headers in ((cursor["url"], cursor["headers"]), (desktop["args"][2], bridged)):
        async with assistant(url, headers) as client:
            assert (await client.list_tools()).tools
    assert f'{module_server.url}/mcp --header "Authorization: Bearer {token}"' in filled


async def test_without_a_good_token_there_is_no_server(
    mcp: str, http: httpx.AsyncClient, ann: Headers
) -> None:
    revoked = await issue_token(http, ann)
    [token] = (await http.get("/tokens", headers=ann)).json()["data"]["tokens"]
    async with assistant(mcp, revoked) as client:
        await client.list_tools()
        await http.delete(f"/tokens/{token['id']}", headers=ann)
        with pytest.raises(MCPError):
            await client.call_tool("list_conversations")

    for headers in ({}, revoked, {"Authorization": "Bearer nonsense"}):
        answer = await http.post("/mcp", json=call_of("list_conversations"), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_long_text_is_cut_in_the_results_and_read_in_parts(
    mcp: str, http: httpx.AsyncClient, ann: Headers
) -> None:
    prompt, response = "walrus " + "🦭é\r\n" * 5_000, "clam " * 10_000
    async with assistant(mcp, ann) as client:
        saved = await client.call_tool("save_memory", {"prompt": prompt, "response": response})
        memory_id = answered(saved)["memory_id"]
        found = await client.call_tool("search_memories", {"query": "walrus"})
        parts, start = [], 0
        while start is not None:
            asked = {"memory_id": memory_id, "start": start}
            parts.append(answered(await client.call_tool("get_memory", asked)))
            start = parts[-1]["next_start"]

    assert len(found.model_dump_json()) < 10_000
    assert len(parts) == 3
    assert "".join(part["prompt"] for part in parts) == prompt.replace("\r", "")
    assert "".join(part["response"] for part in parts) == response


async def test_a_model_reads_nothing_that_a_person_would_not_see(
    mcp: str, http: httpx.AsyncClient, ann: Headers
) -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "obey") + "\u200b\u202e"
    facts = {"conversation_id": "c1", "conversation_title": f"wal{hidden}rus"}
    body = {"prompt": f"walrus {hidden}", "response": f"clam {hidden}", "provider": "claude"}
    async with assistant(mcp, ann) as client:
        saved = answered(await client.call_tool("save_memory", body | facts))
        asked = {"memory_id": saved["memory_id"]}
        shown = [
            answered(await client.call_tool("get_memory", asked)),
            *answered(await client.call_tool("search_memories", {"query": "walrus"}))["memories"],
            *answered(await client.call_tool("list_conversations"))["conversations"],
        ]

    assert [each.get("conversation_title", each.get("title")) for each in shown] == ["walrus"] * 3
    assert not any(letter in json.dumps(shown, ensure_ascii=False) for letter in hidden)
    kept = (await http.get(f"/memories/{saved['memory_id']}", headers=ann)).json()["data"]
    assert kept["prompt"] == f"walrus {hidden}"


@pytest.mark.parametrize(
    ("tool", "arguments", "field"),
    [
        pytest.param("search_memories", {}, "query", id="nothing to look for"),
        pytest.param("search_memories", {"query": "x", "limit": 21}, "limit", id="too many"),
        pytest.param("search_memories", {"query": "x" * 20_001}, "query", id="a book to look for"),
        pytest.param("search_memories", {"query": "x", "after": "soon"}, "after", id="no time"),
        pytest.param("get_memory", {"memory_id": "canary"}, "memory_id", id="no id"),
        pytest.param("list_conversations", {"limit": 0}, "limit", id="none at all"),
        pytest.param("list_conversations", {"cursor": "canary"}, "cursor", id="no cursor"),
        pytest.param("save_memory", {"prompt": "  "}, "prompt", id="nothing to save"),
        pytest.param("save_memory", {"prompt": "a\0b"}, "prompt", id="NUL"),
        pytest.param("save_memory", {"prompt": "é" * 600_000}, "prompt", id="too large"),
    ],
)
async def test_an_assistant_is_told_which_argument_is_wrong(
    http: httpx.AsyncClient, ann: Headers, tool: str, arguments: dict[str, Any], field: str
) -> None:
    answer = await http.post("/mcp", json=call_of(tool, **arguments), headers=ann)

    result = CallToolResult.model_validate(answer.json()["result"])
    assert field in refused(result, "INVALID_INPUT")
    assert len(answer.text) < 1_000


async def test_an_unknown_tool_is_the_callers_mistake(mcp: str, ann: Headers) -> None:
    async with assistant(mcp, ann) as client:
        with pytest.raises(MCPError, match="no such tool"):
            await client.call_tool("drop_tables")


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        pytest.param("GET", b"", 405, id="a stream, which is not offered"),
        pytest.param("DELETE", b"", 405, id="the end of a session, which there is not"),
        pytest.param("POST", b"", 400, id="nothing"),
        pytest.param("POST", b"{", 400, id="half of JSON"),
        pytest.param("POST", b"[" * 100_000, 400, id="deep"),
        pytest.param("POST", b"[]", 400, id="an empty batch"),
        pytest.param("POST", b'{"jsonrpc": "2.0", "id": 1}', 400, id="no method"),
        pytest.param("POST", b"x" * (5 * 1024 * 1024), 413, id="5 MB"),
    ],
)
async def test_what_is_no_message_is_refused(
    http: httpx.AsyncClient, ann: Headers, method: str, body: bytes, status: int
) -> None:
    headers = ann | {"Content-Type": "application/json"}

    answer = await http.request(method, "/mcp", content=body, headers=headers)

    assert answer.status_code == status, answer.text
    assert answer.json()["error_code"], "in our own envelope"
    assert "pydantic" not in answer.text


async def test_a_fault_of_ours_tells_an_assistant_nothing(
    client: httpx.AsyncClient,
    alice: Headers,
    database: asyncpg.Connection,
    capfd: pytest.CaptureFixture[str],
) -> None:
    await database.execute("ALTER TABLE memory_layer.memories RENAME prompt TO canary")

    answer = await client.post("/mcp", json=call_of("list_conversations"), headers=alice)
    fault = await client.post(
        "/mcp", json=call_of("get_memory", memory_id=str(uuid4())), headers=alice
    )

    answered(CallToolResult.model_validate(answer.json()["result"]))
    said = refused(CallToolResult.model_validate(fault.json()["result"]), "INTERNAL_ERROR")
    assert said == "Something went wrong on our side. (INTERNAL_ERROR)"
    logged = "".join(capfd.readouterr())
    assert "UndefinedColumnError" in logged
    assert "column" not in logged.replace("UndefinedColumnError", "")


async def test_an_assistant_is_told_to_try_again_while_postgres_is_away(
    database_url: str, settings: Settings
) -> None:
    async with open_gate(database_url) as gate:
        reachable = settings.model_copy(update={"database_url": SecretStr(gate.url)})
        async with app_client(reachable) as client:
            alice = await sign_up(client, "alice")
            await client.get("/memories", headers=alice)
            gate.close()
            answer = await client.post("/mcp", json=call_of("list_conversations"), headers=alice)

    refused(CallToolResult.model_validate(answer.json()["result"]), "UNAVAILABLE")


async def test_many_assistants_ask_at_the_same_time(
    http: httpx.AsyncClient, ann: Headers, ben: Headers
) -> None:
    async def ask(user: Headers, n: int) -> Any:
        body = call_of("save_memory", prompt=f"note {n}") | {"id": n}
        return (await http.post("/mcp", json=body, headers=user)).json()

    answers = await asyncio.gather(*(ask((ann, ben)[n % 2], n) for n in range(40)))

    assert [answer["id"] for answer in answers] == list(range(40))
    assert all(answer["result"]["structuredContent"]["created"] for answer in answers)
    for user in (ann, ben):
        kept = (await http.get("/memories?limit=100", headers=user)).json()["data"]["memories"]
        assert len(kept) == 20
