"""A chat with a model: memories go in, and what was said becomes a memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from core.answer_text import AnswerText
from core.chat_memory import ChatMemory, Place, make_memory
from core.context import recall_for_turns
from core.conversation import turns_of, with_block
from core.errors import AppError
from core.injection import Source, fence
from core.model_call import Call, begin
from core.providers.provider import Provider
from core.resources import Resources


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks of a provider, in its protocol; `place` says what becomes of it."""

    user_id: UUID
    provider: Provider
    body: Mapping[str, Any]
    place: Place
    reads: bool = True
    writes: bool = True
    own_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Chat:
    """A reply on its way, the memories it could draw on, and the one that it becomes part of."""

    def __init__(self, call: Call, sources: list[Source], memory: ChatMemory | None) -> None:
        self.call = call
        self.sources = sources
        self.memory = memory

    def close(self) -> None:
        """End the call, if nobody read it to its end."""
        self.call.close()

    async def saved(self) -> None:
        """Wait until the reply is a memory."""
        await asyncio.shield(self.call.close())

    async def relayed(self) -> AsyncIterator[bytes]:
        """The provider's bytes as they come. What they say is saved, also when nobody listens."""
        try:
            async for chunk, _ in self.call.parts():
                yield chunk
        finally:
            self.call.reading.end()
            self.call.close(self.memory.save_reply if self.memory else None)

    async def texts(self) -> AsyncIterator[str]:
        """The text as it comes; the last part is given when the reply is saved."""
        cleaned = AnswerText() if self.sources else None
        shown: list[str] = []

        async def save() -> None:
            if self.memory:
                await self.memory.save_reply(self.call.said, "".join(shown))

        try:
            async for text in self.call.texts():
                if new := cleaned.feed(text) if cleaned else text:
                    shown.append(new)
                    yield new
            if cleaned and (new := cleaned.end()):
                shown.append(new)
                yield new
        finally:
            self.call.close(lambda _: save())
        await self.saved()


async def start(res: Resources, wish: Wish) -> Chat:
    """Recall, save what the person said, and return when the reply has begun.

    What was said is saved also when the provider fails. Raises TokensSpent, ProviderFailed,
    ProviderTooSlow and Unavailable.
    """
    turns = turns_of(wish.body.get("messages"))
    sources: list[Source] = []
    body = wish.body
    if wish.reads:
        budget = res.settings.memory_tokens
        sources = await recall_for_turns(res.retrieval, wish.user_id, turns, budget)
    if sources:
        body = {**body, "messages": with_block(body["messages"], fence(sources))}
    memory = None
    if wish.writes:
        memory = make_memory(res.db, res.saves, wish.user_id, turns, wish.place)
    saving = res.errands.add(memory.save_prompt()) if memory else None
    try:
        call = await begin(res, wish.user_id, wish.provider, body, wish.own_key, wish.headers)
    except AppError:
        if saving:
            await asyncio.wait([saving])
        raise
    try:
        if saving:
            await asyncio.shield(saving)
    except BaseException:
        call.close()
        raise
    return Chat(call, sources, memory)
