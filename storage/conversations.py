"""A person's chats: memories grouped by the site's own conversation id."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.database import Connection


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    provider: str
    title: str | None
    memories: int
    first_at: datetime
    last_at: datetime


async def page(
    conn: Connection,
    user_id: UUID,
    provider: str | None,
    start: tuple[datetime, str, str] | None,
    limit: int,
) -> list[Conversation]:
    """Read `limit` conversations from behind `start`, a (last_at, provider, id), newest first."""
    rows = await conn.fetch(
        """
        WITH page AS (
            SELECT conversation_id AS id, provider, count(*) AS memories,
                   min(occurred_at) AS first_at, max(occurred_at) AS last_at
              FROM memory_layer.memories
             WHERE user_id = $1 AND deleted_at IS NULL AND conversation_id IS NOT NULL
               AND ($2::text IS NULL OR provider = $2)
             GROUP BY provider, conversation_id
            HAVING $3::timestamptz IS NULL
                OR (max(occurred_at), provider, conversation_id) < ($3, $4::text, $5::text)
             ORDER BY last_at DESC, provider DESC, id DESC
             LIMIT $6)
        SELECT page.*, (
                   SELECT conversation_title FROM memory_layer.memories
                    WHERE user_id = $1 AND provider = page.provider
                      AND conversation_id = page.id AND deleted_at IS NULL
                      AND conversation_title IS NOT NULL
                    ORDER BY occurred_at DESC LIMIT 1) AS title
          FROM page
         ORDER BY last_at DESC, provider DESC, id DESC
        """,
        user_id,
        provider,
        *(start or (None, None, None)),
        limit,
    )
    return [Conversation(**row) for row in rows]
