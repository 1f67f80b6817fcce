"""Reading, editing and deleting one's own memories, and saying 403 or 404 where it is not."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from core.capture import content_hash, is_edited, text_hash
from core.errors import AccountErased, ChangedMeanwhile, Forbidden, NotFound
from storage import memory_store, versions
from storage.database import Connection, Pool, acting_as
from storage.memory_store import Memory, Row
from storage.versions import Version


async def read(pool: Pool, user_id: UUID, memory_id: UUID) -> Memory:
    """Raises Forbidden for somebody else's memory, NotFound for nobody's and a deleted one."""
    async with acting_as(pool, user_id) as conn:
        return await memory_store.read(conn, user_id, memory_id) or await refuse(conn, memory_id)


def etag_of(memory: Memory) -> str:
    """Name this state of the memory; that it is being embedded is none of its states."""
    stated = replace(memory, embedding_state="open", updated_at=datetime.min.replace(tzinfo=UTC))
    return f'"{hashlib.sha256(repr(stated).encode()).hexdigest()[:32]}"'


async def edit(
    pool: Pool,
    user_id: UUID,
    memory_id: UUID,
    changes: dict[str, Any],
    if_match: str | None = None,
) -> Memory:
    """Change texts or facts; what was captured stays known, so that a retry changes nothing.

    Raises ChangedMeanwhile where `if_match` is given and is not the ETag of what stands.
    """
    async with acting_as(pool, user_id) as conn:
        number = await lock(conn, user_id)
        if if_match is not None:
            await _must_match(conn, user_id, memory_id, if_match)
        return await _edit(conn, user_id, memory_id, changes, number)


async def _must_match(conn: Connection, user_id: UUID, memory_id: UUID, if_match: str) -> None:
    memory = await memory_store.read(conn, user_id, memory_id) or await refuse(conn, memory_id)
    accepted = {tag.strip() for tag in if_match.split(",")}
    if not accepted & {etag_of(memory), "*"}:
        raise ChangedMeanwhile(memory=memory, etag=etag_of(memory))


async def _edit(
    conn: Connection, user_id: UUID, memory_id: UUID, changes: dict[str, Any], number: int
) -> Memory:
    """The user is locked. Where nothing changes, no version is made."""
    rows = await memory_store.rows_of(conn, [(user_id, memory_id)])
    row = rows.get((user_id, memory_id))
    if row is None or row.deleted_at is not None:
        return await refuse(conn, memory_id)
    columns = _columns(row, changes)
    if not columns:
        return await memory_store.read(conn, user_id, memory_id) or await refuse(conn, memory_id)
    await versions.keep(conn, user_id, memory_id)
    edited = await memory_store.edit(conn, user_id, memory_id, columns, number)
    return edited or await refuse(conn, memory_id)


def _columns(row: Row, changes: dict[str, Any]) -> dict[str, Any]:
    """Return what must be written for the changes: nothing where all is so already."""
    hashed = row.content_hash
    for side in {"prompt", "response"} & changes.keys():
        hashed = content_hash(hashed, side, text_hash(changes[side]))
    columns: dict[str, Any] = {}
    if hashed != row.content_hash:
        columns = {side: changes[side] for side in ("prompt", "response") if side in changes}
        written = replace(row, content_hash=hashed)
        edited = any(is_edited(written, side) for side in ("prompt", "response"))
        columns |= {"content_hash": hashed, "edited": edited}
    title = changes.get("conversation_title", row.conversation_title)
    if title != row.conversation_title:
        columns["conversation_title"] = title
    metadata = changes.get("metadata")
    if metadata is not None and metadata != json.loads(row.metadata):
        columns["metadata"] = json.dumps(metadata)
    return columns


async def list_versions(pool: Pool, user_id: UUID, memory_id: UUID) -> list[Version]:
    """Return what a living memory was before its edits, newest first."""
    async with acting_as(pool, user_id) as conn:
        if not await memory_store.read(conn, user_id, memory_id):
            await refuse(conn, memory_id)
        return await versions.listed(conn, user_id, memory_id)


async def restore_version(pool: Pool, user_id: UUID, memory_id: UUID, number: int) -> Memory:
    """Make a memory what it was; what it is becomes a version. A text that it did not have yet
    stays as it is."""
    async with acting_as(pool, user_id) as conn:
        change_seq = await lock(conn, user_id)
        version = await versions.read(conn, user_id, memory_id, number)
        if version is None:
            await refuse(conn, memory_id)
        changes = {"conversation_title": version.conversation_title, "metadata": version.metadata}
        texts = {"prompt": version.prompt, "response": version.response}
        changes |= {side: text for side, text in texts.items() if text is not None}
        return await _edit(conn, user_id, memory_id, changes, change_seq)


async def delete(pool: Pool, user_id: UUID, memory_id: UUID) -> None:
    """Move a memory to the trash; everywhere else it is gone with the COMMIT."""
    async with acting_as(pool, user_id) as conn:
        number = await lock(conn, user_id)
        await versions.keep(conn, user_id, memory_id, deleting=True)
        if not await memory_store.delete(conn, user_id, memory_id, number):
            await refuse(conn, memory_id)


async def lock(conn: Connection, user_id: UUID, count: int = 1) -> int:
    """Lock the user, and return the last of the numbers of `count` changes."""
    numbers = await memory_store.take_numbers(conn, {user_id: count})
    if user_id not in numbers:
        raise AccountErased
    return numbers[user_id]


async def refuse(conn: Connection, memory_id: UUID) -> NoReturn:
    """Raises Forbidden for what somebody else has, and NotFound."""
    if await memory_store.is_somebody_elses(conn, memory_id):
        raise Forbidden(memory_id=str(memory_id))
    raise NotFound("There is no such memory.", memory_id=str(memory_id))
