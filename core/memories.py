"""Reading, editing and deleting one's own memories, and saying 403 or 404 where it is not."""

import json
from typing import Any
from uuid import UUID

from core.capture import content_hash, text_hash
from core.errors import AccountErased, Forbidden, NotFound
from storage import memory_store
from storage.database import Connection, Pool, acting_as
from storage.memory_store import Memory


async def read(pool: Pool, user_id: UUID, memory_id: UUID) -> Memory:
    """Raises Forbidden for somebody else's memory, NotFound for nobody's and a deleted one."""
    async with acting_as(pool, user_id) as conn:
        return await memory_store.read(conn, user_id, memory_id) or await _refuse(conn, memory_id)


async def edit(pool: Pool, user_id: UUID, memory_id: UUID, changes: dict[str, Any]) -> Memory:
    """Change texts or facts; what was captured stays known, so that a retry changes nothing."""
    async with acting_as(pool, user_id) as conn:
        number = await _next_number(conn, user_id)
        rows = await memory_store.rows_of(conn, [(user_id, memory_id)])
        row = rows.get((user_id, memory_id))
        if row is None or row.deleted_at is not None:
            return await _refuse(conn, memory_id)
        columns = dict(changes)
        if "metadata" in columns:
            columns["metadata"] = json.dumps(columns["metadata"])
        hashed = row.content_hash
        for side in {"prompt", "response"} & columns.keys():
            hashed = content_hash(hashed, side, text_hash(columns[side]))
        if hashed != row.content_hash:
            columns |= {"content_hash": hashed, "edited": True}
        edited = await memory_store.edit(conn, user_id, memory_id, columns, number)
        return edited or await _refuse(conn, memory_id)


async def delete(pool: Pool, user_id: UUID, memory_id: UUID) -> None:
    async with acting_as(pool, user_id) as conn:
        number = await _next_number(conn, user_id)
        if not await memory_store.delete(conn, user_id, memory_id, number):
            await _refuse(conn, memory_id)


async def _next_number(conn: Connection, user_id: UUID) -> int:
    numbers = await memory_store.take_numbers(conn, {user_id: 1})
    if user_id not in numbers:
        raise AccountErased
    return numbers[user_id]


async def _refuse(conn: Connection, memory_id: UUID) -> Memory:
    if await memory_store.is_somebody_elses(conn, memory_id):
        raise Forbidden(memory_id=str(memory_id))
    raise NotFound("There is no such memory.", memory_id=str(memory_id))
