"""recall(): a person's memories that answer a query, by meaning and by words."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import numpy as np
import structlog

from core.embeddings import Embedder, EmbedderUnavailable, TextRefused
from core.hits import Hit, Why, newer_first, with_duplicates
from core.ranking import Rank, Ranked, rank
from core.snippets import snippet
from core.time_hints import Period, period
from storage import analyzer, change_feed, memory_store
from storage.database import Connection, Pool, acting_as
from storage.memory_store import Filters, Memory
from storage.user_index import Evidence, UserIndex

log = structlog.get_logger()

# A hop to another thread costs about as much as scanning this many vectors.
INLINE_VECTORS = 2_000
# Hits that say the same as one above them are shown with it, and the next ones take their places.
RANKED_FOR_ONE_SHOWN = 3
# Tokenising so little text is over before anybody else notices.
INLINE_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Recall:
    """`semantic` is False when the embedder could not be asked and only words counted."""

    hits: list[Hit]
    semantic: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    terms: Counter[str]
    vector: np.ndarray | None
    period: Period | None


@dataclass(frozen=True, slots=True)
class _Found:
    """A ranked memory, and where its nearest chunk stands: side, start, stop."""

    memory_id: UUID
    ranked: Ranked
    nearest: tuple[str, int, int] | None


@dataclass(slots=True)
class _Cached:
    index: UserIndex
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Retrieval:
    """Holds the caches of the users who searched last, within a budget of bytes."""

    def __init__(
        self, pool: Pool, embedder: Embedder | None, budget_bytes: int, ranked: Rank = rank
    ) -> None:
        self._pool = pool
        self._embedder = embedder
        self._budget = budget_bytes
        self._ranked = ranked
        self._cached: OrderedDict[UUID, _Cached] = OrderedDict()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="search")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def bytes(self) -> int:
        return sum(cached.index.bytes for cached in self._cached.values())

    @property
    def users(self) -> int:
        return len(self._cached)

    async def recall(
        self,
        user_id: UUID,
        query: str,
        limit: int,
        filters: Filters,
        asked_at: datetime | None = None,
    ) -> Recall:
        """Return the best memories; whatever was acknowledged before this call takes part.

        "Last week" is reckoned from `asked_at`, or else from now.
        """
        asked = _Asked(
            Counter(analyzer.terms(query)),
            await self._embed(query),
            period(query, asked_at or datetime.now(UTC)),
        )
        cached = self._of(user_id)
        async with cached.lock, acting_as(self._pool, user_id) as conn:
            try:
                await self._catch_up(conn, user_id, cached)
            except BaseException:
                # It may have been left between two changes; Postgres has it all.
                self._cached.pop(user_id, None)
                raise
            found = await self._rank(cached.index, asked, filters, limit * RANKED_FOR_ONE_SHOWN)
            hits = await _read(conn, user_id, found, set(asked.terms), limit)
        self._keep_within_budget()
        if asked.period is None:
            # Who names a time wants what was true then.
            hits = newer_first(hits, set(asked.terms))
        return Recall(hits, semantic=asked.vector is not None)

    async def _embed(self, query: str) -> np.ndarray | None:
        if self._embedder is None or not query.strip():
            return None
        try:
            return np.asarray((await self._embedder.embed([query], urgent=True))[0])
        except (EmbedderUnavailable, TextRefused) as error:
            log.warning("query_not_embedded", error=type(error).__name__)
            return None

    def forget(self, user_id: UUID) -> None:
        self._cached.pop(user_id, None)

    def _of(self, user_id: UUID) -> _Cached:
        cached = self._cached.get(user_id)
        if cached is None:
            cached = self._cached[user_id] = _Cached(self._empty())
        self._cached.move_to_end(user_id)
        return cached

    def _empty(self) -> UserIndex:
        return UserIndex(self._embedder.dimensions if self._embedder else 0)

    async def _catch_up(self, conn: Connection, user_id: UUID, cached: _Cached) -> None:
        if cached.index.wasteful:
            cached.index = self._empty()
        anew = cached.index.epoch is None
        while True:
            index = cached.index
            feed = await change_feed.since(conn, user_id, index.change_seq)
            missed_purge = not anew and index.change_seq < feed.purged_through
            if index.epoch is not None and (feed.epoch != index.epoch or missed_purge):
                cached.index, anew = self._empty(), True
                continue
            index.epoch, anew = feed.epoch, True
            await self._apply(conn, user_id, index, feed.changes)
            if feed.complete:
                index.change_seq = max(index.change_seq, feed.purged_through)
                return

    async def _apply(
        self, conn: Connection, user_id: UUID, index: UserIndex, changes: list[change_feed.Change]
    ) -> None:
        chunks: Sequence[change_feed.Chunk] = []
        if self._embedder is not None and changes:
            ids = [change.id for change in changes if not change.deleted]
            chunks = await change_feed.chunks_of(conn, user_id, ids, self._embedder.name)
        if sum(len(c.prompt or "") + len(c.response or "") for c in changes) <= INLINE_CHARACTERS:
            index.apply(changes, chunks)
        else:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, index.apply, changes, chunks)

    async def _rank(
        self, index: UserIndex, asked: _Asked, filters: Filters, limit: int
    ) -> list[_Found]:
        def find() -> list[_Found]:
            evidence = index.evidence(asked.terms, asked.vector, filters)
            ranked = self._ranked(evidence, limit, asked.period)
            return [_found(index, evidence, item) for item in ranked]

        if index.vectors <= INLINE_VECTORS:
            return find()
        return await asyncio.get_running_loop().run_in_executor(self._threads, find)

    def _keep_within_budget(self) -> None:
        """Drop the users who have not searched for longest; never the one just served."""
        held = self.bytes
        while held > self._budget and len(self._cached) > 1:
            user_id, cached = next(iter(self._cached.items()))
            if cached.lock.locked():
                return
            held -= cached.index.bytes
            del self._cached[user_id]


def _found(index: UserIndex, evidence: Evidence, item: Ranked) -> _Found:
    number = int(evidence.best_chunk[item.slot])
    return _Found(index.ids[item.slot], item, index.chunk_place(number) if number >= 0 else None)


async def _read(
    conn: Connection, user_id: UUID, found: list[_Found], wanted: set[str], limit: int
) -> list[Hit]:
    hits: list[Hit] = []
    while found and len(hits) < limit:
        page, found = found[: limit - len(hits)], found[limit - len(hits) :]
        ids = [item.memory_id for item in page]
        memories = {m.id: m for m in await memory_store.read_many(conn, user_id, ids)}
        alive = (item for item in page if item.memory_id in memories)
        hits = with_duplicates(
            hits + [_hit(memories[item.memory_id], item, wanted) for item in alive]
        )
    return hits


def _hit(memory: Memory, found: _Found, wanted: set[str]) -> Hit:
    item = found.ranked
    sides: dict[Literal["prompt", "response"], str]
    sides = {"prompt": memory.prompt or "", "response": memory.response or ""}
    side = item.matched if sides[item.matched] else ("prompt" if sides["prompt"] else "response")
    here = found.nearest[1:] if found.nearest and found.nearest[0] == side else None
    return Hit(
        memory=memory,
        score=item.score,
        relevant=item.relevant,
        matched=side,
        snippet=snippet(sides[side], wanted, here),
        why=Why(item.dense, item.lexical, item.time, item.conversation),
    )
