"""Whatever three people do, nobody sees, changes or is hindered by what is another's."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal
from uuid import uuid4

import httpx
import jwt
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from main import create_app
from storage.versions import MOST_VERSIONS
from tests.conftest import ADMIN_KEY, PASSWORD, Headers, Server, issue_token, signer

EXAMPLES_A_SEED = 25
PEOPLE = ("alice", "bob", "carol")
OTHERS = ("nobody", "a stranger", "the operator")
SLOTS = st.integers(0, 3)
PERSON = st.sampled_from(PEOPLE)
# Few, and the same for all, so that everybody's data collide wherever they can.
TEXTS = st.sampled_from(["walrus", "walrus lion", "lion", "zebra"])
CHATS = st.sampled_from(["c1", "c2", None])
# By a route, or by the tool of an assistant.
BY_TOOL = st.booleans()
ROUTE = st.deferred(lambda: st.sampled_from(sorted(ATTEMPTS)))
# What the operator may change of a person, which would be no fault and is not followed here.
BY_THE_OPERATOR = (
    "PUT /admin/api/users/{user_id}/plan",
    "POST /admin/api/users/{user_id}/erase",
    "POST /admin/api/missing-users/{user_id}/erase",
)
MAY_TAKE_A_COPY = "GET /admin/api/users/{user_id}/export"


@dataclass(frozen=True)
class Expected:
    """A memory as its owner should see it; `captured` are the texts that retries are held to.

    A text that is there and was not captured is the owner's own: no capture replaces it.
    """

    prompt: str | None = None
    response: str | None = None
    captured_prompt: str | None = None
    captured_response: str | None = None
    chat: str | None = None
    deleted: bool = False
    # What was edited away, newest first, and what stands in the trash.
    versions: tuple[tuple[str | None, str | None], ...] = ()
    trashed: "Expected | None" = None

    @property
    def purged(self) -> bool:
        return self.deleted and self.trashed is None

    @property
    def words(self) -> set[str]:
        return set(f"{self.prompt or ''} {self.response or ''}".split())


class ThreePeople(RuleBasedStateMachine):
    """Three people share one server, four ids and four words; dicts say what each may see.

    Besides them everybody else knocks at every route: who is not signed in, who has nothing, and
    who has the operator's key.
    """

    http: ClassVar[httpx.Client]
    sign: ClassVar[Callable[[], Headers]]
    answers: ClassVar[Counter[tuple[str, int | str | None]]]
    steps: ClassVar[int] = 0

    @initialize()
    def everybody_is_new(self) -> None:
        type(self).steps -= 1  # This is counted too, and is no step.
        self.signed_in = {person: type(self).sign() for person in PEOPLE}
        self.headers = dict(self.signed_in)
        self.programs: dict[str, dict[str, Headers]] = {person: {} for person in PEOPLE}
        self.own: dict[str, dict[str, Expected]] = {person: {} for person in PEOPLE}
        self.copies: dict[str, tuple[dict[str, Any], str | None]]
        self.copies = {person: ({}, None) for person in PEOPLE}
        self.ids = [str(uuid4()) for _ in range(4)]
        self.ids_of_strangers: set[str] = set()
        self.example = "".join("bcdfghjklmnpqrtv"[int(digit, 16)] for digit in uuid4().hex[:8])

    def call(self, person: str, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self.http.request(method, path, headers=self.headers[person], **more)
        assert answer.status_code in (200, 201, 403, 404, 409), answer.text
        self.answers[method, answer.status_code] += 1
        for other in set(PEOPLE) - {person}:
            assert self.mark(other) not in answer.text, f"{person} sees what is {other}'s"
        return answer

    def tool(self, person: str, name: str, **arguments: Any) -> tuple[str | None, Any]:
        """Return why the tool refuses, or None and what it answers."""
        params = {"name": name, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        result = self.call(person, "POST", "/mcp", json=body).json()["result"]
        refusal = result["_meta"]["error_code"] if result["isError"] else None
        self.answers[name, refusal] += 1
        return refusal, result.get("structuredContent")

    def mark(self, person: str) -> str:
        """A word that stands in every text of the person and in nobody else's."""
        return f"mark{person}{self.example}"

    def text(self, person: str, words: str) -> str:
        return f"{words} {self.mark(person)}"

    def alive(self, person: str) -> dict[str, Expected]:
        return {i: memory for i, memory in self.own[person].items() if not memory.deleted}

    def refusal(self, person: str, memory_id: str) -> int:
        """403 for what somebody else alone has had, 404 for nobody's and one's own deleted."""
        if memory_id in self.own[person]:
            return 404
        others = [other for other in PEOPLE if memory_id in self.own[other]]
        return 403 if others or memory_id in self.ids_of_strangers else 404

    def on_one(self, person: str, slot: int, method: str, **more: Any) -> httpx.Response | None:
        """Return the answer about a living memory of the person's; check the refusal of others."""
        memory_id = self.ids[slot]
        answer = self.call(person, method, f"/memories/{memory_id}", **more)
        if memory_id in self.alive(person):
            assert answer.status_code == 200, answer.text
            return answer
        assert answer.status_code == self.refusal(person, memory_id), answer.text
        return None

    @rule(who=st.sampled_from(OTHERS), person=PERSON, route=ROUTE, slot=SLOTS)
    def knock(self, who: str, person: str, route: str, slot: int) -> None:
        """Whoever else asks whatever route for what is a person's gets nothing of it."""
        if who == "the operator" and route in BY_THE_OPERATOR:
            return
        attempt, memory_id = ATTEMPTS[route], self.ids[slot]
        token = self.signed_in[person]["Authorization"].removeprefix("Bearer ")
        user_id = jwt.decode(token, options={"verify_signature": False})["sub"]
        names = names_of(memory_id, "c1", user_id, f"{person}@example.com", str(uuid4()))
        method, _, path = filled(route + attempt.query, names).partition(" ")
        keys = {"nobody": {}, "the operator": {"X-Admin-Key": ADMIN_KEY}}
        headers = keys[who] if who in keys else type(self).sign()
        body = json.loads(filled(json.dumps(attempt.send), names))
        # An operator's key was exchanged for one before, perhaps, and who has that is not nobody.
        self.http.cookies.clear()
        answer = self.http.request(method, path, json=body, headers=headers)
        self.answers[who, answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        may_come_in = attempt.public or (who == "the operator" and "/admin/" in route)
        if who != "a stranger" and not may_come_in:
            # The operator's key may be guessed at five times a minute, and then not even that.
            refusals = (401, 429) if route == "POST /admin/api/session" else (401,)
            assert answer.status_code in refusals, answer.text
        for other in PEOPLE:
            if (who, route, other) != ("the operator", MAY_TAKE_A_COPY, person):
                assert self.mark(other) not in answer.text, f"{who} sees what is {other}'s"
        if answer.status_code in (200, 201) and route in (
            "POST /save-prompt",
            "POST /save-response",
        ):
            self.ids_of_strangers.add(memory_id)

    @rule(person=PERSON, program=st.booleans())
    def change_token(self, person: str, program: bool) -> None:
        """Go on with a personal token, a new one or one of before, or signed in."""
        self.headers[person] = self.signed_in[person]
        if program and len(self.programs[person]) < 3:
            made = self.call(
                person,
                "POST",
                "/tokens",
                json={"name": self.mark(person), "scopes": ["read", "write"]},
            ).json()["data"]
            bearer = {"Authorization": f"Bearer {made['token']}"}
            self.programs[person][made["about"]["id"]] = bearer
        if program:
            self.headers[person] = list(self.programs[person].values())[-1]

    @rule(person=PERSON, other=PERSON)
    def revoke_a_token(self, person: str, other: str) -> None:
        """Everybody tries to end everybody's; only one's own ends, at once and no other."""
        if not self.programs[other]:
            return
        token_id, program = next(iter(self.programs[other].items()))
        self.headers[person] = self.signed_in[person]
        ended = self.call(person, "DELETE", f"/tokens/{token_id}")
        assert ended.status_code == (200 if person == other else 404)
        used = self.http.get("/usage", headers=program)
        assert used.status_code == (401 if person == other else 200)
        if person == other:
            del self.programs[other][token_id]

    @rule(person=PERSON)
    def list_tokens(self, person: str) -> None:
        self.headers[person] = self.signed_in[person]
        listed = self.call(person, "GET", "/tokens").json()["data"]["tokens"]
        assert {token["id"] for token in listed} == set(self.programs[person])

    @rule(person=PERSON, slot=SLOTS, words=TEXTS, chat=CHATS, by_tool=BY_TOOL)
    def save_prompt(
        self, person: str, slot: int, words: str, chat: str | None, by_tool: bool
    ) -> None:
        memory_id, text = self.ids[slot], self.text(person, words)
        body = {"prompt": text, "provider": "claude", "conversation_id": chat}
        before = self.own[person].get(memory_id, Expected())
        known = bool(before.captured_prompt or before.deleted)
        conflict = before.captured_prompt != text and (before.captured_prompt or before.prompt)
        if by_tool:
            refusal, saved = self.tool(person, "save_memory", memory_id=memory_id, **body)
            assert refusal == ("CONFLICT" if conflict else None)
            assert conflict or saved["created"] == (not known)
        else:
            answer = self.call(person, "POST", "/save-prompt", json=body | {"id": memory_id})
            assert answer.status_code == (409 if conflict else 200 if known else 201), answer.text
        if conflict or before.purged:
            return
        if before.captured_prompt is None:
            after = replace(before, captured_prompt=text)
            if not before.deleted:
                after = replace(after, prompt=text, chat=before.chat or chat)
            self.own[person][memory_id] = after

    @rule(person=PERSON, slot=SLOTS, words=TEXTS, chat=CHATS)
    def save_response(self, person: str, slot: int, words: str, chat: str | None) -> None:
        memory_id, text = self.ids[slot], self.text(person, words)
        body = {
            "memory_id": memory_id,
            "response": text,
            "provider": "claude",
            "conversation_id": chat,
        }
        answer = self.call(person, "POST", "/save-response", json=body)
        before = self.own[person].get(memory_id, Expected())
        if before.purged:
            assert answer.status_code == 200
            return
        if before.captured_response != text and (before.captured_response or before.response):
            assert answer.status_code == 409
            return
        assert answer.status_code == 200, answer.text
        if before.captured_response is None:
            after = replace(before, captured_response=text)
            if not before.deleted:
                after = replace(after, response=text, chat=chat or before.chat)
            self.own[person][memory_id] = after

    @rule(person=PERSON, slot=SLOTS, words=TEXTS, side=st.sampled_from(["prompt", "response"]))
    def edit(self, person: str, slot: int, words: str, side: str) -> None:
        text = self.text(person, words)
        if answer := self.on_one(person, slot, "PATCH", json={side: text}):
            memory_id = self.ids[slot]
            before = self.own[person][memory_id]
            changed = replace(before, **{side: text})
            if changed != before:
                old = (before.prompt, before.response)
                changed = replace(changed, versions=(old, *before.versions)[:MOST_VERSIONS])
            self.own[person][memory_id] = changed
            assert seen(answer.json()["data"]) == (changed.prompt, changed.response, changed.chat)

    @rule(person=PERSON, slot=SLOTS)
    def delete(self, person: str, slot: int) -> None:
        if self.on_one(person, slot, "DELETE"):
            before = self.own[person][self.ids[slot]]
            self.own[person][self.ids[slot]] = replace(
                before, prompt=None, response=None, chat=None, deleted=True, trashed=before
            )

    def in_trash(self, person: str) -> dict[str, Expected]:
        own = self.own[person].items()
        return {memory_id: memory.trashed for memory_id, memory in own if memory.trashed}

    @rule(person=PERSON, slot=SLOTS)
    def restore(self, person: str, slot: int) -> None:
        memory_id = self.ids[slot]
        answer = self.call(person, "POST", f"/trash/{memory_id}/restore")
        if memory_id not in self.in_trash(person):
            assert answer.status_code == self.refusal(person, memory_id)
            return
        self.own[person][memory_id] = mine = self.in_trash(person)[memory_id]
        assert seen(answer.json()["data"]) == (mine.prompt, mine.response, mine.chat)

    @rule(person=PERSON, slot=SLOTS)
    def purge(self, person: str, slot: int) -> None:
        memory_id = self.ids[slot]
        answer = self.call(person, "DELETE", f"/trash/{memory_id}")
        if memory_id not in self.in_trash(person):
            assert answer.status_code == self.refusal(person, memory_id)
            return
        self.own[person][memory_id] = Expected(deleted=True)

    @rule(person=PERSON)
    def empty_the_trash(self, person: str) -> None:
        answer = self.call(person, "DELETE", "/trash")
        assert answer.json()["data"] == {"purged": len(self.in_trash(person))}
        self.own[person] |= dict.fromkeys(self.in_trash(person), Expected(deleted=True))

    @rule(person=PERSON)
    def list_trash(self, person: str) -> None:
        answer = self.call(person, "GET", "/trash", params={"limit": 100}).json()["data"]
        assert {item["memory"]["id"]: seen(item["memory"]) for item in answer["memories"]} == {
            memory_id: (mine.prompt, mine.response, mine.chat)
            for memory_id, mine in self.in_trash(person).items()
        }

    @rule(person=PERSON, slot=SLOTS, back=st.integers(0, 2))
    def look_at_versions_and_restore_one(self, person: str, slot: int, back: int) -> None:
        memory_id = self.ids[slot]
        path = f"/memories/{memory_id}/versions"
        answer = self.call(person, "GET", path)
        if memory_id not in self.alive(person):
            assert answer.status_code == self.refusal(person, memory_id)
            answer = self.call(person, "POST", f"{path}/1/restore")
            assert answer.status_code == self.refusal(person, memory_id)
            return
        before = self.own[person][memory_id]
        listed = answer.json()["data"]["versions"]
        assert tuple((v["prompt"], v["response"]) for v in listed) == before.versions
        if back < len(listed):
            prompt, response = before.versions[back]
            answer = self.call(person, "POST", f"{path}/{listed[back]['number']}/restore")
            texts = {"prompt": prompt or before.prompt, "response": response or before.response}
            after = replace(before, **texts)
            if after != before:
                old = (before.prompt, before.response)
                after = replace(after, versions=(old, *before.versions)[:MOST_VERSIONS])
            self.own[person][memory_id] = after
            assert seen(answer.json()["data"]) == (after.prompt, after.response, after.chat)

    @rule(person=PERSON)
    def synchronise(self, person: str) -> None:
        """A copy that follows the changes page by page is what the person has."""
        copy, cursor = self.copies[person]
        more = True
        while more:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = self.call(person, "GET", "/sync/since", params=query).json()["data"]
            cursor, more = page["next_cursor"], page["more"]
            for change in page["changes"]:
                copy.pop(change["id"], None)
                if not change["deleted"]:
                    copy[change["id"]] = seen(change["memory"])
        self.copies[person] = copy, cursor
        assert copy == {
            memory_id: (mine.prompt, mine.response, mine.chat)
            for memory_id, mine in self.alive(person).items()
        }

    @rule(person=PERSON, slot=SLOTS)
    def read_by_tool(self, person: str, slot: int) -> None:
        memory_id = self.ids[slot]
        refusal, read = self.tool(person, "get_memory", memory_id=memory_id)
        if mine := self.alive(person).get(memory_id):
            assert seen(read) == (mine.prompt, mine.response, mine.chat)
        else:
            forbidden = self.refusal(person, memory_id) == 403
            assert refusal == ("FORBIDDEN" if forbidden else "NOT_FOUND")

    @rule(person=PERSON, slot=SLOTS)
    def read(self, person: str, slot: int) -> None:
        if answer := self.on_one(person, slot, "GET"):
            mine = self.own[person][self.ids[slot]]
            assert seen(answer.json()["data"]) == (mine.prompt, mine.response, mine.chat)

    @rule(person=PERSON, method=st.sampled_from(["GET", "DELETE"]))
    def ask_for_nobodys(self, person: str, method: str) -> None:
        assert self.call(person, method, f"/memories/{uuid4()}").status_code == 404

    @rule(person=PERSON, chat=CHATS)
    def list_memories(self, person: str, chat: str | None) -> None:
        query = {"limit": 100} | ({"conversation_id": chat} if chat else {})
        answer = self.call(person, "GET", "/memories", params=query).json()["data"]
        assert {memory["id"]: seen(memory) for memory in answer["memories"]} == {
            memory_id: (mine.prompt, mine.response, mine.chat)
            for memory_id, mine in self.alive(person).items()
            if chat in (None, mine.chat)
        }

    @rule(
        person=PERSON,
        word=st.sampled_from(["walrus", "lion", "zebra"]),
        chat=CHATS,
        by_tool=BY_TOOL,
    )
    def search(self, person: str, word: str, chat: str | None, by_tool: bool) -> None:
        body = {"query": word, "limit": 20, "conversation_id": chat}
        if by_tool:
            hits = self.tool(person, "search_memories", **body)[1]["memories"]
            shown = {hit["memory_id"]: seen(hit) for hit in hits}
        else:
            hits = self.call(person, "POST", "/search", json=body).json()["data"]["hits"]
            shown = {hit["memory"]["id"]: seen(hit["memory"]) for hit in hits}
        expected = {
            memory_id: (mine.prompt, mine.response, mine.chat)
            for memory_id, mine in self.alive(person).items()
            if word in mine.words and chat in (None, mine.chat)
        }
        assert shown.items() <= expected.items()
        assert shown.keys() | duplicates(hits) == expected.keys()

    @rule(person=PERSON, other=PERSON)
    def search_for_anothers_words(self, person: str, other: str) -> None:
        """The query is echoed by nothing, so that even its own words must not come back."""
        answer = self.http.post(
            "/search",
            json={"query": self.mark(other), "limit": 100},
            headers=self.headers[person],
        )
        hits = answer.json()["data"]["hits"]
        found = {hit["memory"]["id"] for hit in hits} | duplicates(hits)
        assert found == (set(self.alive(person)) if person == other else set())

    @rule(person=PERSON, by_tool=BY_TOOL)
    def list_conversations(self, person: str, by_tool: bool) -> None:
        if by_tool:
            _, answer = self.tool(person, "list_conversations")
        else:
            answer = self.call(person, "GET", "/conversations").json()["data"]
        counted = Counter(mine.chat for mine in self.alive(person).values() if mine.chat)
        assert {chat["id"]: chat["memories"] for chat in answer["conversations"]} == counted

    @rule(person=PERSON, chat=st.sampled_from(["c1", "c2"]))
    def read_conversation(self, person: str, chat: str) -> None:
        answer = self.call(person, "GET", f"/conversations/{chat}")
        expected = {i for i, mine in self.alive(person).items() if mine.chat == chat}
        if not expected:
            assert answer.status_code == 404
        else:
            assert {memory["id"] for memory in answer.json()["data"]["memories"]} == expected

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    def teardown(self) -> None:
        """Nobody's data were changed by what the others did since they last looked."""
        if hasattr(self, "own"):
            for person in PEOPLE:
                self.list_memories(person, None)


def duplicates(hits: list[dict[str, Any]]) -> set[str]:
    return {memory_id for hit in hits for memory_id in hit["duplicates"]}


def seen(memory: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    return memory["prompt"], memory["response"], memory["conversation_id"]


@pytest.fixture
async def sign(database_url: str) -> Callable[[], Headers]:
    """Make new people as fast as the server could if it hashed no passwords."""
    sign = await signer(database_url)
    return lambda: sign(uuid4())


ONE_SEED = settings(
    max_examples=EXAMPLES_A_SEED,
    stateful_step_count=50,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(("backend", "steps"), [("faiss", 10_000), ("pgvector", 500)])
async def test_nothing_of_one_person_ever_reaches_another(
    make_server: Callable[..., Server],
    sign: Callable[[], Headers],
    backend: str,
    steps: int,
    pytestconfig: pytest.Config,
) -> None:
    steps = pytestconfig.getoption("--steps") or steps
    server = make_server(VECTOR_BACKEND=backend)
    await asyncio.to_thread(server.wait_until_ready)
    parts = {"sign": staticmethod(sign), "answers": Counter()}
    machine = type("Machine", (ThreePeople,), parts)
    began, number = time.monotonic(), 0
    with httpx.Client(base_url=server.url, timeout=30) as machine.http:
        while machine.steps < steps:
            number += 1
            await asyncio.to_thread(
                run_state_machine_as_test, seed(number)(machine), settings=ONE_SEED
            )
            print(f"seeds 1 to {number}: {machine.steps} steps, {time.monotonic() - began:.0f} s")
    print(dict(machine.answers))
    if steps < 10_000:  # too few to meet everything that is rare
        return
    assert min(machine.answers[method, 403] for method in ("GET", "PATCH", "DELETE")) > 0
    assert machine.answers["get_memory", "FORBIDDEN"] > 0
    assert min(machine.answers[who, 401] for who in ("nobody", "the operator")) > 0
    assert machine.answers["a stranger", 403] > 0


@dataclass(frozen=True)
class Attempt:
    """Bob asks a route for what is alice's: the answer he gets, and what he sends.

    What stands in braces is hers. Who is not signed in is refused unless the route is public.
    `scope` is what a personal token needs for it; of an `owner` it asks that they sign in.
    """

    status: int
    send: dict[str, Any] | None = None
    query: str = ""
    public: bool = False
    scope: Literal["read", "write", "chat", "any", "owner"] = "read"


SAID = [{"role": "user", "content": "secret"}]
ATTEMPTS = {
    "POST /save-prompt": Attempt(
        201, {"id": "{memory}", "prompt": "p", "provider": "claude"}, scope="write"
    ),
    "POST /save-response": Attempt(200, {"memory_id": "{memory}", "response": "r"}, scope="write"),
    "POST /search": Attempt(200, {"query": "secret", "conversation_id": "{chat}"}),
    "GET /memories": Attempt(200, query="?conversation_id={chat}"),
    "GET /memories/{memory_id}": Attempt(403),
    "PATCH /memories/{memory_id}": Attempt(403, {"prompt": "bob was here"}, scope="write"),
    "DELETE /memories/{memory_id}": Attempt(403, scope="write"),
    "GET /memories/{memory_id}/versions": Attempt(403),
    "POST /memories/{memory_id}/versions/{number}/restore": Attempt(403, scope="write"),
    "GET /trash": Attempt(200),
    "DELETE /trash": Attempt(200, scope="write"),
    "POST /trash/{memory_id}/restore": Attempt(403, scope="write"),
    "DELETE /trash/{memory_id}": Attempt(403, scope="write"),
    "GET /sync/since": Attempt(200),
    "GET /conversations": Attempt(200),
    "GET /timeline": Attempt(200),
    "GET /activity": Attempt(200),
    "GET /conversations/{conversation_id}": Attempt(404),
    "POST /import": Attempt(202, {"prompt": "{memory}"}, scope="write"),
    "GET /import": Attempt(200),
    "GET /import/{import_id}": Attempt(404),
    "POST /import/{import_id}/cancel": Attempt(404, scope="write"),
    "GET /export/full": Attempt(200),
    "POST /export/full": Attempt(200, {"passphrase": "{memory}"}),
    "GET /admin/api/session": Attempt(200, public=True),
    "POST /admin/api/session": Attempt(401),
    "DELETE /admin/api/session": Attempt(401),
    "GET /admin/api/overview": Attempt(401),
    "GET /admin/api/users": Attempt(401, query="?query={email}"),
    "GET /admin/api/users/{user_id}": Attempt(401),
    "PUT /admin/api/users/{user_id}/plan": Attempt(401, {"tier": "free"}),
    "GET /admin/api/users/{user_id}/export": Attempt(401),
    "POST /admin/api/users/{user_id}/erase": Attempt(401, {"typed": "{email}"}),
    "POST /admin/api/users/{user_id}/rebuild-cache": Attempt(401),
    "GET /admin/api/limits": Attempt(401),
    "GET /admin/api/system": Attempt(401),
    "POST /admin/api/jobs/{name}/run": Attempt(401),
    "POST /admin/api/missing-users/{user_id}/erase": Attempt(401, {"typed": "{user}"}),
    "GET /admin/api/audit": Attempt(401),
    "POST /rag/query": Attempt(
        200, {"question": "secret", "conversation_id": "{chat}"}, scope="chat"
    ),
    "POST /chat": Attempt(503, {"messages": SAID, "conversation_id": "{chat}"}, scope="chat"),
    "POST /v1/chat/completions": Attempt(503, {"messages": SAID}, scope="chat"),
    "GET /v1/models": Attempt(503, scope="chat"),
    "POST /v1/messages": Attempt(503, {"messages": SAID}, scope="chat"),
    "GET /usage": Attempt(200, scope="any"),
    "POST /capture-health": Attempt(
        200, {"installation": "{memory}", "version": "1.0", "days": []}, scope="write"
    ),
    "GET /tokens": Attempt(200, scope="owner"),
    "POST /tokens": Attempt(201, {"name": "{user}", "scopes": ["read"]}, scope="owner"),
    "DELETE /tokens/{token_id}": Attempt(404, scope="owner"),
    "POST /mcp": Attempt(
        200,
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "get_memory", "arguments": {"memory_id": "{memory}"}},
        },
        scope="any",
    ),
    "DELETE /account": Attempt(200, {"user_id": "{user}", "password": PASSWORD}, scope="owner"),
    "GET /about": Attempt(200, public=True),
    "GET /healthz": Attempt(200, public=True),
    "GET /readyz": Attempt(200, public=True),
    "GET /health": Attempt(200, public=True),
    "GET /metrics": Attempt(200, public=True),
    "POST /auth/v1/signup": Attempt(422, {"email": "{email}", "password": PASSWORD}, public=True),
    "POST /auth/v1/token": Attempt(
        400,
        {"email": "{email}", "password": "a guess of bob's"},
        query="?grant_type=password",
        public=True,
    ),
    "GET /auth/v1/user": Attempt(200),
    "PUT /auth/v1/user": Attempt(200, {"data": {"id": "{user}", "sub": "{user}"}}),
    "POST /auth/v1/logout": Attempt(204),
    "GET /auth/v1/.well-known/jwks.json": Attempt(200, public=True),
    "GET /auth/v1/settings": Attempt(200, public=True),
    "GET /auth/v1/health": Attempt(200, public=True),
}


def names_of(
    memory_id: str, chat: str, user_id: str, email: str, token_id: str, import_id: str = ""
) -> dict[str, str]:
    """What the braces of `ATTEMPTS` and of the routes stand for."""
    return {
        **{"{memory}": memory_id, "{memory_id}": memory_id, "{number}": "1"},
        **{"{chat}": chat, "{conversation_id}": chat, "{import_id}": import_id or memory_id},
        **{"{user}": user_id, "{user_id}": user_id, "{email}": email, "{token_id}": token_id},
    }


def filled(text: str, names: dict[str, str]) -> str:
    for placeholder, value in names.items():
        text = text.replace(placeholder, value)
    return text


def routes() -> dict[str, dict[str, Any]]:
    """Every operation of the OpenAPI document, as `GET /path`."""
    return {
        f"{method.upper()} {path}": operation
        for path, operations in create_app().openapi()["paths"].items()
        for method, operation in operations.items()
    }


def test_every_route_says_what_it_does_with_what_is_anothers() -> None:
    assert set(routes()) == set(ATTEMPTS)
    unguarded = {name for name, operation in routes().items() if "security" not in operation}
    assert unguarded == {name for name, attempt in ATTEMPTS.items() if attempt.public}


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_no_route_gives_or_changes_what_is_anothers(
    client: httpx.AsyncClient, alice: Headers, bob: Headers, name: str
) -> None:
    attempt = ATTEMPTS[name]
    memory = {"id": str(uuid4()), "prompt": "secret of alice", "provider": "claude"}
    chat = f"chat-{uuid4()}"
    await client.post("/save-prompt", json=memory | {"conversation_id": chat}, headers=alice)
    await issue_token(client, alice)
    [token] = (await client.get("/tokens", headers=alice)).json()["data"]["tokens"]
    user = (await client.get("/auth/v1/user", headers=alice)).json()
    before = await everything_of(client, alice)
    import_id = await an_import_of(client, alice) if "{import_id}" in name else ""
    names = names_of(memory["id"], chat, user["id"], user["email"], token["id"], import_id)

    method, _, path = filled(name + attempt.query, names).partition(" ")
    body = json.loads(filled(json.dumps(attempt.send), names))
    answer = await client.request(method, path, json=body, headers=bob)

    assert answer.status_code == attempt.status, answer.text
    assert "secret of alice" not in answer.text
    assert await everything_of(client, alice) == before
    if not attempt.public:
        stranger = await client.request(method, path, json=body)
        assert stranger.status_code == 401


async def an_import_of(client: httpx.AsyncClient, user: Headers) -> str:
    answer = await client.post("/import", content=b'{"prompt": ""}', headers=user)
    return str(answer.json()["data"]["id"])


async def everything_of(client: httpx.AsyncClient, user: Headers) -> list[Any]:
    paths = ("/memories", "/trash", "/conversations", "/tokens", "/auth/v1/user")
    answers = [await client.get(path, headers=user) for path in paths]
    found = await client.post("/search", json={"query": "secret"}, headers=user)
    assert {answer.status_code for answer in (*answers, found)} == {200}
    return [answer.json() for answer in (*answers, found)]
