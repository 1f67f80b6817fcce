"""One call to a model provider: its tokens are set aside before, and counted when it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import orjson

from core.conversation import texts_of
from core.errors import ProviderFailed
from core.injection import tokens_of
from core.providers.format import Said
from core.providers.provider import Provider, Upstream
from core.providers.reading import Reading
from core.resources import Resources

ASSUMED_REPLY = 1_000  # tokens that are set aside for it

AtTheEnd = Callable[[Said], Awaitable[None]]


class Call:
    """A reply that has begun; `close` must follow, and may come at any time.

    Tokens are counted by the provider where it says so, otherwise about; of a caller's own key
    they are no matter of ours.
    """

    def __init__(
        self,
        res: Resources,
        user_id: UUID,
        upstream: Upstream,
        reading: Reading,
        promised: int | None,
        prompt_tokens: int,
    ) -> None:
        self.content_type = upstream.content_type
        self.reading = reading
        self._res = res
        self._user_id = user_id
        self._upstream = upstream
        self._promised = promised
        self._prompt_tokens = prompt_tokens
        self._closing: asyncio.Task[None] | None = None

    @property
    def said(self) -> Said:
        return self.reading.said

    @property
    def used_tokens(self) -> int:
        said = self.said
        spent = said.output_tokens or -(-said.characters // 4)
        return (said.input_tokens or self._prompt_tokens) + spent

    async def parts(self) -> AsyncIterator[tuple[bytes, str]]:
        """Each chunk as it came, and the text in it. Raise ProviderFailed where it breaks off."""
        async for chunk in self._upstream.chunks():
            yield chunk, self.reading.feed(chunk)

    async def texts(self) -> AsyncIterator[str]:
        """The text alone, for those who speak no provider's protocol."""
        async for _, text in self.parts():
            if text:
                yield text
            if self.said.failed:
                break
        if text := self.reading.end():
            yield text
        if self.said.failed or not self.said.finished:
            raise ProviderFailed("The reply broke off.")

    def close(self, at_the_end: AtTheEnd | None = None) -> asyncio.Task[None]:
        """Give the connection back, count, and do what is to be done at the end, once."""
        if self._closing is None:
            self._closing = self._res.errands.add(self._end(at_the_end))
        return self._closing

    async def _end(self, at_the_end: AtTheEnd | None) -> None:
        await self._upstream.close()
        if self._promised is not None:
            await self._res.limiter.settle_tokens(self._user_id, self._promised, self.used_tokens)
        if at_the_end:
            await at_the_end(self.said)


async def begin(
    res: Resources,
    user_id: UUID,
    provider: Provider,
    body: Mapping[str, Any],
    own_key: str | None,
    headers: Mapping[str, str] | None = None,
) -> Call:
    """Call, and return when the reply has begun.

    Raises TokensSpent, ProviderFailed and ProviderTooSlow.
    """
    content = orjson.dumps(body)
    stream = body.get("stream") is True
    prompt_tokens = sum(tokens_of(text) for text in texts_of(body))
    promised = None
    if own_key is None:
        promised = prompt_tokens + ASSUMED_REPLY
        await res.limiter.promise_tokens(user_id, promised, prompt_tokens)
    try:
        upstream = await provider.open(content, stream=stream, own_key=own_key, headers=headers)
    except BaseException:
        if promised is not None:
            res.errands.add(res.limiter.settle_tokens(user_id, promised, 0))
        raise
    reading = Reading(provider.format, stream=stream)
    return Call(res, user_id, upstream, reading, promised, prompt_tokens)
