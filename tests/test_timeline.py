"""A person's past by time: conversations and lone memories, and how much there was on each day."""

import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from core.activity import MOST_KEPT, Activities
from storage.database import open_pool

NOW = datetime.now(UTC).replace(microsecond=0)


async def save(http, who, text, days_ago, **more):
    at = (NOW - timedelta(days=days_ago)).isoformat()
    body = {"prompt": text, "provider": "claude", "occurred_at": at} | more
    return (await http.post("/save-prompt", json=body, headers=who)).json()["data"]["memory_id"]


async def timeline(http, who, **query):
    answer = await http.get("/timeline", params=query, headers=who)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def activity(http, who, **query):
    answer = await http.get("/activity", params=query, headers=who)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@asynccontextmanager
async def counting_anew(server, http, who):
    """A call that counts as a server just started does, in the shape of `/activity`."""
    user_id = UUID((await http.get("/auth/v1/user", headers=who)).json()["id"])
    async with open_pool(server.database_url, 1, 1) as pool:

        async def count(zone):
            found = await Activities(pool).of(user_id, zone)
            assistants = [{"provider": p, "memories": n} for p, n in found.assistants.items()]
            days = [{"day": str(day), "memories": n} for day, n in found.days.items()]
            return {"assistants": assistants, "days": days}

        yield count


def ordered(counted):
    """Assistants with as many memories as each other may come in any order."""
    key = lambda one: (-one["memories"], one["provider"])  # noqa: E731
    return counted | {"assistants": sorted(counted["assistants"], key=key)}


async def test_conversations_and_lone_memories_come_by_their_last_word(http, ann):
    await save(http, ann, "first of the walrus", 5, conversation_id="c1")
    last = await save(
        http, ann, "more of it", 1, conversation_id="c1", conversation_title="The walrus"
    )
    alone = await save(http, ann, "a note of its own", 3)
    await save(http, ann, "another site's", 4, conversation_id="c1", provider="grok")

    found = await timeline(http, ann)

    seen = [(e["provider"], e["memory_id"], e["memories"], e["title"]) for e in found["entries"]]
    assert seen[:2] == [("claude", last, 2, "The walrus"), ("claude", alone, 1, None)]
    assert seen[2][0] == "grok"
    assert len(seen) == 3
    assert [e["opening"] for e in found["entries"]] == [
        "first of the walrus",
        "a note of its own",
        "another site's",
    ]
    assert found["entries"][0]["first_at"].startswith((NOW - timedelta(days=5)).isoformat()[:19])
    assert found["entries"][1]["conversation_id"] is None


async def test_pages_hold_each_entry_once_also_where_times_are_equal(http, ann):
    for n in range(9):
        await save(http, ann, f"note {n}", n // 3, conversation_id=f"c{n % 4}" if n % 2 else None)
    whole = (await timeline(http, ann, limit=100))["entries"]

    pages, cursor = [], None
    while True:
        page = await timeline(http, ann, limit=2, **({"cursor": cursor} if cursor else {}))
        pages += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert pages == whole
    assert all(a["last_at"] >= b["last_at"] for a, b in pairwise(whole))
    assert sum(e["memories"] for e in whole) == 9


async def test_a_moment_shows_what_was_last_said_before_it(http, ann):
    early = await save(http, ann, "long ago", 9, conversation_id="c1")
    await save(http, ann, "today", 0, conversation_id="c1")
    await save(http, ann, "new", 0)

    found = await timeline(http, ann, before=(NOW - timedelta(days=2)).isoformat())

    assert [e["memory_id"] for e in found["entries"]] == [early]
    assert [e["memory_id"] for e in (await timeline(http, ann, provider="grok"))["entries"]] == []


async def test_what_was_deleted_is_in_no_picture(http, ann):
    kept = await save(http, ann, "kept", 2, conversation_id="c1")
    gone = await save(http, ann, "gone", 1, conversation_id="c1")
    await http.delete(f"/memories/{gone}", headers=ann)

    [entry] = (await timeline(http, ann))["entries"]

    assert (entry["memory_id"], entry["memories"]) == (kept, 1)
    assert (await activity(http, ann))["assistants"] == [{"provider": "claude", "memories": 1}]


async def test_days_are_those_of_the_persons_time_zone(http, ann):
    day = (NOW - timedelta(days=40)).date()
    late = datetime(day.year, day.month, day.day, 23, 30, tzinfo=UTC).isoformat()
    await save(http, ann, "late in the evening", 0, occurred_at=late)
    await save(http, ann, "years ago", 900, provider="gemini")
    await save(http, ann, "by a clock that is fast", -3, provider="gemini")

    here = await activity(http, ann)
    there = await activity(http, ann, zone="Asia/Kolkata")

    assert here["days"] == [{"day": day.isoformat(), "memories": {"claude": 1}}]
    tomorrow = (day + timedelta(days=1)).isoformat()
    assert there["days"] == [{"day": tomorrow, "memories": {"claude": 1}}]
    assert {one["provider"]: one["memories"] for one in here["assistants"]} == {
        "claude": 1,
        "gemini": 2,
    }


class Past:
    """Somebody's saves, edits, deletions and purges, drawn from a seed."""

    def __init__(self, http, who, seed):
        self.http, self.who, self.draw = http, who, random.Random(seed)
        self.ids, self.waiting = [], []

    def moment(self):
        days = self.draw.choice((0, 1, 1, 2, 30, 200, 371, 372, 900, -2, -30))
        return (NOW - timedelta(days=days, hours=self.draw.randrange(24))).isoformat()

    async def goes_on(self):
        deeds = (self.prompt, self.prompt, self.answer, self.late_prompt, self.late_prompt)
        more = (self.reply, self.edit, self.delete, self.restore, self.purge)
        for deed in self.draw.choices(deeds + more, k=self.draw.choice((1, 1, 3))):
            await deed()

    async def send(self, method, path, **body):
        answer = await self.http.request(method, path, headers=self.who, json=body or None)
        assert answer.status_code in (200, 201, 404, 409), answer.text

    async def prompt(self, memory_id=None):
        self.ids.append(memory_id or str(uuid4()))
        provider = self.draw.choice(("claude", "grok"))
        body = {"id": self.ids[-1], "prompt": "A question", "provider": provider}
        await self.send("POST", "/save-prompt", **body, occurred_at=self.moment())

    async def answer(self):
        """It comes before its prompt, which knows better when it was."""
        self.waiting.append(str(uuid4()))
        told = {"occurred_at": self.moment()} if self.draw.random() < 0.5 else {}
        body = {"memory_id": self.waiting[-1], "response": "An answer", "provider": "grok"}
        await self.send("POST", "/save-response", **body, **told)

    async def late_prompt(self):
        if self.waiting:
            await self.prompt(self.waiting.pop())

    async def reply(self):
        """The answer's word about who gave it counts."""
        if self.ids:
            body = {"memory_id": self.draw.choice(self.ids), "response": "So", "provider": "mcp"}
            await self.send("POST", "/save-response", **body)

    async def edit(self):
        await self.of_one("PATCH", "/memories/{}", prompt=f"Edited {self.draw.random()}")

    async def delete(self):
        await self.of_one("DELETE", "/memories/{}")

    async def restore(self):
        await self.of_one("POST", "/trash/{}/restore")

    async def purge(self):
        await self.delete()
        await self.of_one("DELETE", "/trash/{}")

    async def of_one(self, method, path, **body):
        if self.ids:
            await self.send(method, path.format(self.draw.choice(self.ids)), **body)


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_counted_before_is_what_is_counted_anew(module_server, http, ann, seed):
    past = Past(http, ann, seed)
    async with counting_anew(module_server, http, ann) as anew:
        for _ in range(30):
            await past.goes_on()
            for zone in ("UTC", "America/St_Johns"):
                counted = await activity(http, ann, zone=zone)

                assert ordered(counted) == ordered(await anew(zone))


async def test_an_hour_that_comes_twice_at_midnight_belongs_to_one_day(module_server, http, ann):
    """On the Azores clocks go back from one o'clock to midnight."""
    azores = ZoneInfo("Atlantic/Azores")
    hours = (NOW.replace(minute=30, second=0) - timedelta(hours=n) for n in range(370 * 24))
    twice = next(
        at
        for at in hours
        if at.astimezone(azores).hour == 0
        and at.astimezone(azores).utcoffset()
        > (at + timedelta(hours=1)).astimezone(azores).utcoffset()
    )
    async with counting_anew(module_server, http, ann) as anew:
        assert (await activity(http, ann, zone="Atlantic/Azores"))["days"] == []
        for hours_later in (0, 1, -1):
            at = (twice + timedelta(hours=hours_later)).isoformat()
            await save(http, ann, "at night", 0, occurred_at=at)

            counted = await activity(http, ann, zone="Atlantic/Azores")
            assert counted == await anew("Atlantic/Azores")


async def test_an_unchanged_past_is_not_counted_again(http, ann, module_server):
    await save(http, ann, "kept", 1)
    before = await activity(http, ann)
    async with open_pool(module_server.database_url, 1, 1) as pool, pool.acquire() as conn:
        await conn.execute("UPDATE memory_layer.memories SET provider = 'x' WHERE prompt = 'kept'")

    assert await activity(http, ann) == before
    await save(http, ann, "another day", 9)
    assert {day["day"] for day in before["days"]} < {
        day["day"] for day in (await activity(http, ann))["days"]
    }
    assert (await activity(http, ann))["assistants"] == [{"provider": "claude", "memories": 2}]


async def test_who_is_erased_or_was_long_away_is_not_remembered(database_url):
    people = [uuid4() for _ in range(MOST_KEPT + 5)]
    async with open_pool(database_url, 1, 1) as pool:
        activities = Activities(pool)
        for user_id in people:
            await activities.of(user_id, "UTC")
        kept = {user_id for user_id, _ in activities._kept}
        assert kept == set(people[5:])

        activities.forget(people[-1])

        assert {user_id for user_id, _ in activities._kept} == kept - {people[-1]}


async def test_a_time_zone_that_does_not_exist_is_told(http, ann):
    await save(http, ann, "a day to count", 0)
    for zone in ("Europe/Atlantis", "'; DROP TABLE x", "A" * 65, "", "+01:00"):
        answer = await http.get("/activity", params={"zone": zone}, headers=ann)

        assert answer.status_code == 400, zone
        assert answer.json()["error_code"] == "INVALID_INPUT"


async def test_a_conversation_is_read_from_a_moment_on(http, ann):
    for n in range(4):
        await save(http, ann, f"turn {n}", 4 - n, conversation_id="c1")
    after = (NOW - timedelta(days=2)).isoformat()

    answer = await http.get("/conversations/c1", params={"after": after}, headers=ann)

    texts = [memory["prompt"] for memory in answer.json()["data"]["memories"]]
    assert texts == ["turn 2", "turn 3"]
