"""A zip of everything that a user has, made as it is sent: nothing of it waits on a disk."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from stream_zip import ZIP_64, async_stream_zip

from core import age
from core.errors import Conflict, Unavailable
from storage import exports
from storage.database import Connection, Pool, acting_as
from storage.exports import Kept
from storage.memory_store import Memory

VERSION = 1
MOST_AT_ONCE = 4
_MODE = 0o600
Read = Callable[[Connection, UUID, Memory | None], Awaitable[list[Kept]]]
File = tuple[str, datetime, int, Any, AsyncIterator[bytes]]


class Exports:
    """Counts the exports that run in this process: they are long, and each takes a core's part."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._running: set[UUID] = set()

    async def begin(self, user_id: UUID, passphrase: str | None) -> AsyncIterator[bytes]:
        """Return the export's bytes, as they are made while they are taken.

        Raises Conflict where the user's last one still runs, and Unavailable where too many do.
        """
        if user_id in self._running:
            raise Conflict("Your last export still runs.")
        if len(self._running) >= MOST_AT_ONCE:
            raise Unavailable("Too many exports run; try again shortly.")
        sealed = await asyncio.to_thread(age.header, passphrase) if passphrase else None
        plain = _zip(self._pool, user_id)
        return self._counted(user_id, age.encrypted(sealed, plain) if sealed else plain)

    async def _counted(self, user_id: UUID, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async with self._place(user_id):
            async for part in parts:
                yield part

    @asynccontextmanager
    async def _place(self, user_id: UUID) -> AsyncIterator[None]:
        self._running.add(user_id)
        try:
            yield
        finally:
            self._running.discard(user_id)


@dataclass(slots=True)
class _Summary:
    """What the manifest says of some files, taken together and in their order."""

    files: int = 0
    memories: int = 0
    size: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)

    def add(self, written: bytes) -> bytes:
        self.size += len(written)
        self.sha256.update(written)
        return written

    def told(self) -> dict[str, object]:
        return {
            "files": self.files,
            "memories": self.memories,
            "bytes": self.size,
            "sha256": self.sha256.hexdigest(),
        }


async def _zip(pool: Pool, user_id: UUID) -> AsyncIterator[bytes]:
    async for part in async_stream_zip(_files(pool, user_id)):
        yield part


async def _files(pool: Pool, user_id: UUID) -> AsyncIterator[File]:
    now = datetime.now(UTC)
    lines, markdown = _Summary(files=1), _Summary()
    yield "memories.jsonl", now, _MODE, ZIP_64, _lines(pool, user_id, lines)
    async for name, text in _conversations(pool, user_id, markdown):
        markdown.files += 1
        yield f"markdown/{name}", now, _MODE, ZIP_64, text
    yield "manifest.json", now, _MODE, ZIP_64, _manifest(now, lines, markdown)


async def _manifest(now: datetime, lines: _Summary, markdown: _Summary) -> AsyncIterator[bytes]:
    """Asked for last, when all has been counted."""
    told = {
        "format": "memory-layer-export",
        "version": VERSION,
        "exported_at": now.isoformat(),
        "memories.jsonl": lines.told(),
        "markdown": markdown.told(),
    }
    yield json.dumps(told, indent=2).encode() + b"\n"


async def _pages(pool: Pool, user_id: UUID, read: Read) -> AsyncIterator[list[Kept]]:
    """Each page is a transaction of its own, so that no export holds one open."""
    last: Memory | None = None
    while True:
        async with acting_as(pool, user_id) as conn:
            page = await read(conn, user_id, last)
        if not page:
            return
        yield page
        last = page[-1].memory


async def _lines(pool: Pool, user_id: UUID, summary: _Summary) -> AsyncIterator[bytes]:
    async for page in _pages(pool, user_id, exports.by_time):
        summary.memories += len(page)
        yield summary.add(await asyncio.to_thread(_written, page))


def _written(page: list[Kept]) -> bytes:
    return b"".join(map(line, page))


def line(kept: Kept) -> bytes:
    """Write a memory so that an import makes the same of it; what an import sets comes last."""
    memory = kept.memory
    told: dict[str, Any] = {
        "id": str(memory.id),
        "prompt": memory.prompt,
        "response": memory.response,
        "status": memory.status,
        "provider": memory.provider,
        "model": memory.model,
        "conversation_id": memory.conversation_id,
        "conversation_title": memory.conversation_title,
        "url": memory.url,
        "source": memory.source,
        "metadata": memory.metadata,
        "edited": memory.edited,
        "occurred_at": memory.occurred_at.isoformat(),
    }
    captured = {
        side: capture and capture.hex()
        for side, capture, half in (
            ("prompt", kept.prompt_capture, kept.content_hash[:16]),
            ("response", kept.response_capture, kept.content_hash[16:]),
        )
        if (capture or bytes(16))[:16] != half
    }
    if captured:
        told["captured"] = captured
    told["created_at"] = memory.created_at.isoformat()
    told["updated_at"] = memory.updated_at.isoformat()
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _conversations(
    pool: Pool, user_id: UUID, summary: _Summary
) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Yield a file's name and its text, which is to be taken before the next file."""
    for read, key in ((exports.by_conversation, _conversation), (exports.alone, _month)):
        cursor = _Cursor(_pages(pool, user_id, read), key)
        while first := await cursor.first():
            yield _name(first, key(first)), _document(cursor, first, summary)


class _Cursor:
    """Memories one by one, and where one document of them ends and the next begins."""

    def __init__(
        self, pages: AsyncIterator[list[Kept]], key: Callable[[Memory], tuple[str, ...]]
    ) -> None:
        self._pages = pages
        self._key = key
        self._runs: list[list[Memory]] = []

    async def first(self) -> Memory | None:
        while not self._runs:
            page = await anext(self._pages, None)
            if page is None:
                return None
            memories = [kept.memory for kept in page]
            self._runs = [list(run) for _, run in groupby(memories, self._key)]
        return self._runs[0][0]

    async def runs(self, first: Memory) -> AsyncIterator[list[Memory]]:
        """Yield the memories that belong with `first`, across pages."""
        while (found := await self.first()) and self._key(found) == self._key(first):
            yield self._runs.pop(0)


def _conversation(memory: Memory) -> tuple[str, ...]:
    return memory.provider, memory.conversation_id or ""


def _month(memory: Memory) -> tuple[str, ...]:
    return (f"{memory.occurred_at:%Y-%m}",)


def _name(first: Memory, key: tuple[str, ...]) -> str:
    """Name a file after what is in it, in letters that every file system takes."""
    if first.conversation_id is None:
        return f"without conversation/{key[0]}.md"
    title = re.sub(r"[^\w-]+", " ", first.conversation_title or "untitled").strip()[:60]
    unique = hashlib.sha256("\n".join(key).encode()).hexdigest()[:12]
    provider = re.sub(r"[^\w-]+", "-", first.provider)
    return f"{provider}/{first.occurred_at:%Y-%m-%d} {title} {unique}.md"


async def _document(cursor: _Cursor, first: Memory, summary: _Summary) -> AsyncIterator[bytes]:
    title = first.conversation_title or "Untitled"
    about = [f"# {title if first.conversation_id else f'{first.occurred_at:%B %Y}'}"]
    if first.url and first.conversation_id:
        about.append(f"<{first.url}>")
    yield summary.add("\n\n".join(about).encode() + b"\n")
    async for memories in cursor.runs(first):
        summary.memories += len(memories)
        yield summary.add("".join(map(_markdown, memories)).encode())


def _markdown(memory: Memory) -> str:
    who = f"{memory.provider} ({memory.model})" if memory.model else memory.provider
    said = ""
    if memory.prompt is not None:
        said += f"\n## You, {memory.occurred_at:%Y-%m-%d %H:%M} UTC\n\n{memory.prompt}\n"
    if memory.response is not None:
        said += f"\n## {who}\n\n{memory.response}\n"
    return said
