"""Schemathesis with people who are signed in and ids that exist; see tests/test_openapi.py.

usage: python -m tests.fuzzing ADDRESS, and schemathesis' own options

Of the requests that are generated to be valid every second one is about what exists. In the folder
it is started in it writes how often each operation answered with which status: `answers.json`.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import schemathesis
from schemathesis.cli import schemathesis as command

from tests.conftest import ADMIN_KEY, PASSWORD, Headers

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "negative_data_rejection",
    "ignored_auth",
)
# A provider that is made up cannot be reached, and an import may find no room: no fault of ours.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503"]
[auth.openapi.bearer]
bearer = "{token}"
[auth.openapi."admin key"]
api_key = "{key}"
[auth.openapi."admin session"]
api_key = "{key}"
"""
PATIENCE = 300  # seconds: a machine that is busy with other things is no fault either
ASKED = {"model": "walrus-1", "messages": [{"role": "user", "content": "Where is the walrus?"}]}
LINE = '{"prompt": "How heavy is a walrus?", "response": "A ton.", "provider": "claude"}\n'
TOOL = {"name": "search_memories", "arguments": {"query": "walrus"}}
MCP = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": TOOL}


@dataclass
class Person:
    http: httpx.Client
    headers: Headers
    session: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.session["user"]["id"])

    @property
    def email(self) -> str:
        return str(self.session["user"]["email"])

    def asks(self, method: str, path: str, **more: Any) -> Any:
        answer = self.http.request(method, path, headers=self.headers, **more)
        answer.raise_for_status()
        return answer.json()["data"]

    def memory(self) -> str:
        body = {"prompt": f"Walrus {uuid4()}?", "provider": "claude", "conversation_id": "c-1"}
        return str(self.asks("POST", "/save-prompt", json=body)["memory_id"])

    def edited_memory(self) -> str:
        memory_id = self.memory()
        self.asks("PATCH", f"/memories/{memory_id}", json={"prompt": "What weighs a ton?"})
        return memory_id

    def deleted_memory(self) -> str:
        memory_id = self.memory()
        self.asks("DELETE", f"/memories/{memory_id}")
        return memory_id

    def token(self) -> str:
        body = {"name": "a program", "scopes": ["read"]}
        return str(self.asks("POST", "/tokens", json=body)["about"]["id"])

    def upload(self) -> str:
        """The latest; few of one person may wait at a time."""
        latest = self.asks("GET", "/import")["imports"] or [
            self.asks("POST", "/import", content=LINE)
        ]
        return str(latest[0]["id"])

    def cursor(self, path: str) -> str:
        return str(self.asks("GET", path, params={"limit": 1})["next_cursor"])


def sign_up(http: httpx.Client) -> Person:
    body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    answer = http.post("/auth/v1/signup", json=body)
    answer.raise_for_status()
    session = answer.json()
    return Person(http, {"Authorization": f"Bearer {session['access_token']}"}, session)


def about(name: str, make: Callable[[Person], object]) -> Callable[[Any, Person], None]:
    """Name something in the path that this person has; `make` returns its id."""

    def prepare(case: Any, person: Person) -> None:
        case.path_parameters[name] = make(person)

    return prepare


def on_from(path: str) -> Callable[[Any, Person], None]:
    """Ask for the second page of a list."""

    def prepare(case: Any, person: Person) -> None:
        case.query["cursor"] = person.cursor(path)

    return prepare


def saying(**said: Any) -> Callable[[Any, Person], None]:
    """Send a body that is good, with whatever else was generated."""

    def prepare(case: Any, _: Person) -> None:
        if isinstance(case.body, dict):
            case.body.update(said)

    return prepare


def something_deleted(_: Any, person: Person) -> None:
    person.deleted_memory()


def somebodys(person: Person) -> str:
    """The id of somebody else, who has a memory."""
    somebody = sign_up(person.http)
    somebody.memory()
    return somebody.id


def edited(case: Any, person: Person) -> None:
    case.path_parameters["memory_id"] = person.memory()
    case.headers.pop("if-match", None)  # one that is made up never matches


def restored_version(case: Any, person: Person) -> None:
    case.path_parameters.update(memory_id=person.edited_memory(), number=1)


def new_account(case: Any, person: Person) -> None:
    email = f"{uuid4().hex}@example.com"
    saying(email=email, password=PASSWORD, phone=None)(case, person)


def session(case: Any, person: Person) -> None:
    somebody = sign_up(person.http)
    grant = {"email": somebody.email, "password": PASSWORD, "phone": None}
    saying(**grant, refresh_token=somebody.session["refresh_token"])(case, person)


def erased(case: Any, person: Person) -> None:
    user_id = somebodys(person)
    case.path_parameters["user_id"] = user_id
    case.body["typed"] = user_id


def operators_session(case: Any, person: Person) -> None:
    """What the panel's own page sends."""
    headers = {"X-Admin-Key": ADMIN_KEY}
    address = str(person.http.base_url).rstrip("/")
    answer = httpx.post(f"{address}/admin/api/session", headers=headers, timeout=PATIENCE)
    case.cookies.update(answer.cookies)
    case.headers["Origin"] = address


def of_today(case: Any, _: Person) -> None:
    if isinstance(case.body, dict) and case.body.get("days"):
        case.body["days"] = [case.body["days"][0] | {"day": str(datetime.now(UTC).date())}]


def uploaded(case: Any, _: Person) -> None:
    case.body = {"file": LINE} if isinstance(case.body, dict) else LINE


PREPARED: dict[str, Callable[[Any, Person], None]] = {
    "GET /memories": on_from("/memories"),
    "GET /memories/{memory_id}": about("memory_id", Person.memory),
    "PATCH /memories/{memory_id}": edited,
    "DELETE /memories/{memory_id}": about("memory_id", Person.memory),
    "GET /memories/{memory_id}/versions": about("memory_id", Person.edited_memory),
    "POST /memories/{memory_id}/versions/{number}/restore": restored_version,
    "DELETE /trash": something_deleted,
    "GET /trash": on_from("/trash"),
    "POST /trash/{memory_id}/restore": about("memory_id", Person.deleted_memory),
    "DELETE /trash/{memory_id}": about("memory_id", Person.deleted_memory),
    "GET /conversations": on_from("/conversations"),
    "GET /conversations/{conversation_id}": about("conversation_id", lambda _: "c-1"),
    "GET /sync/since": on_from("/sync/since"),
    "GET /timeline": on_from("/timeline"),
    "POST /import": uploaded,
    "GET /import/{import_id}": about("import_id", Person.upload),
    "POST /import/{import_id}/cancel": about("import_id", Person.upload),
    "POST /v1/chat/completions": saying(**ASKED),
    "POST /v1/messages": saying(**ASKED, max_tokens=100),
    "POST /rag/query": saying(provider=None, model=None),
    "POST /chat": saying(provider=None, model=None, messages=ASKED["messages"]),
    "POST /mcp": saying(**MCP),
    "POST /capture-health": of_today,
    "POST /tokens": saying(expires_at=None),
    "DELETE /tokens/{token_id}": about("token_id", Person.token),
    "POST /auth/v1/signup": new_account,
    "POST /auth/v1/token": session,
    "GET /admin/api/users/{user_id}": about("user_id", somebodys),
    "PUT /admin/api/users/{user_id}/plan": about("user_id", somebodys),
    "GET /admin/api/users/{user_id}/export": about("user_id", somebodys),
    "POST /admin/api/users/{user_id}/erase": erased,
    "POST /admin/api/users/{user_id}/rebuild-cache": about("user_id", somebodys),
    "POST /admin/api/jobs/{name}/run": about("name", lambda _: "count_memories"),
    "DELETE /admin/api/session": operators_session,
}
# These end a session or an account, use up what one person may have, or take all that one has: so
# each has a person of its own, and after a success the next one.
APART = (
    "DELETE /account",
    "DELETE /trash",
    "GET /export/full",
    "POST /auth/v1/logout",
    "POST /export/full",
    "POST /tokens",
    "PUT /auth/v1/user",
)


class Stage:
    """Who sends the requests, and what came back."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.person = sign_up(http)
        self.apart: dict[str, Person] = {}
        self.turns: Counter[str] = Counter()
        self.answers: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def before(self, case: Any) -> None:
        if not is_as_documented(case):
            return
        label, person = case.operation.label, self.person
        if label in APART and case.headers.get("Authorization") == person.headers["Authorization"]:
            if label not in self.apart:
                self.apart[label] = sign_up(self.http)
            person = self.apart[label]
            case.headers.update(person.headers)
        if label in PREPARED and case.meta and case.meta.generation.mode.is_positive:
            self.turns[label] += 1
            if self.turns[label] % 2:
                PREPARED[label](case, person)

    def after(self, case: Any, status: int) -> None:
        if is_as_documented(case):
            self.answers[case.operation.label][status] += 1
            if status < 300:
                self.apart.pop(case.operation.label, None)


def is_as_documented(case: Any) -> bool:
    """False where another method is tried at the operation's address."""
    return bool(case.method.upper() == case.operation.method.upper())


def main() -> None:
    address, *options = sys.argv[1:]
    stage = Stage(httpx.Client(base_url=address, timeout=PATIENCE))
    for _ in range(3):  # more than the first page of a list holds
        stage.person.memory()
        stage.person.deleted_memory()
    token = stage.person.session["access_token"]
    Path("schemathesis.toml").write_text(CONFIG.format(token=token, key=ADMIN_KEY))

    @schemathesis.hook
    def before_call(_: Any, case: Any, kwargs: Any) -> None:
        stage.before(case)

    @schemathesis.hook
    def after_call(_: Any, case: Any, response: Any) -> None:
        stage.after(case, response.status_code)

    ours = ["--checks", ",".join(CHECKS), "--suppress-health-check", "all", "--no-color"]
    ours += ["--request-timeout", str(PATIENCE)]
    try:
        command(["run", f"{address}/openapi.json", *ours, *options])
    finally:
        Path("answers.json").write_text(json.dumps(stage.answers, indent=1))


if __name__ == "__main__":
    main()
