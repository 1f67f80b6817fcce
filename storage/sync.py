"""What changed of a user's memories since a number, for clients that keep a copy."""

from dataclasses import dataclass
from uuid import UUID

from storage.database import Connection
from storage.memory_store import COLUMNS, Memory, memory_from

# Of one page, unless its first memory alone is larger.
MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Change:
    """A memory as it stands, or None where it was deleted."""

    id: UUID
    change_seq: int
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class State:
    epoch: UUID
    change_seq: int
    purged_through: int


async def state(conn: Connection, user_id: UUID) -> State | None:
    """Return where the user's changes stand, or None before the first."""
    row = await conn.fetchrow(
        """
        SELECT epoch, change_seq, purged_through FROM memory_layer.user_state WHERE user_id = $1
        """,
        user_id,
    )
    return State(**row) if row else None


async def page(
    conn: Connection, user_id: UUID, behind: int, through: int, limit: int
) -> list[Change]:
    """Read changes with numbers above `behind` and up to `through`, in their order."""
    rows = await conn.fetch(
        f"""
        SELECT {COLUMNS}, change_seq, deleted_at IS NOT NULL AS deleted FROM (
            SELECT m.*, sum(coalesce(octet_length(prompt), 0) + coalesce(octet_length(response), 0)
                            + octet_length(metadata::text)) OVER (ORDER BY change_seq) AS bytes
              FROM (SELECT * FROM memory_layer.memories
                     WHERE user_id = $1 AND change_seq > $2 AND change_seq <= $3
                     ORDER BY change_seq LIMIT $4) m) sized
         WHERE bytes <= $5
            OR change_seq = (SELECT min(change_seq) FROM memory_layer.memories
                              WHERE user_id = $1 AND change_seq > $2)
         ORDER BY change_seq
        """,  # nosec B608 # made of the constant above
        user_id,
        behind,
        through,
        limit,
        MOST_BYTES,
    )
    return [
        Change(row["id"], row["change_seq"], None if row["deleted"] else memory_from(row))
        for row in rows
    ]
