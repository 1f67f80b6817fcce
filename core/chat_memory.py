"""What of a chat becomes a memory: the person's last turn, and the reply to it."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

import structlog

from core.capture import Capture
from core.errors import AppError, Conflict, Unavailable
from core.providers.format import Said
from core.save_queue import SaveQueue
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

    def __init__(self, saves: SaveQueue, user_id: UUID, turns: Sequence[str], place: Place) -> None:
        self.reply_is_saved = False
        self._saves = saves
        self._prompt = Capture(
            user_id,
            _id_of(user_id, turns),
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
        return self._prompt.id

    async def save_prompt(self) -> None:
        await self._saves.save(self._prompt)

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
    saves: SaveQueue, user_id: UUID, turns: Sequence[str], place: Place
) -> ChatMemory | None:
    """None where nothing was said, or more than a memory can hold."""
    if not turns or len(turns[-1].encode("utf-8", "replace")) > MOST_TEXT_BYTES:
        return None
    return ChatMemory(saves, user_id, turns, place)


def _id_of(user_id: UUID, turns: Sequence[str]) -> UUID:
    digest = hashlib.sha256(str(int(time.time()) // SAME_TURN).encode())
    for turn in turns:
        digest.update(hashlib.sha256(turn.encode("utf-8", "replace")).digest())
    return uuid5(user_id, digest.hexdigest())


def _storable(text: str) -> str:
    """Postgres cannot keep NUL."""
    return text.replace("\0", "\ufffd")
