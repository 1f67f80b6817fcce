"""Accounts, sessions and signing keys of the local sign-in; not used with Supabase."""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from storage.database import Connection, Pool, transaction

EmailTaken = asyncpg.UniqueViolationError

# Two replicas that start on an empty database must not make a key each; "MLsigner".
SIGNING_KEY_LOCK = 0x4D4C7369676E6572


@dataclass(frozen=True, slots=True)
class Account:
    id: UUID
    email: str
    password_hash: str
    user_metadata: dict[str, object]
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """`idle` is how many seconds ago the session began or was last refreshed."""

    id: UUID
    user_id: UUID
    refresh_key: bytes
    refresh_counter: int
    created_at: datetime
    idle: float


def acting_as_auth(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction of the sign-in, which alone sees accounts."""
    return transaction(pool, "memory_layer_auth")


async def add_account(
    conn: Connection,
    user_id: UUID,
    email: str,
    password_hash: str,
    user_metadata: Mapping[str, object],
) -> bool:
    """Say whether the e-mail address was free."""
    status = await conn.execute(
        """
        INSERT INTO memory_layer_auth.users (id, email, password_hash, user_metadata)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (email) DO NOTHING
        """,
        user_id,
        email,
        password_hash,
        json.dumps(user_metadata),
    )
    return status == "INSERT 0 1"


async def account(conn: Connection, user_id: UUID) -> Account | None:
    row = await conn.fetchrow(
        """
        SELECT id, email, password_hash, user_metadata, created_at, updated_at, last_sign_in_at
          FROM memory_layer_auth.users
         WHERE id = $1
        """,
        user_id,
    )
    return _account(row)


async def lock_account(conn: Connection, user_id: UUID) -> Account | None:
    """As `account`, and keep others from changing it until this transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT id, email, password_hash, user_metadata, created_at, updated_at, last_sign_in_at
          FROM memory_layer_auth.users
         WHERE id = $1
           FOR NO KEY UPDATE
        """,
        user_id,
    )
    return _account(row)


async def credentials(conn: Connection, email: str) -> tuple[UUID, str] | None:
    """Return the id and the password's hash."""
    row = await conn.fetchrow(
        "SELECT id, password_hash FROM memory_layer_auth.users WHERE email = $1", email
    )
    return (row["id"], row["password_hash"]) if row else None


async def change_account(
    conn: Connection,
    user_id: UUID,
    email: str,
    password_hash: str,
    user_metadata: Mapping[str, object],
) -> None:
    """Raises EmailTaken when the e-mail address is another user's."""
    await conn.execute(
        """
        UPDATE memory_layer_auth.users
           SET email = $2, password_hash = $3, user_metadata = $4, updated_at = now()
         WHERE id = $1
        """,
        user_id,
        email,
        password_hash,
        json.dumps(user_metadata),
    )


async def begin_session(
    conn: Connection, session_id: UUID, user_id: UUID, password_hash: str, refresh_key: bytes
) -> Account | None:
    """Sign in, unless the password was changed since `password_hash` was read."""
    row = await conn.fetchrow(
        """
        WITH signed_in AS (
            UPDATE memory_layer_auth.users
               SET last_sign_in_at = now()
             WHERE id = $2 AND password_hash = $3
            RETURNING id, email, password_hash, user_metadata, created_at, updated_at,
                      last_sign_in_at
        ), begun AS (
            INSERT INTO memory_layer_auth.sessions (id, user_id, refresh_key)
            SELECT $1, id, $4 FROM signed_in
        )
        SELECT * FROM signed_in
        """,
        session_id,
        user_id,
        password_hash,
        refresh_key,
    )
    return _account(row)


async def session_exists(conn: Connection, user_id: UUID, session_id: UUID) -> bool:
    found = await conn.fetchval(
        "SELECT true FROM memory_layer_auth.sessions WHERE id = $1 AND user_id = $2",
        session_id,
        user_id,
    )
    return found is not None


async def lock_session(conn: Connection, session_id: UUID) -> Session | None:
    """Refreshes of one session wait for each other here."""
    row = await conn.fetchrow(
        """
        SELECT id, user_id, refresh_key, refresh_counter, created_at,
               extract(epoch FROM clock_timestamp() - refreshed_at)::float8 AS idle
          FROM memory_layer_auth.sessions
         WHERE id = $1
           FOR UPDATE
        """,
        session_id,
    )
    return Session(**row) if row else None


async def advance_session(conn: Connection, session_id: UUID) -> None:
    await conn.execute(
        """
        UPDATE memory_layer_auth.sessions
           SET refresh_counter = refresh_counter + 1, refreshed_at = clock_timestamp()
         WHERE id = $1
        """,
        session_id,
    )


async def end_session(conn: Connection, user_id: UUID, session_id: UUID) -> None:
    await conn.execute(
        "DELETE FROM memory_layer_auth.sessions WHERE id = $1 AND user_id = $2",
        session_id,
        user_id,
    )


async def end_sessions(conn: Connection, user_id: UUID, keep: UUID | None = None) -> None:
    """End all sessions of a user, or all but one. The caller holds the lock on the account."""
    await conn.execute(
        "DELETE FROM memory_layer_auth.sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2",
        user_id,
        keep,
    )


async def end_idle_sessions(conn: Connection, user_id: UUID, idle: float) -> None:
    """End what was not refreshed for `idle` seconds."""
    await conn.execute(
        """
        DELETE FROM memory_layer_auth.sessions
         WHERE user_id = $1 AND refreshed_at < now() - make_interval(secs => $2)
        """,
        user_id,
        idle,
    )


async def end_all_idle_sessions(conn: Connection, idle: float) -> int:
    """As `end_idle_sessions`, of everybody; return how many."""
    done = await conn.execute(
        """
        DELETE FROM memory_layer_auth.sessions
         WHERE refreshed_at < now() - make_interval(secs => $1)
        """,
        idle,
    )
    return int(done.removeprefix("DELETE "))


async def signing_keys(conn: Connection) -> list[str]:
    """Return the private keys as PEM, newest first; others wait until this transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", SIGNING_KEY_LOCK)
    rows = await conn.fetch(
        "SELECT private_pem FROM memory_layer_auth.signing_keys ORDER BY created_at DESC, kid"
    )
    return [row["private_pem"] for row in rows]


async def add_signing_key(conn: Connection, kid: str, private_pem: str) -> None:
    await conn.execute(
        "INSERT INTO memory_layer_auth.signing_keys (kid, private_pem) VALUES ($1, $2)",
        kid,
        private_pem,
    )


def _account(row: asyncpg.Record | None) -> Account | None:
    if row is None:
        return None
    return Account(**{**row, "user_metadata": json.loads(row["user_metadata"])})
