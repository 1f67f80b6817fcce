"""The second wall: what the database itself refuses, and how it is set up on several versions."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from core.capture import Capture
from core.config import Settings
from core.save_queue import write_together
from storage import embedded_postgres as embedded
from storage import memory_store
from storage.accounts import acting_as_auth
from storage.database import (
    Pool,
    acting_as,
    acting_as_worker,
    behind_transaction_pooler,
    open_pool,
    transaction,
)
from storage.erasure import acting_as_eraser
from storage.job_runs import acting_as_janitor
from storage.migrate import known, migrate
from tests.conftest import app_client, execute, sign_up, url_of
from tests.test_embedding_queue import (
    HashEmbedder,
    all_embedded,
    save_prompts,
    stored_vectors,
    vector,
    working,
)
from tests.test_replicas import found, row_of, save

ALICE, BOB = uuid4(), uuid4()
SCHEMAS = ("memory_layer", "memory_layer_auth")
ROLES = ("memory_layer_app", "memory_layer_worker", "memory_layer_auth")
OWN_TABLES = ("memories", "chunks", "user_state")
READ_OWNERS = "SELECT DISTINCT user_id FROM memory_layer."


@pytest.fixture
async def one_connection(database_url: str) -> AsyncIterator[Pool]:
    """A pool in which whatever one transaction leaves behind meets the next."""
    async with open_pool(database_url, 1, 1) as pool:
        yield pool


@pytest.fixture
async def pool(one_connection: Pool, database: asyncpg.Connection) -> Pool:
    """Alice and bob have a memory each, with a vector."""
    captures = [Capture(user_id, uuid4(), "prompt", "text") for user_id in (ALICE, BOB)]
    await write_together(one_connection, captures)
    await database.execute(
        "INSERT INTO memory_layer.chunks SELECT user_id, id, 'm', 0, 'prompt', 0, 4, '[1,0]'"
        " FROM memory_layer.memories"
    )
    return one_connection


@pytest.mark.parametrize("table", OWN_TABLES)
async def test_a_statement_without_a_where_sees_only_ones_own(pool: Pool, table: str) -> None:
    async with acting_as(pool, ALICE) as conn:
        owners = await conn.fetch(READ_OWNERS + table)

    assert [row["user_id"] for row in owners] == [ALICE]


@pytest.mark.parametrize("table", OWN_TABLES)
async def test_who_acts_for_nobody_sees_nothing(pool: Pool, table: str) -> None:
    async with acting_as(pool, []) as conn:
        assert await conn.fetch(READ_OWNERS + table) == []
    async with transaction(pool, "memory_layer_app") as conn:
        assert await conn.fetch(READ_OWNERS + table) == []


WHOM_IT_ACTS_FOR = """
    (user_id = ANY (( SELECT memory_layer.acting_user_ids() AS acting_user_ids)::uuid[]))
"""


async def test_every_table_shows_the_service_the_rows_of_whom_it_acts_for_and_no_other(
    database: asyncpg.Connection,
) -> None:
    policies = await database.fetch(
        """
        SELECT tablename, qual, coalesce(with_check, qual) AS written, cmd FROM pg_policies
         WHERE 'memory_layer_app' = ANY (roles)
        """
    )
    granted = await database.fetch(
        """
        SELECT DISTINCT table_name FROM information_schema.column_privileges
         WHERE grantee = 'memory_layer_app' AND column_name = 'user_id'
        """
    )
    assert {row["tablename"] for row in policies} == {row["table_name"] for row in granted}
    assert {(row["qual"], row["written"], row["cmd"]) for row in policies} == {
        (WHOM_IT_ACTS_FOR.strip(), WHOM_IT_ACTS_FOR.strip(), "ALL")
    }


OLD_AND_NEW = """
    UPDATE memory_layer.user_state SET erased_at = now() - interval '7 days' WHERE user_id = $1;
    UPDATE memory_layer.user_state SET erased_at = now() - interval '9 days' WHERE user_id = $2;
    INSERT INTO memory_layer.daily_use (user_id, day, requests)
    SELECT $1, current_date - days, 1 FROM unnest(ARRAY[0, 400, 401]) AS t (days);
    INSERT INTO memory_layer.api_tokens (user_id, id, token_hash, name, scopes, expires_at)
    SELECT $1, gen_random_uuid(), sha256(concat(days)::bytea), 'a program', ARRAY['read'],
           now() - days * interval '1 day'
      FROM unnest(ARRAY[29, 31, NULL]) AS t (days);
    INSERT INTO memory_layer.memories
           (user_id, id, status, provider, content_hash, occurred_at, change_seq, deleted_at)
    SELECT $1, gen_random_uuid(), 'waiting', 'x', '', now(), 90 + days,
           now() - days * interval '1 day'
      FROM unnest(ARRAY[0, 29, 31]) AS t (days)
"""
LEFT = """
    SELECT (SELECT count(*) FROM memory_layer.memories),
           (SELECT count(*) FROM memory_layer.daily_use),
           (SELECT count(*) FROM memory_layer.api_tokens),
           (SELECT count(*) FROM memory_layer.user_state)
"""


async def test_who_cleans_up_sees_no_memory_that_is_kept_and_takes_away_only_what_is_old(
    pool: Pool, database: asyncpg.Connection
) -> None:
    statements = OLD_AND_NEW.replace("$1", f"'{ALICE}'::uuid").replace("$2", f"'{BOB}'::uuid")
    await database.execute(statements)

    async with acting_as_janitor(pool) as conn:
        seen = await conn.fetch("SELECT deleted_at FROM memory_layer.memories")
        for table in ("memories", "daily_use", "api_tokens", "user_state"):
            await conn.execute(f"DELETE FROM memory_layer.{table}")

    assert len(seen) == 3
    assert None not in {row["deleted_at"] for row in seen}
    # Both memories that are kept and two deletions; two days; the token that ended lately and the
    # one that does not; the mark that may still be needed.
    assert tuple(await database.fetchrow(LEFT)) == (4, 2, 2, 1)


async def test_who_erases_sees_whom_the_mark_names_and_nobody_else(
    pool: Pool, database: asyncpg.Connection
) -> None:
    await database.execute(
        "UPDATE memory_layer.user_state SET erased_at = now() WHERE user_id = $1", BOB
    )

    async with acting_as_eraser(pool) as conn:
        owners = await conn.fetch(READ_OWNERS + "user_state")

    assert [row["user_id"] for row in owners] == [BOB]


FORBIDDEN = {
    "add a memory of bob's": "INSERT INTO memory_layer.memories"
    " (user_id, id, status, provider, content_hash, occurred_at, change_seq)"
    " SELECT $1, gen_random_uuid(), 'waiting', 'x', '', now(), 99",
    "give bob a memory of hers": "UPDATE memory_layer.memories SET user_id = $1, change_seq = 99",
    "count for bob": "INSERT INTO memory_layer.user_state (user_id) SELECT $1",
    "delete for good": "DELETE FROM memory_layer.memories WHERE user_id <> $1",
    "delete a user": "DELETE FROM memory_layer.user_state WHERE user_id <> $1",
    "forge a vector": "UPDATE memory_layer.chunks SET start = 1 WHERE user_id <> $1",
    "read the accounts": "SELECT * FROM memory_layer_auth.users WHERE id = $1",
    "read the sessions": "SELECT * FROM memory_layer_auth.sessions WHERE id = $1",
    "read the signing keys": "SELECT * FROM memory_layer_auth.signing_keys WHERE $1 = $1",
    "pretend that nothing was migrated": "DELETE FROM memory_layer.schema_migrations WHERE $1 = $1",
    "make a table": "CREATE TABLE memory_layer.t AS SELECT $1::uuid",
}


@pytest.mark.parametrize(
    "statement", [pytest.param(text, id=name) for name, text in FORBIDDEN.items()]
)
async def test_acting_for_alice_the_service_may_not(pool: Pool, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with acting_as(pool, ALICE) as conn:
            await conn.execute(statement.replace("$1", f"'{BOB}'::uuid"))


UNREACHABLE = {
    "a memory": "UPDATE memory_layer.memories SET prompt = '' WHERE user_id = $1",
    "a counter": "UPDATE memory_layer.user_state SET change_seq = 0 WHERE user_id = $1",
    "a vector": "DELETE FROM memory_layer.chunks WHERE user_id = $1",
}


@pytest.mark.parametrize(
    "statement", [pytest.param(text, id=name) for name, text in UNREACHABLE.items()]
)
async def test_rows_of_another_cannot_be_reached_to_be_changed(pool: Pool, statement: str) -> None:
    async with acting_as(pool, ALICE) as conn:
        assert (await conn.execute(statement, BOB)).endswith(" 0")


async def test_one_forged_row_fails_the_whole_batch(
    pool: Pool, database: asyncpg.Connection
) -> None:
    rows = [row_of(ALICE, uuid4(), 50), row_of(BOB, uuid4(), 51)]

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with acting_as(pool, ALICE) as conn:
            await memory_store.write(conn, rows)

    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 2
    async with acting_as(pool, ALICE) as conn:
        await memory_store.write(conn, rows[:1])
    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 3


async def test_one_forged_row_among_new_ones_fails_them_all(
    pool: Pool, database: asyncpg.Connection
) -> None:
    rows = [row_of(ALICE, uuid4(), 0), row_of(BOB, uuid4(), 0)]

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await memory_store.add(pool, {ALICE: 1}, rows)

    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 2
    assert await memory_store.add(pool, {ALICE: 1}, rows[:1]) == {ALICE}
    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 3


async def test_an_upsert_onto_the_row_of_another_is_refused(pool: Pool) -> None:
    async with acting_as(pool, BOB) as conn:
        memory_id = await conn.fetchval("SELECT id FROM memory_layer.memories")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with acting_as(pool, ALICE) as conn:
            await memory_store.write(conn, [row_of(BOB, memory_id, 50)])


async def test_the_worker_serves_all_and_may_not_delete_or_sign_in(pool: Pool) -> None:
    async with acting_as_worker(pool) as conn:
        owners = await conn.fetch("SELECT user_id FROM memory_layer.memories")
    assert {row["user_id"] for row in owners} == {ALICE, BOB}
    for statement in (
        "DELETE FROM memory_layer.memories",
        "INSERT INTO memory_layer.memories (user_id) VALUES (NULL)",
        "SELECT * FROM memory_layer_auth.users",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with acting_as_worker(pool) as conn:
                await conn.execute(statement)


async def test_signing_in_gives_no_way_to_the_memories(pool: Pool) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with acting_as_auth(pool) as conn:
            await conn.execute("SELECT * FROM memory_layer.memories")


async def test_the_question_whether_it_is_anothers_tells_nothing_else(pool: Pool) -> None:
    async with acting_as_worker(pool) as conn:
        rows = await conn.fetch("SELECT user_id, id FROM memory_layer.memories")
    ids: dict[UUID, UUID] = {row["user_id"]: row["id"] for row in rows}

    async with acting_as(pool, ALICE) as conn:
        answers = [
            await memory_store.is_somebody_elses(conn, memory_id)
            for memory_id in (ids[BOB], ids[ALICE], uuid4())
        ]
    assert answers == [True, False, False]


async def test_no_role_of_the_service_is_above_the_policies(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        """
        SELECT rolname FROM pg_roles
         WHERE rolname = ANY($1) AND NOT rolsuper AND NOT rolbypassrls AND NOT rolcanlogin
           AND NOT rolcreaterole AND NOT rolcreatedb AND NOT rolreplication
           AND NOT pg_has_role(rolname, 'postgres', 'MEMBER')
           AND NOT EXISTS (SELECT 1 FROM pg_class WHERE relowner = pg_roles.oid)
        """,
        list(ROLES),
    )
    assert {row["rolname"] for row in rows} == set(ROLES)


async def test_every_table_is_behind_row_level_security(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        """
        SELECT relname, relrowsecurity FROM pg_class
         WHERE relnamespace::regnamespace::text = ANY($1) AND relkind IN ('r', 'p', 'v', 'm')
        """,
        list(SCHEMAS),
    )
    assert {"memories", "users", "schema_migrations"} <= {row["relname"] for row in rows}
    assert [row["relname"] for row in rows if not row["relrowsecurity"]] == []


async def test_strangers_to_the_database_are_granted_nothing(
    database: asyncpg.Connection,
) -> None:
    """On Supabase everybody has the publishable key, and with it the role `anon`."""
    granted = await database.fetch(
        """
        SELECT relname FROM pg_class, aclexplode(relacl) acl
         WHERE relnamespace::regnamespace::text = ANY($1) AND acl.grantee = 0
         UNION ALL
        SELECT nspname FROM pg_namespace, aclexplode(nspacl) acl
         WHERE nspname = ANY($1) AND acl.grantee = 0
         UNION ALL
        SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace::regnamespace::text = ANY($1)
           AND has_function_privilege('pg_monitor', oid, 'EXECUTE')
        """,
        list(SCHEMAS),
    )
    assert granted == []


LEFT_BEHIND = """
    SELECT current_user::text, nullif(current_setting('memory_layer.user_ids', true), '') AS ids
"""


async def test_role_and_ids_end_with_the_transaction(pool: Pool) -> None:
    async with acting_as(pool, ALICE) as conn:
        during = await conn.fetchrow(LEFT_BEHIND)
    async with pool.acquire() as conn:
        after = await conn.fetchrow(LEFT_BEHIND)

    assert tuple(during) == ("memory_layer_app", f"{{{ALICE.hex}}}")
    assert tuple(after) == ("postgres", None)


@pytest.mark.parametrize("failing", ["SELECT 1/0", "SELEC", "COMMIT; SELECT 1/0"])
async def test_an_error_leaves_a_clean_connection(pool: Pool, failing: str) -> None:
    with pytest.raises(asyncpg.PostgresError):
        async with acting_as(pool, ALICE) as conn:
            await conn.execute(failing)

    await the_connection_is_clean(pool)


async def test_a_request_that_is_given_up_leaves_a_clean_connection(pool: Pool) -> None:
    async def slow() -> None:
        async with acting_as(pool, ALICE) as conn:
            await conn.execute("SELECT pg_sleep(30)")

    for seconds in (0, 0.001, 0.01, 0.1):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), seconds)
        await the_connection_is_clean(pool)


async def test_a_request_that_fails_after_its_connection_was_lost_says_why(
    pool: Pool, database: asyncpg.Connection
) -> None:
    with pytest.raises(LookupError, match="the request's own"):
        async with acting_as(pool, ALICE) as conn:
            await database.execute("SELECT pg_terminate_backend($1, 5000)", conn.get_server_pid())
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
                await conn.execute("SELECT 1")
            raise LookupError("the request's own")

    await the_connection_is_clean(pool)


async def the_connection_is_clean(pool: Pool) -> None:
    async with pool.acquire() as conn:
        assert not conn.is_in_transaction()
        assert tuple(await conn.fetchrow(LEFT_BEHIND)) == ("postgres", None)
    async with acting_as(pool, BOB) as conn:
        owners = await conn.fetch(READ_OWNERS + "memories")
    assert [row["user_id"] for row in owners] == [BOB]


async def test_only_uuids_come_into_the_setting_that_names_the_user(pool: Pool) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)):
        async with acting_as(pool, ["x}'; RESET ROLE; --"]):  # type: ignore[list-item]
            raise AssertionError("a text came into the statement")


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("postgresql://u:p@aws-0-eu.pooler.supabase.com:6543/postgres", True),
        ("postgresql://u:p@db.abc.supabase.co:6543/postgres?sslmode=require", True),
        ("postgresql://u:p@aws-0-eu.pooler.supabase.com:5432/postgres", False),
        ("postgresql://u:p@db.abc.supabase.co/postgres", False),
        ("postgresql://postgres@/memory_layer?host=/tmp/6543&port=5432", False),
    ],
)
def test_a_transaction_pooler_is_known_by_its_port(url: str, is_one: bool) -> None:
    assert behind_transaction_pooler(url) is is_one


async def test_a_direct_connection_keeps_its_prepared_statements(one_connection: Pool) -> None:
    async with one_connection.acquire() as conn:
        await conn.fetchval("SELECT $1::int", 1)
        await conn.fetchval("SELECT $1::int", 2)
        prepared = await conn.fetchval("SELECT count(*) FROM pg_prepared_statements")
    assert prepared > 0


async def service_works(settings: Settings) -> None:
    """Start on the database, save, find, read another's, delete: every role gets its turn."""
    async with app_client(settings) as client:
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
        memory_id = await save(client, alice, "the walrus")
        assert await found(client, alice, "walrus") == [memory_id]
        path = f"/memories/{memory_id}"
        assert (await client.get(path, headers=bob)).status_code == 403
        assert (await client.delete(path, headers=alice)).status_code == 200
        assert await found(client, alice, "walrus") == []


@pytest.fixture
async def postgres_16(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The older server that comes with the newer one; its initdb knows fewer options."""
    options = [o for o in embedded.INITDB_OPTIONS if "provider" not in o and "builtin" not in o]
    monkeypatch.setattr(embedded, "VERSION", "")
    monkeypatch.setattr(embedded, "INITDB_OPTIONS", options)
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        root.chmod(0o711)  # noqa: ASYNC240
        async with embedded.embedded_postgres(root / "data", system_dir=root / "system") as url:
            yield url


async def test_postgres_16_serves_as_well_and_two_databases_of_it_at_once(
    postgres_16: str, settings: Settings
) -> None:
    other = url_of(postgres_16, "other")
    await execute(postgres_16, "CREATE DATABASE other")

    # The roles belong to the whole cluster: both make them, and neither may fail of it.
    applied = await asyncio.gather(migrate(postgres_16), migrate(other))

    names = [path.name for path in known()]
    assert applied == [names, names]
    conn = await asyncpg.connect(postgres_16)
    assert conn.get_server_version().major == 16
    await conn.close()
    await service_works(settings.model_copy(update={"database_url": SecretStr(postgres_16)}))


async def test_an_owner_who_is_no_superuser_can_set_all_up_and_serve(
    postgres_16: str, settings: Settings
) -> None:
    """As Supabase's `postgres`: it may make roles and pass row-level security, and that is all."""
    await execute(
        postgres_16,
        "CREATE ROLE owner LOGIN CREATEROLE BYPASSRLS",
        "CREATE DATABASE hosted OWNER owner TEMPLATE template0",
    )
    url = url_of(postgres_16, "hosted")
    await execute(
        url,
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        "GRANT USAGE ON SCHEMA extensions TO owner",
    )
    own = SecretStr(url.replace("postgres@", "owner@"))

    await service_works(settings.model_copy(update={"database_url": own}))

    async with open_pool(own.get_secret_value(), 1, 2) as pool:
        [memory_id] = await save_prompts(pool, ALICE, ["the lion"])
        async with working(pool, HashEmbedder()):
            await all_embedded(pool)
        assert await stored_vectors(pool, ALICE, [memory_id]) == [vector("the lion").tolist()]
