"""Personal API tokens: rows without the token, which only its hash finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from storage import erasure
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class ApiToken:
    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class Found(NamedTuple):
    """`seconds_left` is None for a token that does not expire."""

    token_hash: bytes
    user_id: UUID
    id: UUID
    scopes: list[str]
    seconds_left: float | None
    is_due: bool


async def add(
    conn: Connection, user_id: UUID, token_hash: bytes, new: ApiToken, most: int
) -> ApiToken | None:
    """Return what was added, or None when the user has `most` tokens or was erased."""
    await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", erasure.LOCK)
    # One at a time for each user, or two would both be the last that is allowed.
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", str(user_id))
    row = await conn.fetchrow(
        """
        INSERT INTO memory_layer.api_tokens (user_id, id, token_hash, name, scopes, expires_at)
        SELECT $1, $2, $3, $4, $5, $6
         WHERE (SELECT count(*) FROM memory_layer.api_tokens WHERE user_id = $1) < $7
           AND NOT EXISTS (SELECT FROM memory_layer.user_state
                            WHERE user_id = $1 AND erased_at IS NOT NULL)
        RETURNING id, name, scopes, created_at, expires_at, last_used_at
        """,
        user_id,
        new.id,
        token_hash,
        new.name,
        new.scopes,
        new.expires_at,
        most,
    )
    return ApiToken(**row) if row else None


async def list_for_user(conn: Connection, user_id: UUID) -> list[ApiToken]:
    rows = await conn.fetch(
        """
        SELECT id, name, scopes, created_at, expires_at, last_used_at
          FROM memory_layer.api_tokens
         WHERE user_id = $1
         ORDER BY created_at, id
        """,
        user_id,
    )
    return [ApiToken(**row) for row in rows]


async def delete(conn: Connection, user_id: UUID, token_id: UUID) -> bool:
    """Say whether there was such a token to delete."""
    status = await conn.execute(
        "DELETE FROM memory_layer.api_tokens WHERE user_id = $1 AND id = $2", user_id, token_id
    )
    return status == "DELETE 1"


async def find(conn: Connection, hashes: Sequence[bytes]) -> list[Found]:
    """Find whose these are; unknown and expired ones are left out. Needs no acting user.

    A token is due when its last use is unknown or was noted a minute ago.
    """
    rows = await conn.fetch(
        """
        SELECT token_hash, user_id, id, scopes, seconds_left,
               last_used_at IS NULL OR last_used_at < now() - interval '1 minute' AS is_due
          FROM memory_layer.find_api_tokens($1)
        """,
        hashes,
    )
    return [Found(**row) for row in rows]


async def note_use(conn: Connection, tokens: Sequence[tuple[UUID, UUID]]) -> None:
    """Note that each (user id, token id) is used now; whom another replica notes is left to it."""
    await conn.execute(
        """
        WITH due AS (
            SELECT user_id, id FROM memory_layer.api_tokens
             WHERE (user_id, id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
               FOR UPDATE SKIP LOCKED)
        UPDATE memory_layer.api_tokens t SET last_used_at = now()
          FROM due WHERE t.user_id = due.user_id AND t.id = due.id
        """,
        [user_id for user_id, _ in tokens],
        [token_id for _, token_id in tokens],
    )
