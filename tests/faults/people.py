"""People whose outboxes keep the extension's rules, and what each of them may expect to find."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.conftest import PASSWORD

# The extension's rules (extension/src/worker/rules.ts), on a clock twenty times as fast.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
INVALID = {"INVALID_INPUT", "TOO_LARGE", "CONFLICT"}
PATIENCE = 8.0
SEARCHES = 3
ODD = "\r\n\t“é\u0301” 👩‍👩‍👧 \u202e שלום \x07 $1 \\u0000 "
SIDES = ("prompt", "response")
NOT_FOUND = 404


def word_of(n: int) -> str:
    """A word that no other number has and no stemmer shortens."""
    return "qz" + "".join("bcdfghjkmp"[int(digit)] for digit in f"{n:06d}") + "vx"


@dataclass(frozen=True)
class Attempt:
    """One request; `outcome` is the answer's status, or 0 where nobody knows what became of it."""

    began: float
    ended: float
    what: str
    outcome: int


@dataclass
class Expected:
    """A memory as acknowledged so far; a text that is None was not acknowledged."""

    prompt: str | None = None
    response: str | None = None
    deleted: bool = False


@dataclass
class Found:
    """What must not be, by the person and the moment it was seen."""

    stale: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    searches: int = 0
    duplicate_deliveries: int = 0
    sessions_lost: int = 0


class Person:
    """Saves, searches, edits, deletes, asks and synchronises, at one replica or the other."""

    def __init__(
        self, number: int, doors: list[str], chance: random.Random, told: Callable[[float], None]
    ) -> None:
        """`told` hears of each acknowledgement: when the request began that it answers."""
        self.number, self.chance, self.turns, self._told = number, chance, 0, told
        self.http = [httpx.AsyncClient(base_url=door, timeout=PATIENCE) for door in doors]
        self.session: dict[str, Any] = {}
        self.memories: dict[str, Expected] = {}
        self.chats_perhaps: set[str] = set()
        self.refused_texts: list[str] = []
        self.copy: dict[str, tuple[str | None, str | None]] = {}
        self.cursor: str | None = None
        self.history: list[Attempt] = []
        self.found = Found()
        self.acknowledged = 0

    async def sign_up(self) -> None:
        body = {"email": f"p{self.number}-{uuid4().hex[:6]}@example.com", "password": PASSWORD}
        answer = await self.http[0].post("/auth/v1/signup", json=body, timeout=60)
        answer.raise_for_status()
        self.session = answer.json()

    async def live(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self.turn()

    async def close(self) -> None:
        for http in self.http:
            await http.aclose()

    async def ask(
        self, door: int, what: str, body: Any = None, query: dict[str, Any] | None = None
    ) -> httpx.Response | None:
        """Send one request, and note what came of it; None when there was no answer."""
        began = time.monotonic()
        method, path = what.split(" ")
        headers = {"Authorization": f"Bearer {self.session['access_token']}"}
        answer = None
        with contextlib.suppress(httpx.TransportError):
            answer = await self.http[door].request(
                method, path, json=body, params=query, headers=headers
            )
        status = answer.status_code if answer is not None else 0
        self.history.append(Attempt(began, time.monotonic(), what.split("/")[1], status))
        if status == 500:
            self.found.wrong.append(f"{what} answered 500: {answer.text if answer else ''}")
        return answer

    async def deliver(self, what: str, body: Any = None, good: tuple[int, ...] = (200, 201)) -> int:
        """Try until it is acknowledged or refused for good; return the door that answered.

        Returns -1 where it was refused for good.
        """
        failures = 0
        while True:
            door = self.chance.randrange(len(self.http))
            answer = await self.ask(door, what, body)
            if answer is not None and answer.status_code in good:
                return door
            failures += 1
            if answer is not None and await self._is_final(answer, door):
                return -1
            most = min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
            told = float(answer.headers.get("Retry-After", 0)) if answer is not None else 0.0
            await asyncio.sleep(
                max(min(told, LONGEST_PAUSE), most * (1 + self.chance.random()) / 2)
            )

    async def _is_final(self, answer: httpx.Response, door: int) -> bool:
        if answer.status_code == 401:
            await self.refresh(door)
            return False
        return answer.json().get("error_code") in INVALID if _is_ours(answer) else False

    async def refresh(self, door: int) -> None:
        """Renew the session as the official clients do; only a refusal ends it."""
        query = "/auth/v1/token?grant_type=refresh_token"
        body = {"refresh_token": self.session["refresh_token"]}
        try:
            answer = await self.http[door].post(query, json=body)
        except httpx.TransportError:
            return
        if answer.status_code == 200:
            self.session = answer.json()
        elif answer.status_code < 500 and answer.status_code != 429:
            self.found.sessions_lost += 1
            self.found.wrong.append(f"session lost: {answer.status_code} {answer.text}")

    async def turn(self) -> None:
        n, self.turns = self.turns * 100 + self.number, self.turns + 1
        memory_id, word = str(uuid4()), word_of(n)
        mine = Expected()
        body = {"id": memory_id, "prompt": f"{ODD}{word} {n}\r\n", "provider": "claude"}
        door = await self.save("POST /save-prompt", body)
        self.memories[memory_id] = mine
        mine.prompt = body["prompt"]
        await self.must_find(1 - door, word, [memory_id])
        answer = {"memory_id": memory_id, "response": f"answer{ODD * 3}{n}"}
        await self.save("POST /save-response", answer)
        mine.response = answer["response"]
        dice = self.chance.random()
        if dice < 0.10:
            self.found.duplicate_deliveries += 1
            await self.save("POST /save-prompt", body)
        elif dice < 0.15:
            await self.edit(memory_id, word, n)
        elif dice < 0.20:
            await self.delete(memory_id, word, body)
        elif dice < 0.24:
            await self.chat(n)
        elif dice < 0.26:
            await self.save_what_is_refused(body)
        if self.turns % 8 == 0:
            await self.synchronise()

    async def save(self, what: str, body: dict[str, str]) -> int:
        door = await self.deliver(what, body)
        if door < 0:
            self.found.wrong.append(f"{what} was refused for good: {body}")
        else:
            self.acknowledged += 1
            self._told(self.history[-1].began)
        return max(door, 0)

    async def must_find(self, door: int, word: str, wanted: list[str]) -> None:
        """What was acknowledged takes part in the next search that is answered, wherever."""
        for _ in range(SEARCHES):
            answer = await self.ask(door, "POST /search", {"query": word})
            if answer is not None and answer.status_code == 200:
                break
            door = 1 - door
        else:
            return
        self.found.searches += 1
        if (ids := ids_with_word(answer)) != wanted:
            told = f"person {self.number}, {word}: {ids} instead of {wanted}{how(answer)}"
            self.found.stale.append(told)

    async def edit(self, memory_id: str, word: str, n: int) -> None:
        after = word_of(n + 50)
        text = f"{ODD}{after} {n}"
        door = await self.deliver(f"PATCH /memories/{memory_id}", {"prompt": text})
        self.memories[memory_id].prompt = text
        await self.must_find(1 - door, after, [memory_id])
        await self.must_find(1 - door, word, [])

    async def delete(self, memory_id: str, word: str, body: dict[str, str]) -> None:
        """Delete, where an earlier try may have been the one that did; a late retry is no save."""
        door = await self.deliver(f"DELETE /memories/{memory_id}", good=(200, NOT_FOUND))
        self.memories[memory_id].deleted = True
        await self.must_find(1 - door, word, [])
        await self.deliver("POST /save-prompt", body)
        await self.must_find(door, word, [])

    async def chat(self, n: int) -> None:
        """Ask once: a chat is tried again by whoever asked it, not by a program."""
        said = f"what of {word_of(n + 60)} {n}"
        self.chats_perhaps.add(said)
        body = {"messages": [{"role": "user", "content": said}]}
        answer = await self.ask(self.chance.randrange(2), "POST /chat", body)
        if answer is None or answer.status_code != 200:
            return
        told = answer.json()["data"]
        kept = told["reply"] if told["reply_is_saved"] else None
        self.memories[told["memory_id"]] = Expected(said, kept)

    async def save_what_is_refused(self, body: dict[str, str]) -> None:
        """Other words under an id that stands, and words that no database takes."""
        refused = f"never {uuid4().hex}"
        self.refused_texts.append(refused)
        other = body | {"prompt": refused}
        if self.chance.random() < 0.5:
            other = {"prompt": refused + "\0", "provider": "claude", "id": str(uuid4())}
        if await self.deliver("POST /save-prompt", other) >= 0:
            self.found.wrong.append(f"took what it should refuse: {other}")

    async def synchronise(self) -> bool:
        """Follow the changes; return whether all that there are have been read."""
        more = True
        while more:
            query = {"limit": 50} | ({"cursor": self.cursor} if self.cursor else {})
            answer = await self.ask(self.chance.randrange(2), "GET /sync/since", query=query)
            if answer is None or answer.status_code != 200:
                if answer is not None and answer.status_code == 410:
                    self.found.wrong.append("the sync cursor leads nowhere any more")
                if answer is not None and answer.status_code == 401:
                    await self.refresh(0)
                return False
            page = answer.json()["data"]
            self.cursor, more = page["next_cursor"], page["more"]
            for change in page["changes"]:
                self.copy.pop(change["id"], None)
                if not change["deleted"]:
                    memory = change["memory"]
                    self.copy[change["id"]] = memory["prompt"], memory["response"]
        return True

    @property
    def outcomes(self) -> Counter[int]:
        return Counter(attempt.outcome for attempt in self.history)


def _is_ours(answer: httpx.Response) -> bool:
    return answer.headers.get("Content-Type", "").startswith("application/json")


async def answer_of(person: Person, door: int, what: str, **more: Any) -> httpx.Response:
    """Ask until there is an answer: the storm is over, but sessions may be of another time."""
    while True:
        answer = await person.ask(door, what, **more)
        if answer is not None and answer.status_code == 200:
            return answer
        if answer is not None and answer.status_code == 401:
            await person.refresh(door)
        await asyncio.sleep(0.1)


def how(answer: httpx.Response) -> str:
    """Say of a search's answer what may explain that something is not in it."""
    said = answer.json()["data"]
    partly = ", partly" if said["partial"] else ""
    return partly + ("" if said["semantic"] else ", by words alone") + f", {len(said['hits'])} hits"


def ids_with_word(answer: httpx.Response) -> list[str]:
    """The ids of the hits that hold the query's words; those near in meaning do not count."""
    hits = answer.json()["data"]["hits"]
    return [hit["memory"]["id"] for hit in hits if hit["why"]["lexical"] == 1]
