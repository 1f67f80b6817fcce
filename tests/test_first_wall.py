"""With row-level security out of the way, the statements alone keep people apart.

Each is asked for one person twice: when nobody else is there, and among people who have the same
ids, times and conversations. Neither the answer nor the person's rows may show the difference, no
row of another may have changed, and nothing may wait for what another is writing.
"""

import ast
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import pytest

from core import memories, trash
from core.capture import Capture
from core.config import ROOT
from core.save_queue import write_together
from storage import (
    admin,
    api_tokens,
    capture_health,
    change_feed,
    conversations,
    database_search,
    erasure,
    exports,
    imports,
    keyword_store,
    memory_store,
    missing_users,
    rare_words,
    retention,
    sync,
    timeline,
    usage,
    versions,
)
from storage import trash as trashed
from storage.api_tokens import ApiToken
from storage.capture_health import SiteDay
from storage.database import Connection, Pool, open_pool
from storage.database_search import Slice
from storage.imports import Progress
from storage.keyword_store import Texts
from storage.memory_store import Filters
from storage.packed_terms import hashes_of
from storage.usage import Use

# Alice's rows stand before bob's and carol's behind them, under the same ids; dora's account was
# erased; what eve has bears ids of its own.
ALICE, BOB, CAROL, DORA, EVE = (UUID(int=n) for n in range(1, 6))
EDITED, EMBEDDED, ALONE, DELETED, LONG_DELETED, PURGED = ids = [UUID(int=n) for n in range(10, 16)]
QUEUED, RUNNING, DONE, TOKEN, INSTALLATION = (UUID(int=n) for n in range(20, 25))
NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)
TODAY = datetime.now(UTC).date()
DAYS = [NOON + timedelta(minutes=30 * n) for n in range(4)]
EVERYTHING = Slice(UUID(int=0), UUID(int=2**128 - 1))
VECTOR = np.array([1.0, 0.0], np.float32)
WALRUS = Counter({"walrus": 1})

# In every role that these run in, the statement is what says whose rows they are.
BY_MODULE: dict[str, dict[str, Callable[[Connection], Awaitable[Any]]]] = {
    "admin": {
        "use_by_day": lambda c: admin.use_by_day(c, BOB, TODAY),
        "set_plan": lambda c: admin.set_plan(c, BOB, "pro", 5, 6),
        "is_known": lambda c: admin.is_known(c, BOB),
    },
    "api_tokens": {
        "add": lambda c: api_tokens.add(c, BOB, bytes(32), a_token(UUID(int=30)), most=2),
        "list_for_user": lambda c: api_tokens.list_for_user(c, BOB),
        "delete": lambda c: api_tokens.delete(c, BOB, TOKEN),
        "note_use": lambda c: api_tokens.note_use(c, [(BOB, TOKEN)]),
    },
    "capture_health": {
        "put": lambda c: capture_health.put(c, BOB, INSTALLATION, "2", full_day()[-1:]),
    },
    "change_feed": {
        "position": lambda c: change_feed.position(c, BOB),
        "since": lambda c: change_feed.since(c, BOB, 1),
        "chunks_of": lambda c: change_feed.chunks_of(c, BOB, ids, "m"),
        "fingerprint": lambda c: change_feed.fingerprint(c, BOB, "m"),
    },
    "conversations": {"page": lambda c: conversations.page(c, BOB, None, None, 9)},
    "database_search": {
        "slices": lambda c: database_search.slices(c, BOB),
        "read": lambda c: look_through(c),
        "hits_of": lambda c: database_search.hits_of(c, BOB, hashes_of(WALRUS), EVERYTHING),
    },
    "exports": {
        "by_time": lambda c: exports.by_time(c, BOB, None),
        "by_conversation": lambda c: exports.by_conversation(c, BOB, None),
        "alone": lambda c: exports.alone(c, BOB, None),
    },
    "imports": {
        "add": lambda c: imports.add(c, BOB, UUID(int=31), "b.zip", 8),
        "read": lambda c: imports.read(c, BOB, QUEUED),
        "listed": lambda c: imports.listed(c, BOB),
        "unfinished": lambda c: imports.unfinished(c, BOB),
        "to_embed": lambda c: imports.to_embed(c, BOB),
        "begin": lambda c: imports.begin(c, BOB, QUEUED),
        "advance": lambda c: imports.advance(c, BOB, RUNNING, Progress(3, "claude", 1)),
        "finish": lambda c: imports.finish(c, BOB, RUNNING, "done", None),
        "mark_edited": lambda c: imports.mark_edited(c, BOB, ids),
        "nearby": lambda c: in_order(imports.nearby(c, BOB, "gemini", [NOON], 10**9)),
        "purged": lambda c: in_order(
            imports.purged(c, BOB, ["walrus 15", "of others"], [NOON, NOON])
        ),
    },
    "keyword_store": {
        "texts_of": lambda c: in_order(keyword_store.texts_of(c, BOB, ids)),
        "keep": lambda c: keep_words(c, EDITED),
        "write": lambda c: keep_words(c, ALONE),
        "keep of what only others say": lambda c: keyword_store.keep(
            c, BOB, [(texts, texts.pack()) for texts in [of_others(ALONE)]]
        ),
    },
    "memory_store": {
        "read": lambda c: memory_store.read(c, BOB, EDITED),
        "read_many": lambda c: in_order(memory_store.read_many(c, BOB, ids)),
        "oldest": lambda c: memory_store.oldest(c, BOB, Filters(), None, 9),
        "edit": lambda c: memory_store.edit(c, BOB, EMBEDDED, {"content_hash": bytes(32)}, 90),
        "delete": lambda c: memory_store.delete(c, BOB, EMBEDDED, 90),
    },
    "rare_words": {
        "holders": lambda c: rare_words.holders(c, BOB, "walrus", WALRUS, EVERYTHING),
    },
    "retention": {
        "purge_tombstones": lambda c: retention.purge_tombstones(c, BOB, 9),
        "remove_mark": lambda c: retention.remove_mark(c, BOB),
    },
    "sync": {
        "state": lambda c: sync.state(c, BOB),
        "page": lambda c: sync.page(c, BOB, 1, 90, 9),
        "page of one that is larger": lambda c: follow_by_small_pages(c),
    },
    "timeline": {
        "page": lambda c: timeline.page(c, BOB, None, None, None, 9),
        "standing": lambda c: timeline.standing(c, BOB, "UTC"),
        "counts": lambda c: in_order(timeline.counts(c, BOB, DAYS)),
        "places_of_changes": lambda c: timeline.places_of_changes(c, BOB, DAYS, 1, 20),
        "counts_at": lambda c: in_order(timeline.counts_at(c, BOB, DAYS, [1, 2])),
    },
    "trash": {
        "page": lambda c: trashed.page(c, BOB, None, 9),
        "restore": lambda c: trashed.restore(c, BOB, DELETED, 90),
        "purge": lambda c: trashed.purge(c, BOB, 9),
    },
    "usage": {
        "read": lambda c: usage.read(c, [BOB], TODAY),
        "add": lambda c: usage.add(c, [Use(BOB, TODAY, 1, 2, 3)]),
        "by_day": lambda c: usage.by_day(c, BOB, TODAY),
    },
    "versions": {
        "keep": lambda c: keep_one_version_too_many(c),
        "listed": lambda c: versions.listed(c, BOB, EDITED),
        "read": lambda c: versions.read(c, BOB, EDITED, 1),
    },
}
CALLS = {f"{module}.{name}": call for module, by in BY_MODULE.items() for name, call in by.items()}
# Signing in serves who is nobody yet; a list of whose it is goes on behind an id; and an epoch is
# random. The last is tried below.
NOT_ASKED = {"accounts", "missing_users.users_after", "admin.begin_epoch"}


def a_token(token_id: UUID) -> ApiToken:
    return ApiToken(token_id, "a program", ["read"], NOON, None, None)


def full_day() -> list[SiteDay]:
    """As many rows as a person may have in a day."""
    return [SiteDay(TODAY, f"site-{n}", 1) for n in range(capture_health.MOST_ROWS_A_DAY)]


async def in_order(answer: Awaitable[list[Any]]) -> list[Any]:
    return sorted(await answer, key=repr)


async def look_through(conn: Connection) -> Any:
    """By memory, its columns one after the other."""
    found = await database_search.read(conn, BOB, WALRUS, VECTOR, "m", Filters(), EVERYTHING)
    count = len(found.memories["ids"]) // 16
    columns = [
        [column[len(column) * n // count : len(column) * (n + 1) // count] for n in range(count)]
        for column in found.memories.values()
    ]
    return sorted(zip(*columns, strict=True)), found.speakers, found.hits, found.chunks


async def keep_words(conn: Connection, memory_id: UUID) -> None:
    texts = await keyword_store.texts_of(conn, BOB, [memory_id])
    await keyword_store.keep(conn, BOB, [(each, each.pack()) for each in texts])


async def keep_one_version_too_many(conn: Connection) -> None:
    for _ in range(2):
        await versions.keep(conn, BOB, EDITED)


async def follow_by_small_pages(conn: Connection) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "MOST_BYTES", 1)
        return [await sync.page(conn, BOB, behind, 90, 9) for behind in range(1, 20)]


def of_others(memory_id: UUID) -> Texts:
    said_at = NOON + timedelta(seconds=memory_id.int)
    return Texts(memory_id, "a lion", None, bytes(32), said_at)


async def fill(pool: Pool) -> None:
    """Give bob something of every kind."""
    captures = [
        Capture(
            BOB,
            memory_id,
            "prompt",
            f"walrus {memory_id.int}",
            provider="gemini",
            conversation_id=None if memory_id == ALONE else "c",
            conversation_title="seals" if memory_id == EDITED else None,
            occurred_at=of_others(memory_id).occurred_at,
        )
        for memory_id in ids
    ]
    await write_together(pool, captures)
    await memories.edit(pool, BOB, EDITED, {"prompt": "walrus edited"})
    await memories.edit(pool, BOB, EDITED, {"prompt": "walrus edited again"})
    for memory_id in (DELETED, LONG_DELETED, PURGED):
        await memories.delete(pool, BOB, memory_id)
    await trash.purge(pool, BOB, PURGED)
    async with pool.acquire() as conn:
        await api_tokens.add(conn, BOB, b"b" * 32, a_token(TOKEN), most=9)
        for job_id in (QUEUED, RUNNING, DONE):
            await imports.add(conn, BOB, job_id, "a.zip", 7)
        await imports.begin(conn, BOB, RUNNING)
        await imports.finish(conn, BOB, DONE, "done", None)
        await capture_health.put(conn, BOB, INSTALLATION, "1", full_day()[:-1])
        await usage.add(conn, [Use(BOB, TODAY, 1, 2, 3)])
        await keep_words(conn, EMBEDDED)
        await admin.count_stale(conn, 9)
        await missing_users.report(conn, [BOB])
        await conn.execute(OF_OTHER_JOBS, BOB, EMBEDDED, LONG_DELETED, date(2020, 1, 1))
        await conn.execute(VERSIONS, EDITED, versions.MOST_VERSIONS - 1)
        await conn.execute(IMPORTS, BOB, imports.MOST_FINISHED)


OF_OTHER_JOBS = """
    WITH embedded AS (
        UPDATE memory_layer.memories SET embedding_state = 'done', embedding_model = 'm'
         WHERE user_id = $1 AND id = $2
    ), deleted AS (
        UPDATE memory_layer.memories SET deleted_at = '2020-01-01'
         WHERE user_id = $1 AND id = $3
    ), counted AS (
        INSERT INTO memory_layer.capture_health
        SELECT user_id, installation, $4, site, version, 1, 1, 1, 1, 1, 1, 1
          FROM memory_layer.capture_health
    )
    INSERT INTO memory_layer.chunks VALUES ($1, $2, 'm', 0, 'prompt', 0, 4, '[1,0]')
"""
VERSIONS = """
    INSERT INTO memory_layer.versions
    SELECT (jsonb_populate_record(v, jsonb_build_object('number', n))).*
      FROM memory_layer.versions v, generate_series(3, $2::int) AS n
     WHERE memory_id = $1 AND number = 1
"""
IMPORTS = """
    INSERT INTO memory_layer.imports (user_id, id, state, bytes)
    SELECT $1, md5(n::text)::uuid, 'done', n FROM generate_series(1, $2::int) AS n
"""
TABLES = """
    SELECT t.oid::regclass::text AS name,
           string_agg(quote_ident(attname), ', ') FILTER (WHERE attgenerated = '') AS columns
      FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND attnum > 0 AND NOT attisdropped
     WHERE relnamespace = 'memory_layer'::regnamespace AND relkind = 'r'
     GROUP BY t.oid HAVING bool_or(attname = 'user_id') ORDER BY t.oid::regclass::text
"""
# What others have differs in what it says, under the same keys.
# What others have differs in what it says; with $3 also in its ids and times, which come later.
SAYS = """
    SELECT jsonb_object_agg(key, CASE
               WHEN value = 'null' THEN value
               WHEN key = 'user_id' THEN to_jsonb($1::uuid)
               WHEN key = 'token_hash' THEN to_jsonb(sha256(uuid_send($1)))
               WHEN key IN ('id', 'memory_id') AND $3 THEN to_jsonb(md5(value::text)::uuid)
               WHEN key = 'occurred_at' AND $3
               THEN to_jsonb((value #>> '{}')::timestamptz + interval '1 hour')
               WHEN key IN ('prompt', 'conversation_title', 'name', 'file_name', 'message')
               THEN to_jsonb('of others: walrus'::text)
               WHEN key = 'echo'
               THEN to_jsonb(memory_layer.echo_of(m.user_id, 'of others', '2026-05-03 12:00Z', 0))
               WHEN key = 'content_hash' AND to_jsonb(m)->>'id' = $4::text
               THEN to_jsonb(decode(repeat('00', 32), 'hex'))
               WHEN key = 'number' THEN to_jsonb(value::bigint + $2)
               WHEN key IN ('change_seq', 'requests', 'tokens', 'bytes', 'network', 'start',
                            'prompt_length', 'purges', 'purged_through', 'moves')
               THEN to_jsonb(value::bigint + 1) ELSE value END)
      FROM jsonb_each(to_jsonb(m))
"""
# Of a memory whose words bob has not yet packed alice has.
WORDS = """
    INSERT INTO memory_layer.keywords
    SELECT (jsonb_populate_record(k, jsonb_build_object('memory_id', m.id,
               'content_hash', m.content_hash, 'occurred_at', m.occurred_at))).*
      FROM memory_layer.keywords k, memory_layer.memories m
     WHERE k.user_id = $1 AND m.user_id = $2 AND m.id = $3
"""
# Whose versions have other numbers, and whose ids are others.
OTHERS = ((ALICE, 40, False), (CAROL, 0, False), (EVE, 0, True))


async def add_others(conn: Connection) -> None:
    """Put alice before bob's rows and the others behind them, in every table."""
    await conn.execute("SET session_replication_role = replica")
    for name, columns in await conn.fetch(TABLES):
        another = f"""
            INSERT INTO {name} ({columns}) SELECT {columns}
              FROM (SELECT (jsonb_populate_record(NULL::{name}, ({SAYS}))).* FROM mine m) AS r
        """
        await conn.execute(f"CREATE TEMP TABLE mine AS SELECT {columns} FROM {name}")
        await conn.execute(f"DELETE FROM {name}")
        for who, *differs in OTHERS[:1]:
            await conn.execute(another, who, *differs, str(ALONE))
        await conn.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM mine")
        for who, *differs in OTHERS[1:]:
            await conn.execute(another, who, *differs, str(ALONE))
        await conn.execute("DROP TABLE mine")
    await conn.execute("SET session_replication_role = origin")
    await conn.execute(
        "INSERT INTO memory_layer.user_state (user_id, erased_at) VALUES ($1, '2020-01-01')", DORA
    )
    await conn.execute(WORDS, ALICE, BOB, EDITED)


async def rows_of(conn: Connection, whose: str) -> dict[str, list[str]]:
    """As text, this moment named so."""
    return {
        name: [
            row["said"]
            for row in await conn.fetch(
                f"SELECT replace(t::text, now()::text, 'now') AS said FROM {name} t"
                f" WHERE user_id {whose} $1 ORDER BY said",
                BOB,
            )
        ]
        for name, _ in await conn.fetch(TABLES)
    }


Outcome = tuple[str, dict[str, list[str]], dict[str, list[str]]]


async def outcome(conn: Connection, call: Callable[[Connection], Awaitable[Any]]) -> Outcome:
    """What the call answers, and what bob and the others have then; it is rolled back."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        await conn.execute("SET LOCAL lock_timeout = '2s'")
        answer = repr(await call(conn)).replace(repr(await conn.fetchval("SELECT now()")), "now")
        return answer, await rows_of(conn, "="), await rows_of(conn, "<>")
    finally:
        await transaction.rollback()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """As a superuser, whom no policy binds."""
    async with open_pool(database_url, 2, 4) as pool:
        yield pool


async def test_what_a_person_is_told_does_not_depend_on_who_else_is_there(
    pool: Pool, database: asyncpg.Connection
) -> None:
    await fill(pool)
    async with pool.acquire() as conn:
        without = {name: await outcome(conn, call) for name, call in CALLS.items()}
        await add_others(conn)
        before = await rows_of(conn, "<>")
        # The others are all writing at this moment.
        async with database.transaction():
            await database.execute(
                "SELECT FROM memory_layer.user_state WHERE user_id <> $1 FOR UPDATE", BOB
            )
            among = {name: await outcome(conn, call) for name, call in CALLS.items()}

    for name in CALLS:
        assert among[name][:2] == without[name][:2], name
        assert among[name][2] == before, name
    assert all(before.values()), "who has nothing tells nobody apart"


async def test_a_new_beginning_and_an_erasure_are_one_persons(pool: Pool) -> None:
    await fill(pool)
    async with pool.acquire() as conn:
        await add_others(conn)
        before = await rows_of(conn, "<>")

        assert await admin.begin_epoch(conn, BOB)
        await erasure.mark(pool, BOB)
        await erasure.erase(pool, BOB)
        await conn.execute("UPDATE memory_layer.user_state SET erasure_pending = true")
        await erasure.finish(pool, BOB)

        await conn.execute(
            "UPDATE memory_layer.user_state SET erasure_pending = NOT erasure_pending"
            " WHERE user_id <> $1",
            BOB,
        )
        assert await rows_of(conn, "<>") == before
        mine = await rows_of(conn, "=")
    assert {name for name, rows in mine.items() if rows} == {"memory_layer.user_state"}


def test_every_statement_about_a_person_is_asked() -> None:
    found = {
        f"{path.stem}.{function.name}"
        for path in (ROOT / "storage").glob("*.py")
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.AsyncFunctionDef)
        and not function.name.startswith("_")
        and [arg.arg for arg in function.args.args[:2]] == ["conn", "user_id"]
    }
    skipped = {name for name in found if {name, name.partition(".")[0]} & NOT_ASKED}
    assert found - skipped <= set(CALLS)
