"""A person finds a memory again by meaning and by words."""

import secrets
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid4

import numpy as np
import pytest

from core.snippets import snippet
from storage import analyzer
from storage.analyzer import terms
from storage.change_feed import PAGE, Change, Chunks
from storage.memory_store import Filters
from storage.packed_terms import pack
from storage.user_index import UserIndex
from tests.conftest import app_client, sign_up, until

LIBRARY = {
    "python": (
        "How do I sort a list of dicts by a key in Python code?",
        "Use sorted(rows, key=lambda row: row['age']); it is stable.",
    ),
    "decorators": (
        "Explain decorators in Python with a code example",
        "A decorator is a function that wraps another one: def log(f): ...",
    ),
    "soup": ("A recipe for lentil soup", "Fry onions, add lentils and cumin, simmer for an hour."),
    "lisbon": (
        "Plan three days in Lisbon in May",
        "Day one: Alfama and the castle. Day two: Belém and its pastries.",
    ),
    "knee": ("My knee hurts after running", "Rest it, cool it, and see a doctor if it swells."),
}


@pytest.fixture
async def meaning(settings, model_dir):
    """A client of a server with the real local model."""
    chosen = settings.model_copy(update={"embedder": "local", "model_dir": model_dir})
    async with app_client(chosen) as client:
        yield client


async def save(client, user, prompt, response=None, **more):
    body = {"prompt": prompt, "provider": "chatgpt"} | more
    saved = (await client.post("/save-prompt", json=body, headers=user)).json()["data"]
    if response:
        answer = {"memory_id": saved["memory_id"], "response": response}
        assert (await client.post("/save-response", json=answer, headers=user)).status_code == 200
    return saved["memory_id"]


async def search(client, user, query, **more):
    answer = await client.post("/search", json={"query": query} | more, headers=user)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["hits"]


async def save_library(client, user):
    ids = {}
    for name, (prompt, response) in LIBRARY.items():
        ids[await save(client, user, prompt, response)] = name

    async def embedded():
        health = (await client.get("/health")).json()["data"]
        return health["embedding"]["waiting"] == 0

    await until(embedded)
    return ids


async def test_a_search_for_python_code_finds_the_python_memories(meaning):
    user = await sign_up(meaning, "alice")
    names = await save_library(meaning, user)

    hits = await search(meaning, user, "Python code")

    relevant = [names[hit["memory"]["id"]] for hit in hits if hit["relevant"]]
    assert set(relevant) == {"python", "decorators"}
    assert {names[hit["memory"]["id"]] for hit in hits[:2]} == {"python", "decorators"}


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What should I cook tonight?", "soup"),
        ("travel to Portugal", "lisbon"),
        ("pain in the leg from jogging", "knee"),
    ],
)
async def test_other_words_for_the_same_are_found(meaning, question, name):
    user = await sign_up(meaning, "alice")
    names = await save_library(meaning, user)

    hits = await search(meaning, user, question)

    assert names[hits[0]["memory"]["id"]] == name
    assert hits[0]["why"]["dense"] > 0.2


@pytest.mark.parametrize(
    "question",
    ["How tall is Mount Kilimanjaro?", "quarterly tax return deadline", "lyrics of a lullaby"],
)
async def test_nothing_is_relevant_to_a_question_about_nothing_stored(meaning, question):
    user = await sign_up(meaning, "alice")
    await save_library(meaning, user)

    assert [hit for hit in await search(meaning, user, question) if hit["relevant"]] == []


async def test_what_an_edit_took_out_is_not_found_by_its_meaning(meaning):
    user = await sign_up(meaning, "alice")
    names = await save_library(meaning, user)
    [soup] = [memory_id for memory_id, name in names.items() if name == "soup"]
    changes = {"prompt": "The password of the wifi", "response": "It is on the fridge."}

    await meaning.patch(f"/memories/{soup}", json=changes, headers=user)

    hits = await search(meaning, user, "What should I cook tonight?", limit=100)
    dense = [hit["why"]["dense"] for hit in hits if hit["memory"]["id"] == soup]
    assert dense in ([], [None]) or dense[0] < 0.2


async def test_a_memory_is_found_by_words_right_after_its_save(client, alice):
    for n in range(20):
        memory_id = await save(client, alice, f"note number{n} about zebras")

        hits = await search(client, alice, f"number{n}")

        assert hits[0]["memory"]["id"] == memory_id
        assert [hit["relevant"] for hit in hits[:2]] in ([True], [True, False])


async def test_an_edit_and_a_delete_show_at_once(client, alice):
    memory_id = await save(client, alice, "I live in Berlin", "Nice.")
    assert await search(client, alice, "Berlin")

    await client.patch(f"/memories/{memory_id}", json={"prompt": "I live in Porto"}, headers=alice)
    assert await search(client, alice, "Berlin") == []
    assert len(await search(client, alice, "Porto")) == 1

    await client.delete(f"/memories/{memory_id}", headers=alice)
    assert await search(client, alice, "Porto") == []


async def test_the_snippet_marks_what_matched(client, alice):
    long = "filler words " * 200
    await save(client, alice, "short", f"{long} the Zanzibar ferry leaves at noon {long}")

    [hit] = await search(client, alice, "ferry to zanzibar")

    assert hit["matched"] == "response"
    marked = [part["text"] for part in hit["snippet"] if part["match"]]
    assert marked == ["Zanzibar", "ferry"]
    whole = "".join(part["text"] for part in hit["snippet"])
    assert whole in hit["memory"]["response"]
    assert len(whole) <= 240


async def test_filters_narrow_a_search(client, alice):
    kinds = {"provider": "claude", "conversation_id": "c", "occurred_at": "2024-06-01T00:00:00Z"}
    await save(client, alice, "giraffe one", **kinds)
    await save(client, alice, "giraffe two", occurred_at="2025-06-01T00:00:00Z")

    async def found(**filters):
        hits = await search(client, alice, "giraffe", **filters)
        return sorted(hit["memory"]["prompt"].removeprefix("giraffe ") for hit in hits)

    assert await found() == ["one", "two"]
    assert await found(provider="Claude") == ["one"]
    assert await found(conversation_id="c") == ["one"]
    assert await found(after="2025-01-01T00:00:00Z") == ["two"]
    assert await found(before="2025-01-01T00:00:00Z") == ["one"]
    assert await found(provider="claude", after="2025-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="empty"),
        pytest.param("  \n", id="spaces"),
        pytest.param("?!… — 🦜", id="no words"),
    ],
)
async def test_a_query_of_nothing_finds_nothing(client, alice, query):
    await save(client, alice, "a memory")

    assert await search(client, alice, query) == []


async def test_unusual_queries_are_answered(meaning):
    user = await sign_up(meaning, "alice")
    assert await search(meaning, user, "anything") == []
    await save_library(meaning, user)

    assert len(await search(meaning, user, "lentil soup " * 830)) == 5
    assert len(await search(meaning, user, "what is it that you are")) == 5


async def test_search_goes_on_by_words_when_the_embedder_is_away(settings):
    away = {"embedder": "openai:text-embedding-3-small", "openai_base_url": "http://127.0.0.1:9/v1"}
    async with app_client(settings.model_copy(update=away)) as client:
        user = await sign_up(client, "alice")
        await save(client, user, "the walrus")

        answer = await client.post("/search", json={"query": "walrus"}, headers=user)

        data = answer.json()["data"]
        assert data["semantic"] is False
        assert [hit["memory"]["prompt"] for hit in data["hits"]] == ["the walrus"]


def change(memory_id, seq, text, *, deleted=False):
    now = datetime(2025, 1, 1, tzinfo=UTC)
    packed = None if deleted else pack(text, None, now)
    return Change(
        memory_id, seq, deleted, False, "chatgpt", None, now, now, text.encode(), packed=packed
    )


def found_in(index, word):
    evidence = index.evidence(Counter(terms(word)), None, Filters())
    slots = np.flatnonzero(evidence.allowed & (evidence.keywords["prompt"] > 0))
    return [UUID(bytes=memory_id) for memory_id in index.ids_of(slots.tolist())]


def test_a_slow_reading_never_brings_a_deleted_memory_back():
    index, memory_id = UserIndex(0), uuid4()

    index.apply([change(memory_id, 7, "", deleted=True)])
    index.apply([change(memory_id, 3, "ghost")])

    assert found_in(index, "ghost") == []
    assert index.change_seq == 7


def test_a_slow_reading_never_undoes_an_edit():
    index, memory_id = UserIndex(0), uuid4()

    index.apply([change(memory_id, 5, "newer")])
    index.apply([change(memory_id, 4, "older")])

    assert (found_in(index, "newer"), found_in(index, "older")) == ([memory_id], [])


async def test_a_cache_from_before_a_purge_or_a_restore_starts_anew(client, alice, database):
    gone = await save(client, alice, "purged walrus")
    await save(client, alice, "kept walrus")
    assert len(await search(client, alice, "walrus")) == 2

    # As a purge would: the row and its tombstone vanish, and user_state says up to where.
    await database.execute("DELETE FROM memory_layer.memories WHERE id = $1", gone)
    assert len(await search(client, alice, "walrus")) == 1
    await save(client, alice, "walrus three")
    await database.execute("UPDATE memory_layer.user_state SET purged_through = change_seq + 5")
    await database.execute("UPDATE memory_layer.user_state SET change_seq = change_seq + 9")
    prompts = [hit["memory"]["prompt"] for hit in await search(client, alice, "walrus")]
    assert sorted(prompts) == ["kept walrus", "walrus three"]

    # As a restore of an older backup would: numbers begin again in another epoch.
    await database.execute("DELETE FROM memory_layer.memories")
    await database.execute(
        "UPDATE memory_layer.user_state SET change_seq = 0, purged_through = 0,"
        " epoch = gen_random_uuid()"
    )
    await save(client, alice, "after the restore")
    assert await search(client, alice, "walrus") == []
    assert len(await search(client, alice, "restore")) == 1


async def test_a_purge_beyond_all_that_is_left_does_not_keep_a_search_busy(client, alice, database):
    for n in range(PAGE + 30):
        await save(client, alice, f"walrus {n}")
    await database.execute(
        "UPDATE memory_layer.user_state SET purged_through = 5000, change_seq = 5000"
    )

    for _ in range(2):
        assert len(await search(client, alice, "walrus", limit=100)) == 100


def test_a_text_of_hashes_is_analysed_in_a_moment():
    counted = []
    for text in (secrets.token_hex(8_000), " ".join(secrets.token_hex(4) for _ in range(1_000))):
        counted.append(len(terms(text)))

    # One term a hash, where its parts would be thousands.
    assert counted[0] == 1
    assert counted[1] <= 3_000


def test_words_that_were_not_known_are_taken_in_with_the_next_change():
    index, memory_id = UserIndex(0), uuid4()
    unknown, known = change(memory_id, 3, "walrus"), change(memory_id, 5, "walrus")
    unknown.packed = None

    index.apply([unknown])
    index.apply([known])

    assert found_in(index, "walrus") == [memory_id]


def test_vectors_of_what_was_deleted_leave_the_cache_and_all_others_stay():
    ids, vectors = [uuid4() for _ in range(1_500)], np.eye(1_500, 256, dtype=np.float32)
    vectors[-1], sides = 1 / 16, np.zeros(1_500, np.int8)
    index = UserIndex(256)
    chunks = Chunks([each.bytes for each in ids], sides, sides, sides, vectors)
    index.apply([change(each, n, f"note {n}") for n, each in enumerate(ids, 1)], chunks)
    before = index.nbytes

    gone = enumerate(ids[:-1], len(ids) + 1)
    index.apply([change(each, seq, "", deleted=True) for seq, each in gone])
    index.tidy()

    assert index.vectors == 1
    assert index.nbytes < before / 2
    evidence = index.evidence(Counter(), vectors[-1], Filters())
    assert evidence.allowed.nonzero()[0].tolist() == [1_499]
    assert evidence.similarity["prompt"][-1] == pytest.approx(1, abs=0.02)


def test_as_many_words_are_remembered_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(analyzer, "MOST_WORDS", 3)
    remembered = analyzer.Remembered(str.upper)

    made = [remembered[word] for word in ("one", "two", "three", "four", "one", "x" * 65)]

    assert made == ["ONE", "TWO", "THREE", "FOUR", "ONE", "X" * 65]
    assert set(remembered) == {"four", "one"}


def test_a_long_text_without_spaces_is_found_by_what_stands_at_its_end():
    text = "我昨天去了北京动物园" * 10 + "最后我们看到了海象"

    assert set(terms("海象")) <= set(terms(text))


def test_a_growing_answer_does_not_let_the_cache_grow_without_end():
    index, memory_id = UserIndex(0), uuid4()

    sizes = []
    for seq in range(1, 3_000):
        index.apply([change(memory_id, seq, f"version {seq}")])
        index.tidy()
        sizes.append(index.nbytes)

    assert max(sizes) <= 2 * max(sizes[:500])
    assert found_in(index, "2999") == [memory_id]
    assert found_in(index, "2998") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        pytest.param("Die Häuser stehen am Fluß", "haus häuser fluss", id="German"),
        pytest.param("¿Dónde está la estación?", "estacion", id="Spanish"),
        pytest.param("Я купил новые книги", "книга", id="Russian"),
        pytest.param("我昨天去了北京动物园", "动物园", id="Chinese"),
        pytest.param("東京タワーに行きました", "東京", id="Japanese"),
        pytest.param("قرأت الكتاب أمس", "كتاب", id="Arabic"),
        pytest.param("call getUserName() in user_profile.py", "user name profile", id="code"),
    ],
)
def test_words_of_many_languages_meet(text, query):
    assert set(terms(query)) & set(terms(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Müller größer", ["muller", "grosser"]),
        ("Łódź año đường", ["lodz", "ano", "duong"]),
        ("naïveBayes", ["naiv", "bay", "naivebay"]),
        ("東京のMüller", ["東京", "京の", "muller"]),
        ("cafe\u0301 café", ["cafe", "cafe"]),
        ("чайный", ["чайн"]),
    ],
)
def test_a_letter_with_a_mark_does_not_part_a_word(text, expected):
    assert terms(text) == expected


def test_a_snippet_of_a_short_text_is_all_of_it():
    parts = snippet("Sorting lists", {"sort"}, None)

    assert [(part.text, part.match) for part in parts] == [("Sorting", True), (" lists", False)]


def test_a_word_is_marked_as_a_whole_and_not_inside_another():
    parts = snippet("a cart, party: art and smart ART", {"art"}, None)

    assert "".join("*" * len(part.text) if part.match else part.text for part in parts) == (
        "a cart, party: *** and smart ***"
    )
