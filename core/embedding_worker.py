"""Embeds what has been saved, behind the acknowledgement; several replicas share the work."""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from core.embeddings import Embedder, EmbedderUnavailable, Span, TextRefused
from storage import embedding_queue
from storage.database import Pool
from storage.embedding_queue import Embedded, EmbeddedChunk, Leased

log = structlog.get_logger()

# A prompt or answer of a megabyte would be a thousand chunks; its beginning stands for it, and
# keywords find the rest.
MOST_CHUNKS = {"prompt": 16, "response": 32}
# Another replica's unfinished work is noticed within this time, one's own at once.
LOOK_EVERY_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
# What is saved one by one is found by its words at once, and embedded together: for each memory
# alone the same takes three times as much of the service.
GATHER_SECONDS = 0.25
# So many times as long as the event loop is late, it rests after each turn.
RESTS = 20
MOST_REST_SECONDS = 1.0
# Only a new setting makes other models' vectors. Not more often, lest two replicas with different
# embedders, as during a deploy, undo each other's work without end.
REOPEN_EVERY_SECONDS = 600.0
NOBODY = UUID(int=0)


class EmbeddingWorker:
    def __init__(self, pool: Pool, embedder: Embedder) -> None:
        self._pool = pool
        self._embedder = embedder
        self._last_user = NOBODY
        self._arrived = asyncio.Event()
        self._failures = 0
        self._looked_for_old_models = -REOPEN_EVERY_SECONDS
        self.state = "ok"

    def wake(self) -> None:
        self._arrived.set()

    async def run(self) -> None:
        """Work until cancelled; raises what the database raises when it is away."""
        while True:
            self._arrived.clear()
            leased = await embedding_queue.lease(self._pool, self._last_user)
            if leased:
                self._last_user = max(item.user_id for item in leased)
                await self._embed(leased)
                await self._give_way(GATHER_SECONDS if embedding_queue.is_all(leased) else 0)
            elif self._last_user != NOBODY:
                self._last_user = NOBODY
                await embedding_queue.give_up_on_deadly(self._pool)
            elif not await self._reopen_other_models():
                await self._pause(LOOK_EVERY_SECONDS)

    async def _embed(self, leased: Sequence[Leased]) -> None:
        try:
            await self._embed_together(leased)
        except TextRefused as error:
            if len(leased) > 1:
                for item in leased:
                    await self._embed([item])
                return
            log.warning("memory_not_embedded", memory_id=str(leased[0].id), error=str(error)[:200])
            await embedding_queue.set_aside(self._pool, leased[0])
        except EmbedderUnavailable as error:
            await self._wait_for_embedder(leased, error)
        except asyncio.CancelledError:
            # Another replica, or the next start, need not wait for the lease to end.
            await embedding_queue.give_back(self._pool, leased, 0)
            raise
        else:
            self._failures, self.state = 0, "ok"

    async def _embed_together(self, leased: Sequence[Leased]) -> None:
        split, packed = await asyncio.to_thread(
            lambda: ([self._split(item) for item in leased], [item.pack() for item in leased])
        )
        texts = [
            _text(item, part) for item, parts in zip(leased, split, strict=True) for part in parts
        ]
        vectors = iter(await self._embedder.embed(texts) if texts else ())
        embedded = [
            Embedded(
                item,
                [EmbeddedChunk(side, span.start, span.stop, next(vectors)) for side, span in parts],
                words,
            )
            for item, parts, words in zip(leased, split, packed, strict=True)
        ]
        await embedding_queue.finish(self._pool, self._embedder.name, embedded)

    async def _give_way(self, seconds: float) -> None:
        """Pause for these seconds, and for longer where the event loop comes to us late: then
        people wait for answers."""
        clock = asyncio.get_running_loop().time
        due = clock() + seconds
        await asyncio.sleep(seconds)
        await asyncio.sleep(min((clock() - due) * RESTS, MOST_REST_SECONDS))

    def _split(self, item: Leased) -> list[tuple[str, Span]]:
        return [
            (side, span)
            for side, most in MOST_CHUNKS.items()
            for span in self._embedder.split(getattr(item, side) or "", most)
        ]

    async def _wait_for_embedder(
        self, leased: Sequence[Leased], error: EmbedderUnavailable
    ) -> None:
        self._failures += 1
        self.state = "unavailable"
        pause = error.retry_after or min(2.0**self._failures, LONGEST_PAUSE_SECONDS)
        log.warning("embedder_unavailable", seconds=pause, texts=len(leased))
        await embedding_queue.give_back(self._pool, leased, pause)
        await asyncio.sleep(min(pause, LONGEST_PAUSE_SECONDS))

    async def _reopen_other_models(self) -> int:
        if time.monotonic() - self._looked_for_old_models < REOPEN_EVERY_SECONDS:
            return 0
        reopened = await embedding_queue.reopen_other_models(self._pool, self._embedder.name)
        if not reopened:
            self._looked_for_old_models = time.monotonic()
        return reopened

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return


def _text(item: Leased, part: tuple[str, Span]) -> str:
    side, span = part
    return str(getattr(item, side))[span.start : span.stop]
