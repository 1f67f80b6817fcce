"""What leaves the process about a request: enough to operate it, nothing of what people wrote."""

import asyncio
import json
import logging
from contextlib import suppress
from uuid import uuid4

import httpx
import pytest
import structlog
from pydantic import SecretStr

from core.logs import FIELDS, LibraryHandler, Pseudonyms, keep_known_fields
from main import create_app
from tests.conftest import app_client, sign_up, until
from tests.wire_server import wire_server

CANARY = "canary5tweets"
TOKEN = "a token of the operator's own"

# From here on every error of the database quotes a memory.
COMPLAINTS = """
    CREATE FUNCTION memory_layer.complain(text) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'there is %', $1; END $$;
    CREATE POLICY complain ON memory_layer.memories AS RESTRICTIVE
        USING (memory_layer.complain(prompt));
"""


def example(schema, document):
    """A value that the schema allows, with the canary wherever a text may stand."""
    if "$ref" in schema:
        return example(document["components"]["schemas"][schema["$ref"].split("/")[-1]], document)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return example(schema[several][0], document)
    for given in ("const", "default", "enum"):
        if schema.get(given) is not None:
            return schema[given][0] if given == "enum" else schema[given]
    match schema.get("type"):
        case "object":
            named = schema.get("properties", {})
            return {name: example(of, document) for name, of in named.items()} or {CANARY: CANARY}
        case "array":
            return [example(schema.get("items", {}), document)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    of_format = {
        "uuid": str(uuid4()),
        "date-time": "2026-01-01T00:00:00Z",
        "email": f"{CANARY}@example.com",
    }
    return of_format.get(schema.get("format"), CANARY)


def bodies(operation, document):
    """Good, wrong in its types, and no JSON at all."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = next((kind["schema"] for kind in content.values() if "schema" in kind), {})
    good = example(schema | {"type": schema.get("type", "object")}, document)
    good |= {"email": f"{CANARY}@example.com", "password": CANARY}
    wrong = {name: {CANARY: [CANARY]} for name in good}
    return json.dumps(good), json.dumps(wrong), '{"prompt": "' + CANARY


async def send_everywhere(client, user):
    """Each operation with each body, as a user and as somebody with a wrong token."""
    document = create_app().openapi()
    operations = [
        (method, path, operation)
        for path, of_path in document["paths"].items()
        for method, operation in of_path.items()
    ]
    stranger = {"Authorization": f"Bearer {CANARY}.{CANARY}.{CANARY}"}
    for method, path, operation in sorted(operations, key=lambda found: found[0] == "delete"):
        url = "/".join(CANARY if part.startswith("{") else part for part in path.split("/"))
        for body in bodies(operation, document):
            for headers in (user, stranger):
                sent = headers | {
                    "Content-Type": "application/json",
                    "Cookie": f"session={CANARY}",
                    "X-Admin-Key": CANARY,
                    "X-Request-ID": f"{CANARY} {CANARY}",
                    "User-Agent": CANARY,
                }
                # A download that breaks off is an end like another.
                with suppress(httpx.RemoteProtocolError):
                    await client.request(
                        method, url, content=body, headers=sent, params={"q": CANARY}
                    )
    await client.post(f"/{CANARY}?{CANARY}", headers={"Content-Encoding": CANARY})
    await client.request("LOCK", f"/{CANARY}", headers={"Host": f"{CANARY}.example"})


async def save(client, user, text):
    body = {"id": str(uuid4()), "prompt": text, "provider": "claude"}
    return await client.post("/save-prompt", json=body, headers=user)


async def test_nothing_that_people_send_is_in_logs_metrics_or_sentry(make_server, database):
    async with wire_server(lambda _: (200, "application/json", b"{}")) as sentry:
        server = make_server(
            LOG_LEVEL="debug",
            SENTRY_DSN=f"http://key@{sentry.address}/1",
            METRICS_TOKEN=TOKEN,
            FREE_PER_MINUTE="100000",
        )
        await asyncio.to_thread(server.wait_until_ready)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            user = await sign_up(client, CANARY)
            who = (await client.get("/auth/v1/user", headers=user)).json()["id"]
            assert (await save(client, user, f"{CANARY} one")).status_code == 201
            await send_everywhere(client, user)
            await database.execute(COMPLAINTS)
            assert (await save(client, user, f"{CANARY} two")).status_code == 503
            await send_everywhere(client, user)
            assert (await client.get("/memories", headers=user)).status_code == 500
            metrics = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        await until(lambda: has_arrived(sentry), seconds=20)
        server.stop()
    lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    events = [unpacked(sent) for sent in sentry.requests]
    assert {line["event"] for line in lines} >= {"request", "unforeseen_error", "save_refused"}
    assert all(set(line) <= FIELDS for line in lines)
    assert metrics.status_code == 200 and '/memories/{memory_id}"' in metrics.text
    secrets = (CANARY, TOKEN, who, user["Authorization"].split()[1], "key@")
    for text in (server.output, metrics.text, *events):
        assert [secret for secret in secrets if secret in text] == []


async def test_a_background_loop_that_fails_is_reported_too(make_server, database):
    async with wire_server(lambda _: (200, "application/json", b"{}")) as sentry:
        server = make_server(SENTRY_DSN=f"http://key@{sentry.address}/1", LOG_LEVEL="error")
        await asyncio.to_thread(server.wait_until_ready)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            await client.get("/usage", headers=await sign_up(client, "alice"))
        # What the limits' loop reads and writes by turns.
        await database.execute("ALTER TABLE memory_layer.user_state RENAME TO gone")
        await until(lambda: has_arrived(sentry), seconds=30)
        server.stop()

    event = json.loads(unpacked(sentry.requests[0]).splitlines()[2])
    assert event["tags"]["event"] == "background_work_failed"
    assert event["tags"]["work"] in server.output


async def has_arrived(server):
    return bool(server.requests)


def unpacked(sent):
    """Sentry's client packs with Brotli where that is installed, and else with gzip."""
    packing = {"content-encoding": sent.headers.get("content-encoding", "identity")}
    return httpx.Response(200, headers=packing, content=sent.body).text


async def test_sentry_gets_the_kind_the_place_and_the_request(make_server, database):
    async with wire_server(lambda _: (200, "application/json", b"{}")) as sentry:
        server = make_server(SENTRY_DSN=f"http://key@{sentry.address}/1", ENVIRONMENT="staging")
        await asyncio.to_thread(server.wait_until_ready)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            user = await sign_up(client, "alice")
            await database.execute("ALTER TABLE memory_layer.memories RENAME COLUMN url TO gone")
            answer, again = [await client.get("/memories", headers=user) for _ in range(2)]
        await until(lambda: has_arrived(sentry), seconds=20)
        server.stop()

    # The same fault again is not worth another event at once.
    [event] = [json.loads(unpacked(sent).splitlines()[2]) for sent in sentry.requests]
    [raised] = event["exception"]["values"]
    assert sentry.requests[0].path == "/api/1/envelope/"
    assert raised["type"] == "UndefinedColumnError"
    assert "value" not in raised
    assert raised["stacktrace"]["frames"][-1].keys().isdisjoint({"vars", "abs_path"})
    assert any("memory_store.py" in frame["filename"] for frame in raised["stacktrace"]["frames"])
    assert event["tags"] == {
        "event": "unforeseen_error",
        "id": answer.headers["X-Request-ID"],
        "route": "/memories",
    }
    assert event["environment"] == "staging"
    assert event.keys().isdisjoint({"request", "user", "server_name", "breadcrumbs", "extra"})
    assert answer.json()["details"] == {"request_id": answer.headers["X-Request-ID"]}
    assert again.status_code == 500


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("0190a7a0-0000-7000-8000-000000000001", True),
        ("a_b-C9" * 10, True),
        ("short", False),
        ("x" * 65, False),
        ("two words of somebody's", False),
        ("{}\n", False),
        ("", False),
    ],
)
async def test_a_request_has_one_id_in_the_answer_and_the_log(client, sent, kept):
    with structlog.testing.capture_logs() as lines:
        answer = await client.get("/healthz", headers={"X-Request-ID": sent.encode()})

    given = answer.headers["X-Request-ID"]
    assert (given == sent) is kept
    assert 8 <= len(given) <= 64
    [line] = [line for line in lines if line["event"] == "request"]
    assert line["id"] == given
    assert (line["route"], line["method"], line["status"]) == ("/healthz", "GET", 200)
    assert line["user"] is None


async def test_a_refusal_is_logged_with_its_code(client, alice):
    with structlog.testing.capture_logs() as lines:
        await client.get(f"/memories/{uuid4()}", headers=alice)

    [line] = [line for line in lines if line["event"] == "request"]
    assert (line["route"], line["code"]) == ("/memories/{memory_id}", "NOT_FOUND")
    assert len(line["user"]) == 12


async def test_users_have_the_same_name_on_every_replica(settings):
    settings = settings.model_copy(update={"log_hash_key": SecretStr("a key of ours")})
    names = []
    user = None
    for _ in range(2):
        async with app_client(settings) as client:
            user = user or await sign_up(client, "alice")
            with structlog.testing.capture_logs() as lines:
                await client.get("/usage", headers=user)
        names += [line["user"] for line in lines if line["event"] == "request"]

    assert len(names) == 2 and len(set(names)) == 1


def test_a_pseudonym_needs_its_key():
    user = uuid4()

    assert Pseudonyms("a key of ours").of(user) == Pseudonyms("a key of ours").of(user)
    assert Pseudonyms("a key of ours").of(user) != Pseudonyms("another key").of(user)
    assert Pseudonyms(None).of(user) != Pseudonyms(None).of(user)
    assert Pseudonyms("a key of ours").of(user) not in (user.hex, str(user))


def test_a_field_that_nobody_named_is_not_logged():
    event = {"event": "x", "prompt": "p", "headers": {}, "reason": "r" * 1_000, "error": ["text"]}

    kept = keep_known_fields(None, "info", event)

    assert kept == {"event": "x", "reason": "r" * 200, "error": "list"}


def test_of_a_librarys_record_only_its_place_and_kind_are_logged():
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        why = (type(error), error, error.__traceback__)
    record = logging.LogRecord("asyncio", 40, "base_events.py", 7, "%s", (CANARY,), why)

    with structlog.testing.capture_logs() as lines:
        LibraryHandler().emit(record)

    assert CANARY not in str(lines)
    assert (lines[0]["logger"], lines[0]["error"]) == ("asyncio", "ValueError")
