"""Whatever becomes of a cache, a search finds the same as if every row had been looked at."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest

from core import memories, trash
from core.capture import Capture
from core.embed_local import LocalEmbedder
from core.embedding_worker import EmbeddingWorker
from core.embeddings import Span, Vectors
from core.retrieval import Retrieval
from core.save_queue import write_together
from core.user_caches import UserCaches
from storage import analyzer, change_feed, database_search, embedding_queue, keyword_store
from storage.change_feed import Position
from storage.database import acting_as, open_pool
from storage.memory_store import Filters
from storage.packed_terms import hashes_of
from storage.rare_words import RARE
from storage.vector_index import MOST_FLAT, VectorIndex
from tests.conftest import until
from tests.test_replicas import pool
from tests.test_search import LIBRARY

__all__ = ["pool"]
DIMENSIONS = 48
PLENTY = 2**30
GONE = "note 5 about subject5"
QUESTIONS = (
    "sort a list in Python code",
    "What should I cook tonight?",
    "three days in Portugal in May",
    "my leg hurts",
    "lentil soup recipe",
    "",
)


class Near:
    """Knows nothing of words: "near 7" is close to the seventh of its vectors."""

    name, dimensions = "test:near", DIMENSIONS

    def __init__(self, count: int) -> None:
        drawn = np.random.default_rng(7).standard_normal((count, DIMENSIONS)).astype(np.float32)
        self.vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def split(self, text: str, most: int) -> list[Span]:
        return [Span(0, len(text))]

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        around = np.random.default_rng(3).standard_normal(DIMENSIONS) / 12
        near = [self.vectors[int(text.split()[-1])] + around for text in texts]
        return np.array([v / np.linalg.norm(v) for v in near], np.float32)

    async def aclose(self) -> None:
        pass


async def remember(database: asyncpg.Connection, near: Near) -> UUID:
    """A person with a memory for each vector, as a service before packed words left them."""
    user_id = uuid4()
    start = datetime(2024, 1, 1, tzinfo=UTC)
    ids = [UUID(int=(n + 1) << 80 | user_id.int & (1 << 80) - 1) for n in range(len(near.vectors))]
    texts = [f"note {n} about subject{n % 97}" for n in range(len(ids))]
    await database.execute("SET search_path = memory_layer, public")
    await database.execute("INSERT INTO user_state VALUES ($1, $2)", user_id, len(ids))
    await database.copy_records_to_table(
        "memories",
        schema_name="memory_layer",
        columns=["user_id", "id", "prompt", "status", "provider", "content_hash", "occurred_at",
                 "change_seq", "embedding_state", "embedding_model"],
        records=[
            (user_id, i, text, "waiting", "chatgpt", text.encode(), start + timedelta(hours=n),
             n + 1, "done", near.name)
            for n, (i, text) in enumerate(zip(ids, texts, strict=True))
        ],
    )  # fmt: skip
    await database.execute(
        "INSERT INTO chunks SELECT $1, id, $2, 0, 'prompt', 0, 4, vector::vector"
        " FROM unnest($3::uuid[], $4::text[]) AS c (id, vector)",
        user_id,
        near.name,
        ids,
        [str(v.tolist()) for v in near.vectors],
    )
    return user_id


async def found(retrieval: Retrieval, user_id: UUID, query: str, limit: int = 10):
    recall = await retrieval.recall(user_id, query, limit, Filters())
    return [(hit.memory.prompt, round(hit.score, 3), hit.relevant) for hit in recall.hits]


async def loaded(retrieval: Retrieval, user_id: UUID) -> None:
    async def is_loaded() -> bool:
        return retrieval.caches.of(user_id).at.epoch is not None

    await until(is_loaded)


async def test_a_person_with_many_memories_finds_what_an_exact_search_finds(pool, database):
    near = Near(12_500)
    user_id = await remember(database, near)
    cached, exact = (
        Retrieval(pool, near, PLENTY),
        Retrieval(pool, near, PLENTY, cached=False, hurry=60),
    )

    agreed = []
    for n in range(0, 12_500, 2_500):
        mine, true = (
            await found(cached, user_id, f"note {n}"),
            await found(exact, user_id, f"note {n}"),
        )
        assert f"note {n} about subject{n % 97}" in [hit[0] for hit in mine]
        agreed.append(len({hit[0] for hit in mine} & {hit[0] for hit in true}) / 10)

    index = cached.caches.of(user_id).index
    assert index.vectors == 12_500 > MOST_FLAT
    assert np.mean(agreed) >= 0.99
    assert await database.fetchval("SELECT count(*) FROM keywords") == 12_500
    for retrieval in (cached, exact):
        retrieval.close()


async def test_a_search_is_answered_while_its_cache_is_still_being_loaded(pool, database):
    near = Near(3_000)
    user_id = await remember(database, near)
    hurried = Retrieval(pool, near, PLENTY, patience=0, hurry=60)
    patient = Retrieval(pool, near, PLENTY)

    at_once = await found(hurried, user_id, "note 11")

    assert len(at_once) == 10
    assert at_once == await found(patient, user_id, "note 11")
    await loaded(hurried, user_id)
    assert await found(hurried, user_id, "note 11") == at_once
    for retrieval in (hurried, patient):
        retrieval.close()


async def test_who_has_very_many_is_answered_in_time_and_told_what_is_missing(
    pool, database, monkeypatch
):
    near = Near(3_000)
    user_id = await remember(database, near)
    monkeypatch.setattr(database_search, "SLICE", 700)
    patient = Retrieval(pool, near, PLENTY, hurry=60, cached=False)
    hurried = Retrieval(pool, near, PLENTY, hurry=0, patience=0)

    whole = await patient.recall(user_id, "note 11", 10, Filters())
    assert not whole.partial
    assert await found(patient, user_id, "note 11") == await found(
        Retrieval(pool, near, PLENTY), user_id, "note 11"
    )

    first = await hurried.recall(user_id, "note 2999", 10, Filters())
    assert first.partial
    assert {int(hit.memory.prompt.split()[1]) for hit in first.hits} <= set(range(2_300, 3_000))
    assert first.hits[0].memory.prompt.startswith("note 2999 ")

    await loaded(hurried, user_id)
    assert not (await hurried.recall(user_id, "note 11", 10, Filters())).partial
    assert await found(hurried, user_id, "note 11") == await found(patient, user_id, "note 11")
    for retrieval in (patient, hurried):
        retrieval.close()


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "texts that nobody has packed"])
async def test_a_rare_word_is_found_also_where_time_does_not_suffice_to_weigh_all(
    pool, database, monkeypatch, packed
):
    near = Near(3_000)
    user_id = await remember(database, near)
    if packed:
        await found(Retrieval(pool, None, PLENTY), user_id, "note 1")
    monkeypatch.setattr(database_search, "SLICE", 700)
    hurried = Retrieval(pool, None, PLENTY, hurry=0, cached=False)

    for n in (101, 1_234, 2_999):
        recall = await hurried.recall(user_id, f"which note was {n}?", 10, Filters())

        assert recall.partial
        assert recall.hits[0].memory.prompt.startswith(f"note {n} ")
    hurried.close()


async def test_what_was_just_saved_is_found_by_a_common_word_though_no_time_is_left(pool):
    """Its words are nobody's but its own to be packed; its id says nothing about when."""
    user_id = uuid4()
    early = [Capture(user_id, uuid4(), "prompt", f"a note {n}") for n in range(RARE + 50)]
    late = Capture(user_id, uuid4(), "prompt", "a note, the last one")
    await write_together(pool, early)
    await write_together(pool, [late])
    hurried = Retrieval(pool, None, PLENTY, hurry=-1, cached=False)

    recall = await hurried.recall(user_id, "note", 100, Filters())

    assert recall.partial
    assert late.id in {hit.memory.id for hit in recall.hits}
    hurried.close()


async def test_a_deleted_memory_comes_back_from_nowhere(pool, database):
    near = Near(1_500)
    user_id = await remember(database, near)
    kinds = {"cached": {}, "no cache": {"cached": False}, "loading": {"patience": 0.0}}
    retrievals = {kind: Retrieval(pool, near, PLENTY, **more) for kind, more in kinds.items()}
    recall = await retrievals["cached"].recall(user_id, "note 5", 10, Filters())
    [gone] = [hit.memory.id for hit in recall.hits if hit.memory.prompt == GONE]

    # The third begins to load while the memory is still there.
    loading = asyncio.create_task(found(retrievals["loading"], user_id, "note 5"))
    await memories.delete(pool, user_id, gone)
    await loading

    for retrieval in retrievals.values():
        for _ in range(2):
            texts = [hit[0] for hit in await found(retrieval, user_id, "note 5", 100)]
            assert GONE not in texts
            assert len(texts) == 100
    await loaded(retrievals["loading"], user_id)
    texts = [hit[0] for hit in await found(retrievals["loading"], user_id, "note 5", 100)]
    assert GONE not in texts
    for retrieval in retrievals.values():
        retrieval.close()


@pytest.mark.parametrize("cached", [True, False])
async def test_a_prompt_is_found_at_every_moment_while_its_answer_grows(database_url, cached):
    """On a single connection, where each step of the search has a save before it."""
    user_id, growing = uuid4(), uuid4()
    async with open_pool(database_url, 1, 1) as pool:
        await write_together(pool, [Capture(user_id, growing, "prompt", "quokka")])

        async def grow() -> None:
            for n in range(1, 1_000):
                answer = Capture(user_id, growing, "response", "more " * n, status="partial")
                await write_together(pool, [answer])

        answering = asyncio.create_task(grow())
        for _ in range(5):
            retrieval = Retrieval(pool, None, PLENTY, cached=cached)
            assert await found(retrieval, user_id, "quokka")
            retrieval.close()
        assert not answering.done()
        answering.cancel()


async def test_nothing_of_a_deleted_memorys_words_is_kept(pool, database):
    user_id, kept, gone = uuid4(), uuid4(), uuid4()
    await write_together(pool, [Capture(user_id, i, "prompt", "zanzibar") for i in (kept, gone)])
    async with acting_as(pool, user_id) as conn:
        texts = await keyword_store.texts_of(conn, user_id, [kept, gone])
        await keyword_store.keep(conn, user_id, [(each, each.pack()) for each in texts])

    await memories.delete(pool, user_id, gone)
    async with acting_as(pool, user_id) as conn:
        # A slow reader that still has the text.
        await keyword_store.keep(conn, user_id, [(each, each.pack()) for each in texts])

    rows = await database.fetch("SELECT memory_id FROM memory_layer.keywords")
    assert [row["memory_id"] for row in rows] == [kept]


async def test_words_of_another_analyzer_are_analysed_anew(pool, database):
    near = Near(60)
    user_id = await remember(database, near)
    retrieval = Retrieval(pool, near, PLENTY)
    expected = await found(retrieval, user_id, "subject31 near 2")
    retrieval.close()
    # As an older version might have packed them.
    await database.execute("UPDATE keywords SET analyzer = 0, terms = '', counts = ''")

    for cached in (True, False):
        retrieval = Retrieval(pool, near, PLENTY, cached=cached)
        assert await found(retrieval, user_id, "subject31 near 2") == expected
        retrieval.close()
    assert await database.fetchval("SELECT min(analyzer) FROM keywords") > 0


def test_a_reader_has_reached_what_was_written_up_to_its_own_number_in_its_own_epoch():
    here = Position(uuid4(), 5, 0, 1)

    assert here.has_reached(here)
    assert here.has_reached(here._replace(change_seq=4, purges=0))
    for beyond in ({"change_seq": 6}, {"purges": 2}, {"epoch": uuid4()}):
        assert not here.has_reached(here._replace(**beyond))


async def test_a_budget_too_small_for_two_keeps_the_one_who_searched_last(pool, database):
    near = Near(1_000)
    older, newer = await remember(database, near), await remember(database, near)
    roomy = Retrieval(pool, near, PLENTY)
    await found(roomy, older, "note 1")
    one = roomy.caches.nbytes
    tight = Retrieval(pool, near, int(one * 1.5))

    expected = await found(tight, older, "note 1")
    await found(tight, newer, "note 1")

    assert tight.caches.users == [newer]
    assert tight.caches.nbytes <= one * 1.5
    assert await found(tight, older, "note 1") == expected
    for retrieval in (roomy, tight):
        retrieval.close()


async def test_who_is_too_large_for_any_cache_finds_the_same_without(pool, database):
    near = Near(change_feed.PAGE)
    user_id = await remember(database, near)
    roomy = Retrieval(pool, near, PLENTY)
    expected = await found(roomy, user_id, "note 1")
    budget = roomy.caches.nbytes // 2
    roomy.close()

    # Several times, as it once depended on what came first: the next page, or the end of the room.
    for _ in range(30):
        tiny = Retrieval(pool, near, budget)
        for _ in range(2):
            assert await found(tiny, user_id, "note 1") == expected
        assert tiny.caches.nbytes <= budget
        tiny.close()


def test_what_a_cache_counts_is_what_it_holds():
    near = Near(MOST_FLAT + 3_000)
    index = VectorIndex(DIMENSIONS)
    for start in range(0, len(near.vectors), 500):
        index.add(near.vectors[start : start + 500])

    held = DIMENSIONS * 3 * len(index)
    assert held <= index.nbytes <= 2 * held


async def test_a_cache_that_differs_from_the_database_is_loaded_anew(pool, database):
    near = Near(300)
    user_id = await remember(database, near)
    retrieval = Retrieval(pool, near, PLENTY)
    caches: UserCaches = retrieval.caches
    before = await found(retrieval, user_id, "note 5")
    assert await caches.verify(user_id) and user_id in caches.users

    # As no version of the service does: a row goes, and no number says so.
    await database.execute("DELETE FROM memories WHERE prompt LIKE 'note 5 %'")

    assert not await caches.verify(user_id)
    assert user_id not in caches.users
    after = await found(retrieval, user_id, "note 5")
    assert GONE in [hit[0] for hit in before]
    assert GONE not in [hit[0] for hit in after]
    assert await caches.verify(user_id)

    await database.execute(
        "DELETE FROM chunks WHERE memory_id IN (SELECT id FROM memories LIMIT 9)"
    )
    assert await caches.verify(user_id), "vectors that are being made anew are no difference"
    retrieval.close()


async def test_a_cache_of_whoever_saves_at_this_moment_does_not_differ(pool):
    user_id = uuid4()
    retrieval = Retrieval(pool, None, PLENTY)
    await write_together(pool, [Capture(user_id, uuid4(), "prompt", "walrus")])
    await found(retrieval, user_id, "walrus")

    await write_together(pool, [Capture(user_id, uuid4(), "prompt", "walrus two")])

    assert await retrieval.caches.verify(user_id)
    assert len(await found(retrieval, user_id, "walrus")) == 2
    retrieval.close()


def holds(retrieval: Retrieval, user_id: UUID, word: str) -> bool:
    """Whether the cache has the word at all, be it of a memory that is gone."""
    [term] = hashes_of(analyzer.terms(word))
    fields = retrieval.caches.of(user_id).index._fields.values()
    return any(term in part.terms for field in fields for part in field._segments)


@pytest.mark.parametrize("searched", [True, False], ids=["at its next search", "without one"])
async def test_what_one_replica_purges_no_other_one_keeps(pool, searched):
    user_id, gone = uuid4(), uuid4()
    kept = Capture(user_id, uuid4(), "prompt", "zebra")
    await write_together(pool, [Capture(user_id, gone, "prompt", "walrus"), kept])
    elsewhere = Retrieval(pool, None, PLENTY)
    assert len(await found(elsewhere, user_id, "walrus zebra")) == 2
    await memories.delete(pool, user_id, gone)
    await found(elsewhere, user_id, "zebra")
    assert holds(elsewhere, user_id, "walrus"), "what is in the trash may come back"

    await trash.purge(pool, user_id, gone)
    if searched:
        assert len(await found(elsewhere, user_id, "zebra")) == 1
    else:
        assert await elsewhere.caches.verify(user_id)

    assert not holds(elsewhere, user_id, "walrus")
    assert holds(elsewhere, user_id, "zebra") is searched
    elsewhere.close()


async def test_a_cache_that_could_not_be_loaded_is_loaded_by_the_next_search(pool, database):
    near = Near(100)
    user_id = await remember(database, near)
    retrieval = Retrieval(pool, near, PLENTY)
    await database.execute("REVOKE SELECT ON keywords FROM memory_layer_app")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await found(retrieval, user_id, "note 5")

    await database.execute("GRANT SELECT ON keywords TO memory_layer_app")

    assert len(await found(retrieval, user_id, "note 5")) == 10
    retrieval.close()


async def test_with_and_without_a_cache_the_same_is_found_for_the_same_reasons(pool, model_dir):
    user_id, embedder = uuid4(), LocalEmbedder(model_dir)
    captures = []
    for n, (prompt, response) in enumerate(LIBRARY.values()):
        memory_id, when = uuid4(), datetime(2025, 1 + n, 1, tzinfo=UTC)
        chat = {"conversation_id": f"c{n % 2}", "occurred_at": when, "provider": "chatgpt"}
        captures.append(Capture(user_id, memory_id, "prompt", prompt, **chat))
        if n % 2:
            captures.append(Capture(user_id, memory_id, "response", response, "complete", **chat))
    await write_together(pool, captures)
    retrievals = (
        Retrieval(pool, embedder, PLENTY),
        Retrieval(pool, embedder, PLENTY, cached=False, hurry=60),
    )

    async def both_find_the_same() -> None:
        for query in QUESTIONS:
            for filters in (
                Filters(),
                Filters(conversation_id="c1"),
                Filters(provider="claude"),
                Filters(after=datetime(2025, 2, 15, tzinfo=UTC)),
            ):
                one, two = [await r.recall(user_id, query, 5, filters) for r in retrievals]
                assert [hit.memory.id for hit in one.hits] == [hit.memory.id for hit in two.hits]
                for a, b in zip(one.hits, two.hits, strict=True):
                    assert a.score == pytest.approx(b.score, abs=2e-5)
                    assert (a.relevant, a.matched, a.snippet) == (b.relevant, b.matched, b.snippet)
                    assert a.why.dense == pytest.approx(b.why.dense, abs=2e-4)
                    assert a.why.conversation == pytest.approx(b.why.conversation, abs=2e-4)

    await both_find_the_same()
    worker = asyncio.create_task(EmbeddingWorker(pool, embedder).run())

    async def embedded() -> bool:
        return (await embedding_queue.backlog(pool)).waiting == 0

    await until(embedded)
    worker.cancel()
    await asyncio.wait([worker])
    await both_find_the_same()
    for retrieval in retrievals:
        retrieval.close()
    await embedder.aclose()


@pytest.mark.parametrize("dropped", [0.3, 0.999])
@pytest.mark.parametrize("count", [0, 50, MOST_FLAT + 300])
def test_vectors_that_are_dropped_leave_the_others_as_they_were(count, dropped):
    chance = np.random.default_rng(3)
    vectors = chance.standard_normal((count + 200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(16)
    index.add(vectors[:count])
    index.add(vectors[count:])
    kept = chance.random(len(vectors)) > dropped
    kept[-1] = True

    index.keep(kept)

    assert len(index) == kept.sum()
    assert index.nbytes > 0
    assert np.abs(index.cosines(vectors[-1]) - vectors[kept] @ vectors[-1]).max() < 0.02
