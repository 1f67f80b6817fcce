"""The operator's sessions, and the record of what operators did."""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.database import Connection, Pool, transaction


@dataclass(frozen=True, slots=True)
class Deed:
    """`actor` names the key by the first characters of its hash, never a person's data."""

    id: int
    at: datetime
    actor: str
    address: str | None
    action: str
    user_id: UUID | None
    details: dict[str, Any]


def acting_as_admin(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """Open a transaction that sees counts, tiers and traffic of all users, and no text of any.

    A statement that takes long is given up: a look at the panel must not slow down saves.
    """
    return transaction(
        pool,
        "memory_layer_admin",
        "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5s'",
    )


async def begin_session(
    conn: Connection, token_hash: bytes, key_hash: bytes, seconds: int
) -> datetime:
    """Return when it ends; sessions that have ended are taken away."""
    await conn.execute("DELETE FROM memory_layer.admin_sessions WHERE expires_at < now()")
    expires_at: datetime = await conn.fetchval(
        """
        INSERT INTO memory_layer.admin_sessions (token_hash, key_hash, expires_at)
        VALUES ($1, $2, now() + make_interval(secs => $3)) RETURNING expires_at
        """,
        token_hash,
        key_hash,
        seconds,
    )
    return expires_at


async def session(conn: Connection, token_hash: bytes) -> tuple[bytes, datetime] | None:
    """Return the hash of the key that it was begun with, and when it ends."""
    row = await conn.fetchrow(
        """
        SELECT key_hash, expires_at FROM memory_layer.admin_sessions
         WHERE token_hash = $1 AND expires_at > now()
        """,
        token_hash,
    )
    return (row["key_hash"], row["expires_at"]) if row else None


async def end_session(conn: Connection, token_hash: bytes) -> None:
    await conn.execute("DELETE FROM memory_layer.admin_sessions WHERE token_hash = $1", token_hash)


async def note(
    conn: Connection,
    actor: str,
    address: str | None,
    action: str,
    user_id: UUID | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    await conn.execute(
        """
        INSERT INTO memory_layer.admin_audit (actor, address, action, subject, details)
        VALUES ($1, $2, $3, $4, $5)
        """,
        actor,
        address,
        action,
        user_id,
        json.dumps(details or {}),
    )


async def deeds(
    conn: Connection, before: int | None, limit: int, user_id: UUID | None = None
) -> list[Deed]:
    """Return the newest first, from below the id `before`; of one user where it is named."""
    rows = await conn.fetch(
        """
        SELECT id, at, actor, address, action, subject AS user_id, details
          FROM memory_layer.admin_audit
         WHERE ($1::bigint IS NULL OR id < $1) AND ($2::uuid IS NULL OR subject = $2)
         ORDER BY id DESC LIMIT $3
        """,
        before,
        user_id,
        limit,
    )
    return [Deed(**{**row, "details": json.loads(row["details"])}) for row in rows]
