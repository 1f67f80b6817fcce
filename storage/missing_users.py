"""People with memories here whom the identity provider no longer knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.database import Connection


@dataclass(frozen=True, slots=True)
class MissingUser:
    user_id: UUID
    noticed_at: datetime


async def users_after(conn: Connection, user_id: UUID, limit: int) -> list[UUID]:
    """Everybody who ever saved something and was not erased, by id."""
    rows = await conn.fetch(
        """
        SELECT user_id FROM memory_layer.user_state
         WHERE user_id > $1 AND erased_at IS NULL ORDER BY user_id LIMIT $2
        """,
        user_id,
        limit,
    )
    return [row["user_id"] for row in rows]


async def report(conn: Connection, user_ids: Sequence[UUID]) -> None:
    """Keep the time at which somebody was first missed."""
    await conn.execute(
        """
        INSERT INTO memory_layer.missing_users (user_id) SELECT unnest($1::uuid[])
            ON CONFLICT (user_id) DO NOTHING
        """,
        user_ids,
    )


async def withdraw(conn: Connection, user_ids: Sequence[UUID]) -> None:
    await conn.execute(
        "DELETE FROM memory_layer.missing_users WHERE user_id = ANY ($1::uuid[])", user_ids
    )


async def listed(conn: Connection) -> list[MissingUser]:
    rows = await conn.fetch(
        "SELECT user_id, noticed_at FROM memory_layer.missing_users ORDER BY noticed_at, user_id"
    )
    return [MissingUser(**row) for row in rows]
