"""Whatever is wrong with a request, its sender learns it, and nothing else is hurt."""

import asyncio
import json
from uuid import uuid4

import pytest

JSON = {"Content-Type": "application/json"}
GOOD = {"prompt": "fine", "provider": "claude"}
MIB = 1024 * 1024


def failure(answer, status, code):
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert set(body) == {"success", "data", "error", "error_code", "details"}
    assert (body["success"], body["data"], body["error_code"]) == (False, None, code)
    assert body["error"]
    return body


INVALID_BODIES = {
    "no body": b"",
    "not JSON": b"{'prompt': 1}",
    "cut off": b'{"prompt": "a',
    "a list": b"[]",
    "a string": b'"prompt"',
    "null": b"null",
    "not UTF-8": b'{"prompt": "\xff", "provider": "claude"}',
    "nested without end": b"[" * 200_000,
    "a number of 5,000 digits": b'{"prompt": "a", "provider": "b", "metadata": {"n": %s}}'
    % (b"9" * 5_000),
    "missing prompt": b'{"provider": "claude"}',
    "missing provider": b'{"prompt": "a"}',
    "prompt of spaces": json.dumps(GOOD | {"prompt": " \n\t\u3000"}).encode(),
    "prompt is a number": json.dumps(GOOD | {"prompt": 1}).encode(),
    "prompt is null": json.dumps(GOOD | {"prompt": None}).encode(),
    "NUL in the prompt": json.dumps(GOOD | {"prompt": "a\0b"}).encode(),
    "lone surrogate in the prompt": json.dumps(GOOD | {"prompt": "a\ud800"}).encode(),
    "lone surrogate in the title": json.dumps(GOOD | {"conversation_title": "\udfff"}).encode(),
    "lone surrogate in metadata": json.dumps(GOOD | {"metadata": {"a": ["\ud800"]}}).encode(),
    "lone surrogate as a key": json.dumps(GOOD | {"metadata": {"\ud800": 1}}).encode(),
    "NUL in metadata": json.dumps(GOOD | {"metadata": {"a": {"b": "\0"}}}).encode(),
    "NaN in metadata": b'{"prompt": "a", "provider": "b", "metadata": {"n": NaN}}',
    "metadata of 300 levels": b'{"prompt": "a", "provider": "b", "metadata": {"a": %s1%s}}'
    % (b"[" * 300, b"]" * 300),
    "metadata is a list": json.dumps(GOOD | {"metadata": []}).encode(),
    "id is not a UUID": json.dumps(GOOD | {"id": "42"}).encode(),
    "provider with line break": json.dumps(GOOD | {"provider": "a\nb"}).encode(),
    "provider too long": json.dumps(GOOD | {"provider": "a" * 51}).encode(),
    "title too long": json.dumps(GOOD | {"conversation_title": "a" * 501}).encode(),
    "time is no time": json.dumps(GOOD | {"occurred_at": "yesterday"}).encode(),
    "time before computers": json.dumps(GOOD | {"occurred_at": "0001-01-01T00:00:00Z"}).encode(),
}


@pytest.mark.parametrize("body", [pytest.param(b, id=name) for name, b in INVALID_BODIES.items()])
async def test_an_invalid_prompt_is_400(client, alice, body):
    answer = await client.post("/save-prompt", content=body, headers=alice | JSON)

    failure(answer, 400, "INVALID_INPUT")
    assert (await client.get("/memories", headers=alice)).json()["data"]["memories"] == []


async def test_the_error_names_the_field_and_repeats_nothing(client, alice):
    body = GOOD | {"prompt": "canary \0", "id": "canary"}

    answer = await client.post("/save-prompt", json=body, headers=alice)

    details = failure(answer, 400, "INVALID_INPUT")["details"]
    assert {field["path"] for field in details["fields"]} == {"body.prompt", "body.id"}
    assert "canary" not in answer.text


INVALID_RESPONSES = {
    "missing id": {"response": "a"},
    "id is not a UUID": {"response": "a", "memory_id": "x"},
    "missing response": {"memory_id": str(uuid4())},
    "unknown status": {"memory_id": str(uuid4()), "response": "a", "status": "done"},
    "lone surrogate": {"memory_id": str(uuid4()), "response": "\udc00"},
}


@pytest.mark.parametrize(
    "body", [pytest.param(b, id=name) for name, b in INVALID_RESPONSES.items()]
)
async def test_an_invalid_response_is_400(client, alice, body):
    content = json.dumps(body).encode()
    answer = await client.post("/save-response", content=content, headers=alice | JSON)

    failure(answer, 400, "INVALID_INPUT")


async def test_unknown_fields_are_ignored(client, alice):
    answer = await client.post("/save-prompt", json=GOOD | {"new_field": 1}, headers=alice)

    assert answer.status_code == 201


async def test_a_body_that_is_not_declared_as_json_says_so(client, alice):
    answer = await client.post("/save-prompt", content=json.dumps(GOOD), headers=alice)

    assert "application/json" in failure(answer, 400, "INVALID_INPUT")["error"]


async def test_a_compressed_body_is_refused(client, alice):
    headers = alice | JSON | {"Content-Encoding": "gzip"}
    answer = await client.post("/save-prompt", content=b"\x1f\x8b", headers=headers)

    failure(answer, 415, "UNSUPPORTED_ENCODING")


@pytest.mark.parametrize(
    "text",
    [pytest.param("x" * (MIB + 1), id="ascii"), pytest.param("é" * (MIB // 2) + "x", id="accents")],
)
async def test_a_mebibyte_and_one_byte_is_too_large(client, alice, text):
    answer = await client.post("/save-prompt", json=GOOD | {"prompt": text}, headers=alice)

    failure(answer, 413, "TOO_LARGE")


@pytest.mark.parametrize("declared", [True, False], ids=["with length", "in chunks"])
async def test_a_huge_body_is_refused_before_it_is_read(client, alice, declared):
    async def chunks():
        for _ in range(100):
            yield b"x" * MIB

    content = b"x" * (5 * MIB) if declared else chunks()
    answer = await client.post("/save-prompt", content=content, headers=alice | JSON)

    failure(answer, 413, "TOO_LARGE")


async def test_a_body_that_never_ends_is_given_up(client, alice, monkeypatch):
    monkeypatch.setattr("routers.edge.BODY_SECONDS", 0.2)

    async def endless():
        yield b'{"prompt": "'
        await asyncio.sleep(30)
        yield b"x"

    answer = await client.post("/save-prompt", content=endless(), headers=alice | JSON)

    failure(answer, 408, "TOO_SLOW")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=10000",
        "limit=x",
        "cursor=garbage",
        "cursor=%00",
        "cursor=WyJhIiwiYiJd",
        "after=2025-02-01T00:00:00Z&before=2025-01-01T00:00:00Z",
        "after=tomorrow",
        "provider=%ed%a0%80",
        "conversation_id=%00",
    ],
)
async def test_an_impossible_list_is_400(client, alice, query):
    failure(await client.get(f"/memories?{query}", headers=alice), 400, "INVALID_INPUT")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="no query"),
        pytest.param({"query": 1}, id="query is a number"),
        pytest.param({"query": "a", "limit": 0}, id="limit 0"),
        pytest.param({"query": "a", "limit": 10_000}, id="limit 10,000"),
        pytest.param({"query": "a\0"}, id="NUL"),
        pytest.param({"query": "\ud800"}, id="lone surrogate"),
        pytest.param({"query": "a" * 20_001}, id="20,001 characters"),
        pytest.param(
            {"query": "a", "after": "2025-02-01T00:00:00Z", "before": "2025-01-01T00:00:00Z"},
            id="after later than before",
        ),
    ],
)
async def test_an_impossible_search_is_400(client, alice, body):
    content = json.dumps(body).encode()
    failure(
        await client.post("/search", content=content, headers=alice | JSON), 400, "INVALID_INPUT"
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search", {"query": "walrus", "limit": "8"}),
        ("/search", {"query": "walrus", "limit": True}),
        ("/rag/query", {"question": "walrus", "limit": "8"}),
        ("/rag/query", {"question": "walrus", "stream": 0}),
        ("/chat", {"messages": [{"role": "user", "content": "walrus"}], "save": "no"}),
        ("/chat", {"messages": [{"role": "user", "content": "walrus"}], "max_tokens": "9"}),
    ],
)
async def test_a_text_is_no_number_and_a_number_no_truth(client, alice, path, body):
    answer = await client.post(path, json=body, headers=alice)

    [field] = failure(answer, 400, "INVALID_INPUT")["details"]["fields"]
    assert field["path"] == f"body.{list(body)[-1]}"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_id_that_nobody_has_is_404(client, alice, method):
    answer = await client.request(
        method, f"/memories/{uuid4()}", json={"prompt": "x"}, headers=alice
    )

    failure(answer, 404, "NOT_FOUND")


async def test_an_id_that_is_no_uuid_is_400(client, alice):
    failure(await client.get("/memories/42", headers=alice), 400, "INVALID_INPUT")


async def test_an_empty_edit_is_400(client, alice):
    saved = (await client.post("/save-prompt", json=GOOD, headers=alice)).json()["data"]
    answer = await client.patch(f"/memories/{saved['memory_id']}", json={}, headers=alice)

    failure(answer, 400, "INVALID_INPUT")


async def test_addresses_and_methods_that_are_not_there(client, alice):
    failure(await client.get("/nothing-here", headers=alice), 404, "NOT_FOUND")
    failure(await client.delete("/save-prompt", headers=alice), 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"Authorization": "Bearer"}, id="empty token"),
        pytest.param({"Authorization": "Basic YTpi"}, id="another scheme"),
        pytest.param({"Authorization": "Bearer a.b.c"}, id="forged token"),
    ],
)
async def test_without_a_good_token_every_door_is_401(client, headers):
    for method, path in (
        ("POST", "/save-prompt"),
        ("POST", "/save-response"),
        ("POST", "/search"),
        ("GET", "/memories"),
        ("GET", f"/memories/{uuid4()}"),
        ("PATCH", f"/memories/{uuid4()}"),
        ("DELETE", f"/memories/{uuid4()}"),
        ("GET", "/conversations"),
        ("GET", "/conversations/c"),
    ):
        answer = await client.request(method, path, json=GOOD, headers=headers)
        failure(answer, 401, "UNAUTHORIZED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_name_that_is_not_ours_is_refused(client, alice):
    answer = await client.get("/memories", headers=alice | {"Host": "evil.example:8000"})

    failure(answer, 421, "WRONG_HOST")
