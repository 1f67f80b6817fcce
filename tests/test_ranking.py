"""What a question's time and a memory's conversation do to the order of what is found."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import numpy as np
import pytest

from core.ranking import beside, best_of_conversation, rank
from core.time_hints import period
from storage.analyzer import terms
from storage.change_feed import Change
from storage.memory_store import Filters
from storage.user_index import UserIndex

from .test_search import save, search

# A Wednesday.
NOW = datetime(2025, 6, 18, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "start", "stop"),
    [
        ("what did I plan on 2025-05-08?", "2025-05-08", "2025-05-09"),
        ("the talk of 8 May 2023", "2023-05-08", "2023-05-09"),
        ("the talk on the 8th of May", "2025-05-08", "2025-05-09"),
        ("what happened on May 8, 2023", "2023-05-08", "2023-05-09"),
        ("who called on Dec 24?", "2024-12-24", "2024-12-25"),
        ("trips in May 2023", "2023-05-01", "2023-06-01"),
        ("trips in December 2023", "2023-12-01", "2024-01-01"),
        ("what did I ask last March?", "2025-03-01", "2025-04-01"),
        ("what did I read in August", "2024-08-01", "2024-09-01"),
        ("the two ideas from two days ago", "2025-06-16", "2025-06-17"),
        ("two weeks ago we spoke of soup", "2025-06-01", "2025-06-08"),
        ("a couple of weeks ago", "2025-06-01", "2025-06-08"),
        ("what I wrote yesterday", "2025-06-17", "2025-06-18"),
        ("what I wrote today", "2025-06-18", "2025-06-19"),
        ("the recipe from last week", "2025-06-09", "2025-06-16"),
        ("what did I spend this month", "2025-06-01", "2025-07-01"),
        ("my goals of last year", "2024-01-01", "2025-01-01"),
        ("what did we decide last Friday?", "2025-06-13", "2025-06-14"),
        ("what did we decide on Wednesday?", "2025-06-11", "2025-06-12"),
        ("books I read in 2022", "2022-01-01", "2023-01-01"),
    ],
)
def test_a_question_names_a_time(query, start, stop):
    found = period(query, NOW)

    assert found is not None
    assert [f"{moment:%Y-%m-%d}" for moment in found] == [start, stop]
    assert all(moment.utcoffset() == timedelta(0) for moment in found)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "what may I eat?",
        "how do I march in step?",
        "the second of them",
        "on 31 February",
        "in the last 20 pages",
        "python 2023",
        "9999 years ago",
        "what is a week",
    ],
)
def test_a_question_of_no_time_names_none(query):
    assert period(query, NOW) is None


def test_only_neighbours_of_the_same_conversation_lend_their_score():
    score = np.array([1.0, 0.0, 0.0, 0.0])
    conversation = np.array([0, 1, 0, -1])

    shares = beside(score, np.array([0, 2, 1]), conversation)

    assert shares[2] > 0
    assert shares[[0, 1, 3]].tolist() == [0, 0, 0]


def test_nearer_neighbours_lend_more():
    shares = beside(np.array([0.0, 0, 1, 0]), np.arange(4), np.zeros(4, dtype=int))

    assert shares[1] == shares[3] > shares[0] > 0


def test_a_conversation_is_as_good_as_its_best_memories():
    score = np.array([0.9, 0.6, 0.3, 0.3, 0.1, 0.8])
    conversation = np.array([0, 0, 0, 0, 1, -1])

    best = best_of_conversation(score, conversation)

    assert best.tolist() == pytest.approx([0.6, 0.6, 0.6, 0.6, 0.1 / 3, 0.0])


def said(text, conversation=None, answer=None, days=0, seq=[0]):  # noqa: B006
    seq[0] += 1
    when = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=days)
    written = when + timedelta(seconds=seq[0])
    hashed = f"{seq[0]:032}".encode()
    texts = (text, answer, "chatgpt", conversation)
    return Change(uuid4(), seq[0], False, *texts, when, hashed, written)


def asked(changes, query, filters=None, now=NOW):
    """Return the texts found, best first, with what was said of them."""
    index = UserIndex(0)
    index.apply(changes, [])
    text_of = {change.id: change.prompt for change in changes}
    evidence = index.evidence(Counter(terms(query)), None, filters or Filters())
    found = rank(evidence, 10, period(query, now))
    return {text_of[index.ids[item.slot]]: item for item in found}


def test_of_two_alike_the_one_said_among_its_subject_comes_first():
    chat = ["we sail to Crete", "the ferry was late", "the harbour of Crete was full"]
    alone = said("the ferry was late!", "elsewhere")

    found = asked([*(said(text, "crete") for text in chat), alone], "ferry to Crete")

    order = list(found)
    assert order.index("the ferry was late") < order.index("the ferry was late!")
    assert found["the ferry was late"].conversation > found["the ferry was late!"].conversation


def test_the_order_in_which_a_conversation_was_embedded_changes_nothing():
    chat = [said(text, "c") for text in ("a ferry", "to eat", "the harbour", "a harbour ferry")]
    forwards = asked(chat, "ferry harbour")

    backwards = asked(chat[::-1], "ferry harbour")

    assert {text: item.score for text, item in forwards.items()} == {
        text: item.score for text, item in backwards.items()
    }


def test_a_prompt_that_was_answered_stands_for_itself():
    chat = [said("a ferry", "c", "yes"), said("the ferry to Crete", "c", "no")]

    found = asked(chat, "ferry Crete")

    assert [item.conversation for item in found.values()] == [0, 0]


def test_who_is_named_is_looked_for_as_the_one_who_spoke():
    turns = [
        said("Berta: I met Anna Maria about the ferry"),
        said("Anna: I met Berta at the ferry"),
    ]

    assert next(iter(asked(turns, "what did anna say of the ferry"))).startswith("Anna")
    assert next(iter(asked(turns, "what did Berta say of the ferry"))).startswith("Berta")


def test_the_time_a_question_names_puts_its_memories_first_and_hides_no_others():
    early, late = said("the ferry ticket", days=90), said("a ferry ticket", days=150)

    found = asked([early, late], "the ferry two months ago", now=NOW - timedelta(days=20))

    assert list(found) == ["the ferry ticket", "a ferry ticket"]
    assert [item.time > 0 for item in found.values()] == [True, False]


def test_a_memory_is_found_by_the_month_it_is_of():
    winter, spring = said("we bought a boat"), said("we bought a bicycle", days=100)

    assert list(asked([winter, spring], "in April 2025")) == [
        "we bought a bicycle",
        "we bought a boat",
    ]


def test_a_filter_leaves_nothing_of_other_conversations_in_the_score():
    chat = [said("the ferry", "a"), said("Crete and the ferry", "b")]

    found = asked(chat, "ferry Crete", Filters(conversation_id="a"))

    assert list(found) == ["the ferry"]


async def test_a_search_says_what_time_and_conversation_added(client, alice):
    for text in ("we sail to Crete", "the ferry was late"):
        await save(client, alice, text, conversation_id="crete", occurred_at="2023-05-08T10:00:00Z")
    await save(client, alice, "a ferry ticket", occurred_at="2024-01-01T10:00:00Z")

    hits = await search(client, alice, "the Crete ferry in May 2023")

    why = {hit["memory"]["prompt"]: hit["why"] for hit in hits}
    assert why["the ferry was late"]["time"] > 0
    assert why["the ferry was late"]["conversation"] > 0
    assert (why["a ferry ticket"]["time"], why["a ferry ticket"]["conversation"]) == (0, 0)
