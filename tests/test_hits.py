"""What was said twice is shown once, and of two answers the newer stands first."""

import pytest

from .test_search import meaning as meaning
from .test_search import save, search

LONG = " ".join(f"The {word} of the plan is written down here." for word in ["aim", "cost", "end"])


def texts(hits):
    return [hit["memory"]["prompt"] for hit in hits]


async def test_a_text_saved_twice_is_shown_once_and_names_the_other(client, alice):
    first = await save(client, alice, LONG, occurred_at="2025-01-01T00:00:00Z")
    second = await save(client, alice, LONG + " Yes.", occurred_at="2025-02-01T00:00:00Z")

    (hit,) = await search(client, alice, "aim of the plan")

    assert hit["memory"]["id"] == second
    assert hit["duplicates"] == [first]
    assert (await client.get(f"/memories/{first}", headers=alice)).status_code == 200


async def test_what_duplicates_leave_free_is_filled_with_the_next_hits(client, alice):
    for _ in range(4):
        await save(client, alice, LONG)
    await save(client, alice, "A plan of another kind")

    hits = await search(client, alice, "plan", limit=2)

    assert sorted(len(hit["duplicates"]) for hit in hits) == [0, 3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompt": f"{LONG} Invoice 17"}, {"prompt": f"{LONG} Invoice 18"}),
        ({"prompt": LONG, "response": "Go."}, {"prompt": LONG, "response": "Stay at home."}),
        ({"prompt": "plan"}, {"prompt": "plan of the year"}),
    ],
    ids=["another number", "another answer", "more words"],
)
async def test_what_differs_is_shown_for_itself(client, alice, one, other):
    await save(client, alice, **one)
    await save(client, alice, **other)

    hits = await search(client, alice, "plan")

    assert len(hits) == 2
    assert all(hit["duplicates"] == [] for hit in hits)


@pytest.mark.parametrize(
    ("old", "new", "query"),
    [
        ("I work at Acme", "I work at Globex now", "Where do I work?"),
        (
            "My favourite colour is blue, my favourite colour of all",
            "My favourite colour is green now",
            "favourite colour",
        ),
        ("Ich wohne in Berlin", "Ich wohne jetzt in Hamburg", "Wo wohne ich?"),
        ("Our database is Postgres 15", "Our database is Postgres 17", "Which database is ours?"),
    ],
)
async def test_of_two_answers_the_newer_comes_first_and_the_older_says_so(
    client, alice, old, new, query
):
    older = await save(client, alice, old, occurred_at="2024-01-01T00:00:00Z")
    newer = await save(client, alice, new, occurred_at="2025-01-01T00:00:00Z")

    hits = await search(client, alice, query)

    assert [hit["memory"]["id"] for hit in hits] == [newer, older]
    assert [hit["newer"] for hit in hits] == [None, newer]


async def test_the_newest_of_three_answers_leads_and_both_others_name_it(client, alice):
    ids = [
        await save(client, alice, f"I live in {city}", occurred_at=f"202{n}-01-01T00:00:00Z")
        for n, city in enumerate(("Rome", "Lisbon", "Oslo"))
    ]

    hits = await search(client, alice, "Where do I live?")

    assert hits[0]["memory"]["id"] == ids[2]
    assert [hit["newer"] for hit in hits] == [None, ids[2], ids[2]]


async def test_things_that_only_share_a_word_are_no_answers_to_the_same(meaning):
    from tests.conftest import sign_up

    user = await sign_up(meaning, "carol")
    old = "I work best in the early morning, before the children wake up and want breakfast"
    await save(meaning, user, old, occurred_at="2024-01-01T00:00:00Z")
    await save(meaning, user, "Does this work?", occurred_at="2025-01-01T00:00:00Z")

    hits = await search(meaning, user, "When do I work best?")

    assert texts(hits)[0] == old
    assert [hit["newer"] for hit in hits] == [None, None]


async def test_who_names_a_time_gets_what_was_true_then(client, alice):
    older = await save(client, alice, "I work at Acme", occurred_at="2024-03-01T00:00:00Z")
    await save(client, alice, "I work at Globex now", occurred_at="2025-03-01T00:00:00Z")

    hits = await search(client, alice, "Where did I work in March 2024?")

    assert hits[0]["memory"]["id"] == older
    assert hits[0]["newer"] is None
