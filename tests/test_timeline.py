"""A person's past by time: conversations and lone memories, and how much there was on each day."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

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
    return (await http.get("/activity", params=query, headers=who)).json()["data"]


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
