"""An operator sees, without any content, when a site can no longer be read."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.conftest import ADMIN_KEY

TODAY = datetime.now(UTC).date()
INSTALLATION = str(uuid4())


def health(*days, installation=INSTALLATION, version="0.1.0"):
    return {"installation": installation, "version": version, "days": list(days)}


def counted(site="chatgpt", day=TODAY, **counts):
    return {"day": day.isoformat(), "site": site} | counts


async def kept(database):
    return [
        dict(row)
        for row in await database.fetch(
            "SELECT site, network, dom, missed FROM memory_layer.capture_health ORDER BY 1, 2"
        )
    ]


async def send(client, headers, body):
    answer = await client.post("/capture-health", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_totals_sent_twice_or_too_late_change_nothing(client, alice, database):
    await send(client, alice, health(counted(network=3), counted("grok", dom=1, missed=1)))
    await send(client, alice, health(counted(network=5)))
    await send(client, alice, health(counted(network=3)))

    assert await kept(database) == [
        {"site": "chatgpt", "network": 5, "dom": 0, "missed": 0},
        {"site": "grok", "network": 0, "dom": 1, "missed": 1},
    ]


async def test_two_browsers_are_counted_apart(client, alice, database):
    await send(client, alice, health(counted(network=3)))
    await send(client, alice, health(counted(network=2), installation=str(uuid4())))

    assert [row["network"] for row in await kept(database)] == [2, 3]


async def test_a_day_that_is_named_twice_counts_once(client, alice, database):
    await send(client, alice, health(counted(network=3), counted(network=4)))

    assert [row["network"] for row in await kept(database)] == [4]


async def test_a_person_cannot_fill_the_table(client, alice, database):
    for _ in range(25):
        sites = [counted(site) for site in ("chatgpt", "claude", "gemini", "grok", "xgrok")]
        await send(client, alice, health(*sites, installation=str(uuid4())))

    assert len(await kept(database)) <= 105


async def test_what_is_old_is_forgotten(client, alice, database):
    await send(client, alice, health(counted(network=1)))
    await database.execute("UPDATE memory_layer.capture_health SET day = current_date - 31")
    await send(client, alice, health())

    assert await kept(database) == []


@pytest.mark.parametrize(
    "body",
    [
        health(counted("elsewhere")),
        health(counted(network=-1)),
        health(counted(day=TODAY - timedelta(days=31))),
        health(counted(day=TODAY + timedelta(days=2))),
        health(*[counted()] * 41),
        health(version="<script>"),
        health(installation="nobody"),
    ],
    ids=["site", "count", "past", "future", "many", "version", "installation"],
)
async def test_nonsense_is_refused(client, alice, database, body):
    answer = await client.post("/capture-health", json=body, headers=alice)

    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_INPUT")
    assert await kept(database) == []


async def test_reporting_is_free(client, alice):
    await send(client, alice, health(counted(network=1)))

    usage = (await client.get("/usage", headers=alice)).json()["data"]

    assert usage["day"]["used"] == 0


async def test_usage_says_whose_token_it_is(client, alice):
    user = (await client.get("/auth/v1/user", headers=alice)).json()
    made = await client.post(
        "/tokens", json={"name": "a browser", "scopes": ["read", "write"]}, headers=alice
    )
    token = {"Authorization": f"Bearer {made.json()['data']['token']}"}

    usage = (await client.get("/usage", headers=token)).json()["data"]

    assert usage["user_id"] == user["id"]


async def test_the_panel_adds_everybody_up_by_site_and_day(client, alice, bob):
    yesterday = TODAY - timedelta(days=1)
    for person in (alice, bob):
        days = [counted(network=3), counted(day=yesterday, network=2, dom=1, missed=1)]
        await send(client, person, health(*days))

    answer = await client.get("/admin/api/overview", headers={"X-Admin-Key": ADMIN_KEY})

    seen = [
        (row["day"], row["site"], row["network"], row["dom"], row["missed"])
        for row in answer.json()["data"]["capture"]
    ]
    assert seen == [
        (yesterday.isoformat(), "chatgpt", 4, 2, 2),
        (TODAY.isoformat(), "chatgpt", 6, 0, 0),
    ]
