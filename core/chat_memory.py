"""What of a chat becomes a memory: the person's last turn, and the reply to it."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import structlog

from core.capture import Capture
from core.errors import AppError, Conflict, Unavailable
from core.providers.format import Said
from core.save_queue import SaveQueue
from storage import memory_store
from storage.database import DATABASE_AWAY, Pool, acting_as
from storage.ids import uuid7

log = structlog.get_logger()

MOST_TEXT_BYTES = 1024 * 1024
# A retry, or the next call of a chat that uses tools, comes within minutes.
SAME_TURN = 900  # seconds
TRIES = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn belongs, beside its text."""

    provider: str
    model: str
    source: str
    conversation_id: str | None = None
    conversation_title: str | None = None


class ChatMemory:
    """The memory of one turn. The same turn of the same chat, sent again, is the same memory."""

    def __init__(
        self, pool: Pool, saves: SaveQueue, user_id: UUID, turns: Sequence[str], place: Place
    ) -> None:
        self.reply_is_saved = False
        self._pool = pool
        self._saves = saves
        self._earlier_id, memory_id = _ids_of(user_id, turns)
        self._prompt = Capture(
            user_id,
            memory_id,
            "prompt",
            _storable(turns[-1]),
            provider=place.provider,
            model=place.model,
            source=place.source,
            conversation_id=place.conversation_id,
            conversation_title=place.conversation_title,
        )

    @property
    def id(self) -> UUID:
        """Known when the prompt is saved."""
        return self._prompt.id

    async def save_prompt(self) -> None:
        if await self._was_said_a_moment_ago():
            self._prompt = replace(self._prompt, id=self._earlier_id)
        await self._saves.save(self._prompt)

    async def _was_said_a_moment_ago(self) -> bool:
        key = self._prompt.user_id, self._earlier_id
        try:
            async with acting_as(self._pool, key[0]) as conn:
                row = (await memory_store.rows_of(conn, [key])).get(key)
        except DATABASE_AWAY:
            return False  # The save itself says what is to be said of it.
        since = datetime.now(UTC) - timedelta(seconds=SAME_TURN)
        return row is not None and row.created_at is not None and row.created_at > since

    async def save_reply(self, said: Said, text: str | None = None) -> None:
        """Save what was said, or `text` in its place; a reply without text is none.

        Nobody waits for it any more, so a database that is away for a moment is asked again.
        """
        text = _storable(said.text if text is None else text)
        if not text:
            return
        is_whole = said.finished and not said.failed and not said.is_cut
        reply = replace(
            self._prompt,
            side="response",
            text=text,
            status="complete" if is_whole else "partial",
            model=said.model or self._prompt.model,
        )
        for attempt in range(TRIES):
            try:
                await self._save(reply)
                self.reply_is_saved = True
                return
            except Unavailable:
                await asyncio.sleep(attempt)
            except AppError as error:
                log.warning("reply_not_saved", error=error.code)
                return
        log.warning("reply_not_saved", error=Unavailable.code)

    async def _save(self, reply: Capture) -> None:
        try:
            await self._saves.save(reply)
        except Conflict:
            # The same words were said before and answered otherwise: that is a memory of its own.
            self._prompt = replace(self._prompt, id=uuid7())
            await self._saves.save(self._prompt)
            await self._saves.save(replace(reply, id=self._prompt.id))


def make_memory(
    pool: Pool, saves: SaveQueue, user_id: UUID, turns: Sequence[str], place: Place
) -> ChatMemory | None:
    """None where nothing was said, or more than a memory can hold."""
    if not turns or len(turns[-1].encode("utf-8", "replace")) > MOST_TEXT_BYTES:
        return None
    return ChatMemory(pool, saves, user_id, turns, place)


def _ids_of(user_id: UUID, turns: Sequence[str]) -> tuple[UUID, UUID]:
    """The ids of the turn if it was said in the stretch of SAME_TURN before, and in this one."""
    said = b"".join(hashlib.sha256(turn.encode("utf-8", "replace")).digest() for turn in turns)

    def in_stretch(number: int) -> UUID:
        return uuid5(user_id, hashlib.sha256(str(number).encode() + said).hexdigest())

    now = int(time.time()) // SAME_TURN
    return in_stretch(now - 1), in_stretch(now)


def _storable(text: str) -> str:
    """Postgres cannot keep NUL."""
    return text.replace("\0", "\ufffd")
