"""The connection pool, whose transactions act under a role that row-level security binds."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from storage.pgvector import take_vectors
from storage.pool import KEPT_SECONDS, Pool, Taken

__all__ = ["Connection", "Pool"]

Connection: TypeAlias = "Taken | asyncpg.Connection[asyncpg.Record]"

# What means "Postgres is away or in trouble", as opposed to a fault in a statement.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # Raised when the server is killed as a statement begins.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    # Of a new connection: the database is closed or renamed, or the password was changed.
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidAuthorizationSpecificationError,
)

TRANSACTION_POOLER_PORT = 6543


def behind_transaction_pooler(url: str) -> bool:
    """Supabase and PgBouncer set-ups serve transaction pooling on port 6543."""
    return urlsplit(url).port == TRANSACTION_POOLER_PORT


def most_connections(url: str, wanted: int) -> int:
    """Supabase's session pooler gives a small project 15 in all, also while a deploy doubles us."""
    parts = urlsplit(url)
    session_pooler = (parts.hostname or "").endswith(".pooler.supabase.com")
    return min(wanted, 5) if session_pooler and not behind_transaction_pooler(url) else wanted


@asynccontextmanager
async def open_pool(url: str, min_size: int, max_size: int) -> AsyncIterator[Pool]:
    """Yield a pool; nothing that outlives a transaction is ever set on its connections.

    Raises what asyncpg raises when the server cannot be reached.
    """
    most = most_connections(url, max_size)
    prepared = not behind_transaction_pooler(url) and not await _is_pooled(url)
    pool = asyncpg.create_pool(
        url,
        min_size=min(min_size, most),
        max_size=most,
        # A transaction pooler hands each transaction another server connection, on which
        # statements prepared before do not exist.
        statement_cache_size=100 if prepared else 0,
        command_timeout=10,
        timeout=10,
        max_inactive_connection_lifetime=KEPT_SECONDS,
        init=take_vectors,
        reset=_nothing_to_reset,
    )
    handed_on = Pool(pool)
    try:
        await pool
        yield handed_on
    finally:
        handed_on.terminate()


async def _is_pooled(url: str) -> bool:
    """Say whether a pooler stands between: it names another process than the one that answers."""
    conn = await asyncpg.connect(url, statement_cache_size=0, timeout=10)
    try:
        return bool(conn.get_server_pid() != await conn.fetchval("SELECT pg_backend_pid()"))
    finally:
        await conn.close()


async def _nothing_to_reset(_: Connection) -> None:
    """Spare one round trip a request: roles and settings are local to their transaction."""


async def fetch(pool: Pool, statement: str, *arguments: object) -> list[asyncpg.Record]:
    """Ask a function of the database that says itself for whom it acts: one round trip."""
    async with pool.acquire() as conn:
        return await conn.fetch(statement, *arguments)


@asynccontextmanager
async def transaction(
    pool: Pool, role: str, setting: str = "SET LOCAL lock_timeout = '5s'"
) -> AsyncIterator[Connection]:
    """Run the block in one transaction under `role`; `role` and `setting` are never user input."""
    async with pool.acquire() as conn:
        try:
            # One message instead of three round trips.
            await conn.execute(f"BEGIN; SET LOCAL ROLE {role}; {setting}")
            yield conn
        except BaseException:
            await _roll_back(conn)
            raise
        await conn.execute("COMMIT")


async def _roll_back(conn: Connection) -> None:
    """A connection that cannot roll back must not serve anybody else."""
    try:
        await conn.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        # The block's own error says what happened; this one only that nothing is left to undo.
        _discard(conn)
    except BaseException:
        _discard(conn)
        raise


def _discard(conn: Connection) -> None:
    # A connection that was lost has left the pool already, and may not be called again.
    with suppress(asyncpg.InterfaceError):
        conn.terminate()


def acting_as(
    pool: Pool, user_ids: UUID | Iterable[UUID], *, at_one_moment: bool = False
) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction that can see and write only rows of `user_ids`, and commit it.

    `at_one_moment`, for reading: all its statements see what the first one sees.
    """
    ids = [user_ids] if isinstance(user_ids, UUID) else user_ids
    # `hex` is of UUIDs alone: a text could not come into the statement.
    listed = ",".join(user_id.hex for user_id in ids)
    setting = f"SET LOCAL memory_layer.user_ids = '{{{listed}}}'"
    if at_one_moment:
        setting += "; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    return transaction(pool, "memory_layer_app", setting)


def acting_as_worker(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction of the embedding worker, which serves all users."""
    return transaction(pool, "memory_layer_worker")


def acting_as_meter(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction that reads what users may spend and writes what they have spent."""
    return transaction(pool, "memory_layer_meter")
