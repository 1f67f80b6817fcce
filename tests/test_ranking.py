"""What a question's time and a memory's conversation do to the order of what is found."""

import gzip
import json
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import numpy as np
import pytest

from benchmarks import conversations, measures
from core.ranking import beside, best_of_conversation, rank
from core.time_hints import period
from storage import conversation_index
from storage.analyzer import is_code, terms
from storage.change_feed import Change
from storage.conversation_index import word_scores
from storage.memory_store import Filters
from storage.packed_terms import pack
from storage.user_index import Evidence, UserIndex

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
    place = (bool(answer), "chatgpt", conversation, when, written)
    return Change(uuid4(), seq[0], False, *place, hashed, packed=pack(text, answer, when)), text


def asked(changes, query, filters=None, now=NOW):
    """Return the texts found, best first, with what was said of them."""
    index = UserIndex(0)
    index.apply([change for change, _ in changes])
    text_of = {change.id.bytes: text for change, text in changes}
    evidence = index.evidence(Counter(terms(query)), None, filters or Filters())
    found = rank(evidence, 10, period(query, now))
    ids = index.ids_of([item.slot for item in found])
    return {text_of[memory_id]: item for memory_id, item in zip(ids, found, strict=True)}


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


def test_a_title_before_an_answered_prompt_is_no_speaker():
    titled, plain = (
        said("Python: sort a list", answer="yes"),
        said("sort a Python list", answer="yes"),
    )

    found = asked([titled, plain], "Python list")

    assert len({item.score for item in found.values()}) == 1


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


def evidence_of(words, coverage, similarity, side="prompt", terms=1):
    """Of memories that stand for themselves, with all that is known of them on one side."""
    count, other = len(words), "response" if side == "prompt" else "prompt"
    return Evidence(
        terms=terms,
        allowed=np.ones(count, bool),
        keywords={side: np.array(words), other: np.zeros(count)},
        coverage=np.array(coverage),
        similarity={side: np.array(similarity), other: np.full(count, -1.0)},
        cosines=np.empty(0),
        chunk_slots=np.empty(0, int),
        occurred_at=np.zeros(count),
        answered=np.ones(count, bool),
        conversation=np.full(count, -1),
        held=np.empty((2, 0), int),
        codes=[],
        speaker_named=np.zeros(count, bool),
        order=np.arange(count),
    )


SOME_COSINES = np.random.default_rng(3).uniform(0.02, 0.3, 39)


def test_what_was_just_saved_stands_first_for_its_own_words_before_it_is_embedded():
    """Others, all embedded, have some cosine with anything; they hold none of the words."""
    evidence = evidence_of([0.0] * 39 + [7.5], [0.0] * 39 + [1.0], [*SOME_COSINES, -1])

    first, *others = rank(evidence, 10)

    assert (first.slot, first.lexical, first.dense) == (39, 1.0, None)
    assert {hit.lexical for hit in others} == {0.0}


@pytest.mark.parametrize("side", ["prompt", "response"])
def test_a_word_that_one_memory_alone_holds_brings_it_first_whatever_it_means(side):
    """An error code or a name of one's own means little to an embedder."""
    evidence = evidence_of([0.0] * 39 + [7.5], [0.0] * 39 + [1.0], [*SOME_COSINES, -0.14], side)

    first, *others = rank(evidence, 10)

    assert (first.slot, first.lexical) == (39, 1.0)
    assert [hit.dense for hit in others] == sorted(SOME_COSINES, reverse=True)[:9]


def test_a_whole_sentence_is_looked_for_by_its_meaning_too():
    evidence = evidence_of([0.0] * 39 + [7.5], [0.0] * 39 + [1.0], [*SOME_COSINES, 0], terms=12)

    first, *_ = rank(evidence, 10)

    assert first.dense == max(SOME_COSINES)


OFTEN_SAID = [said(f"why do I get an error in deploying {what}") for what in "abcdefghij"]


@pytest.mark.parametrize(
    "query",
    [
        "error ERR_7F3A91",
        "what was the quokka of ERR_7F3A91?",
        "why do I get the error ERR_7F3A91 in deploying this service to the cluster of my team?",
    ],
)
def test_a_code_brings_its_memory_first_whatever_is_said_around_it(query):
    disk = said("ERR_7F3A91 again, and it was the disk")

    found = asked([*OFTEN_SAID, disk], query)

    assert next(iter(found)) == "ERR_7F3A91 again, and it was the disk"
    assert found["ERR_7F3A91 again, and it was the disk"].relevant


def test_a_code_in_a_prompt_and_its_answer_is_held_by_one_memory():
    said_twice = [said(f"ERR_7F3A91 {what}", answer="ERR_7F3A91 says so") for what in "abc"]

    found = asked([*OFTEN_SAID, *said_twice], "the error in deploying ERR_7F3A91")

    assert [text[:10] for text in list(found)[:3]] == ["ERR_7F3A91"] * 3


def test_a_code_that_many_memories_hold_is_a_word_like_others():
    many = [said(f"ERR_7F3A91 number {n}") for n in range(4)]

    found = asked([*OFTEN_SAID, *many], "quokka ERR_7F3A91")

    assert not any(item.relevant for item in found.values())


def test_a_code_of_a_memory_that_a_filter_leaves_out_does_not_count():
    elsewhere = [said(f"ERR_7F3A91 number {n}", "b") for n in range(9)]
    here = said("ERR_7F3A91 here", "a")

    found = asked([*elsewhere, here], "quokka of ERR_7F3A91", Filters(conversation_id="a"))

    assert found["ERR_7F3A91 here"].relevant


@pytest.mark.parametrize(
    ("term", "code"),
    [
        *((term, True) for term in ("err_7f3a91", "lh454", "sha256", "7f3a91", "20931", "日本123")),
        *((term, False) for term in ("2024", "500ml", "1990s", "20th", "python3", "walrus", "")),
    ],
)
def test_what_is_made_to_name_one_thing_is_a_code(term, code):
    assert is_code(term) == code


def test_a_word_that_many_hold_leaves_it_to_the_meaning_which_of_them_comes_first():
    held = [0.0] * 29 + [1.0] * 10

    found = rank(evidence_of(held, held, SOME_COSINES), 5)

    assert [hit.dense for hit in found] == sorted(SOME_COSINES[-10:], reverse=True)[:5]


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


def test_the_benchmark_reads_chats_between_people(tmp_path):
    turns = [
        {"speaker": "Ann", "dia_id": "D1:1", "text": "Look!", "blip_caption": "a red boat"},
        {"speaker": "Ben", "dia_id": "D1:02", "text": "Nice."},
    ]
    talk = {"session_1": turns, "session_1_date_time": "1:56 pm on 8 May, 2023"}
    asked = [
        {"question": "Whose boat?", "evidence": ["D:1:1; D1:2", "D9:9"], "category": 1},
        {"question": "Nobody's?", "evidence": ["D7:1"], "category": 4},
    ]
    row = {"sample_id": "one", "conversation": talk, "qa": asked}
    (tmp_path / "people.json").write_text(json.dumps([row]))

    [conversation] = conversations.load(tmp_path)["people"]

    assert [turn.prompt for turn in conversation.turns] == [
        "Ann: Look! [shares a red boat]",
        "Ben: Nice.",
    ]
    assert conversation.turns[0].occurred_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    [question] = conversation.questions
    assert (question.category, question.turns) == ("multi-hop", {"D1:1", "D1:2"})


def test_the_benchmark_reads_chats_with_an_assistant(tmp_path):
    messages = [
        {"conv": "c", "id": n, "role": role, "date": date, "content": f"message {n}"}
        for n, (role, date) in enumerate(
            [("user", "May-01-2024"), ("assistant", "May-01-2024"), ("user", "May-09-2024")]
        )
    ]
    questions = [
        {"conv": "c", "ability": "knowledge_update", "question": "?", "source_ids": [1, 2]},
        {"conv": "c", "ability": "summarization", "question": "?", "source_ids": [0]},
    ]
    for name, rows in (("messages", messages), ("questions", questions)):
        with gzip.open(tmp_path / f"chats.{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    [conversation] = conversations.load(tmp_path)["chats"]

    assert [(turn.prompt, turn.response) for turn in conversation.turns] == [
        ("message 0", "message 1"),
        ("message 2", ""),
    ]
    [question] = conversation.questions
    assert question.turns == {"0", "2"}
    assert question.sessions == {"May-01-2024", "May-09-2024"}


def test_the_benchmark_reads_long_histories_of_one_question(tmp_path):
    said = [
        {"role": "user", "content": "I moved to Porto.", "has_answer": True},
        {"role": "assistant", "content": "Enjoy!"},
    ]
    row = {
        "question_id": "q1",
        "question_type": "single-session-user",
        "question": "Where do I live?",
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_session_ids": ["s1", "s2"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 02:21"],
        "haystack_sessions": [said, said[1:]],
        "answer_session_ids": ["s1"],
    }
    (tmp_path / "long.json").write_text(json.dumps([row]))

    [conversation] = conversations.load(tmp_path)["long"]

    texts = [(turn.session, turn.prompt, turn.response) for turn in conversation.turns]
    assert texts == [("s1", "I moved to Porto.", "Enjoy!"), ("s2", "", "Enjoy!")]
    [question] = conversation.questions
    assert (question.turns, question.sessions) == ({conversation.turns[0].label}, {"s1"})
    assert question.asked_at == datetime(2023, 5, 30, 23, 40, tzinfo=UTC)


def test_measures_of_a_ranking():
    turns = measures.of_turns(["a", "b", "c", "d", "e", "f"], frozenset("bfz"))
    sessions = measures.of_sessions(["s", "s", "t"], frozenset("tu"))

    assert (turns["R@5"], turns["R@10"], turns["hit@5"], turns["MRR"]) == (1 / 3, 2 / 3, 1.0, 0.5)
    assert 0 < turns["nDCG@10"] < 1
    assert sessions == {"any@5": 1.0, "all@5": 0.0}


def test_a_difference_of_nothing_lies_within_its_noise():
    change, low, high = measures.paired_bootstrap([1.0, 0.0] * 50, [0.0, 1.0] * 50)

    assert change == 0
    assert low < 0 < high


def test_a_query_of_thousands_of_words_takes_little_memory(monkeypatch):
    words, slots, each = 3_000, 20_000, 20
    conversation = np.arange(slots) // 2
    at = np.random.default_rng(1).integers(0, slots, words * each)
    held = np.stack([np.repeat(np.arange(words), each), at])

    tracemalloc.start()
    scores = word_scores(conversation, held)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 60 * 2**20
    monkeypatch.setattr(conversation_index, "MOST_CELLS", words * slots)
    assert (scores == word_scores(conversation, held)).all()
    assert scores.max() > 0
