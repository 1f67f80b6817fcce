"""recall(): a person's memories that answer a query, by meaning and by words."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import numpy as np
import structlog

from core.embeddings import Embedder, EmbedderUnavailable, TextRefused
from core.hits import Hit, Place, Shown, newer_first
from core.ranking import Rank, Ranked, rank
from core.time_hints import Period, period
from core.user_caches import Cached, UserCaches
from storage import analyzer, change_feed, database_search, memory_store, rare_words
from storage.change_feed import NOWHERE, Position
from storage.database import Pool, acting_as
from storage.database_search import DatabaseIndex, Part, Slice
from storage.memory_store import Filters, Memory
from storage.user_index import Evidence, UserIndex, nearest_chunks

log = structlog.get_logger()

# Weighing so many, of ten thousand memories, keeps the loop for two milliseconds; in another
# thread it would hold the interpreter nearly as long, and begin with cold caches.
INLINE_VECTORS = 25_000
# Hits that say the same as one above them are shown with it, and the next ones take their places.
RANKED_FOR_ONE_SHOWN = 3
LONGER_WITHOUT_HOPE = 4
SECONDS_FOR_RARE_WORDS = 4.0


@dataclass(frozen=True, slots=True)
class Recall:
    """`semantic` is False when the embedder could not be asked and only words counted; `partial`
    is True when time did not suffice to weigh all memories."""

    hits: list[Hit]
    semantic: bool
    partial: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    query: str
    terms: Counter[str]
    vector: np.ndarray | None
    period: Period | None
    filters: Filters
    limit: int


class _Found(NamedTuple):
    """A ranked memory, and where its nearest chunk stands."""

    memory_id: bytes
    ranked: Ranked
    nearest: Place | None


class Retrieval:
    """Asks a user's cache, or the database where there is none in time."""

    def __init__(
        self,
        pool: Pool,
        embedder: Embedder | None,
        budget_bytes: int,
        ranked: Rank = rank,
        patience: float = 60.0,
        *,
        cached: bool = True,
        hurry: float = 2.0,
    ) -> None:
        """`patience` is how many seconds a search waits for its cache before it does without;
        `hurry`, how many it then reads more of the person's memories before it does with those."""
        self._pool = pool
        self._embedder = embedder
        self._model = embedder.name if embedder else ""
        self._ranked = ranked
        self._cached = cached
        self._hurry = hurry
        dimensions = embedder.dimensions if embedder else 0
        self.caches = UserCaches(pool, self._model, dimensions, budget_bytes, patience)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="search")

    def close(self) -> None:
        self.caches.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

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
        cached = self.caches.of(user_id) if self._cached else None
        # While one is awaited, the other goes on.
        refreshing = self.caches.begin_refresh(user_id, cached) if cached else None
        try:
            vector = await self._embed(query)
            wanted = await refreshing if refreshing else None
        finally:
            if refreshing:
                refreshing.cancel()
        asked = _Asked(
            query,
            Counter(analyzer.terms(query)),
            vector,
            period(query, asked_at or datetime.now(UTC)),
            filters,
            limit,
        )
        hits, partial = None, False
        if cached:
            hits = await self._ask_cache(user_id, cached, asked, wanted)
        if hits is None:
            hits, partial = await self._ask_database(user_id, asked)
        if asked.period is None:
            # Who names a time wants what was true then.
            hits = newer_first(hits, set(asked.terms))
        return Recall(hits, semantic=asked.vector is not None, partial=partial)

    async def _embed(self, query: str) -> np.ndarray | None:
        if self._embedder is None or not query.strip():
            return None
        try:
            return np.asarray((await self._embedder.embed([query], urgent=True))[0])
        except (EmbedderUnavailable, TextRefused) as error:
            log.warning("query_not_embedded", error=type(error).__name__)
            return None

    def forget(self, user_id: UUID) -> None:
        self.caches.forget(user_id)

    async def _ask_cache(
        self, user_id: UUID, cached: Cached, asked: _Asked, wanted: Position | None
    ) -> list[Hit] | None:
        """Return None when the cache cannot hold all that was there at the time of the call, which
        is `wanted` where that is known already."""
        found: list[_Found]
        while True:
            async with cached.lock:
                at, found = cached.at, []
                if at != NOWHERE:
                    found = await self._rank_cached(cached.index, asked)
            # Asked after the ranking, and together with where the person's writes stand.
            now, memories = await self._read(user_id, found[: asked.limit])
            if wanted is None or (wanted.epoch != now.epoch and not at.has_reached(wanted)):
                wanted = now
            if at.has_reached(wanted):
                return await self._show(user_id, found, asked, memories)
            if not await self.caches.catch_up(user_id, cached, wanted):
                return None

    async def _rank_cached(self, index: UserIndex, asked: _Asked) -> list[_Found]:
        def find() -> list[_Found]:
            evidence = index.evidence(asked.terms, asked.vector, asked.filters)
            return self._rank(index, evidence, asked)

        if index.vectors <= INLINE_VECTORS:
            return find()
        return await asyncio.get_running_loop().run_in_executor(self._threads, find)

    async def _ask_database(self, user_id: UUID, asked: _Asked) -> tuple[list[Hit], bool]:
        """Weigh the same evidence without a cache: exactly the user's own rows. Say as well
        whether some of them had to be left out, as the time was over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds_without_cache(user_id)
        async with acting_as(self._pool, user_id) as conn:
            if (await change_feed.position(conn, user_id)).epoch is None:
                return [], False
            slices = await database_search.slices(conn, user_id)
        parts = await self._read_slices(user_id, slices, asked, until)
        index, rest = database_search.together(parts), slices[len(parts) :]
        packed = await self.caches.pack(user_id, index.unpacked, until)
        partial = bool(rest) or len(packed) < len(index.unpacked)
        if partial:
            known = {texts.id for texts, _ in packed}
            rare = await self._holding_rare_words(
                user_id, slices if len(known) < len(index.unpacked) else rest, asked
            )
            if further := [memory_id for memory_id in rare if rest and memory_id <= rest[0].last]:
                parts.append(await self._read_part(user_id, asked, (further,)))
                index = database_search.together(parts)
            bare = set(index.unpacked) - known
            packed += await self.caches.pack(user_id, [i for i in rare if i in bare])
        index.packed = {texts.id: words for texts, words in packed}
        found = await loop.run_in_executor(
            self._threads, lambda: self._rank(index, index.evidence(asked.terms), asked)
        )
        _, memories = await self._read(user_id, found[: asked.limit])
        return await self._show(user_id, found, asked, memories), partial

    def _seconds_without_cache(self, user_id: UUID) -> float:
        """What is left out now a cache finds soon; where there will be none, it never would."""
        no_cache = not self._cached or self.caches.is_too_large(user_id)
        return self._hurry * (LONGER_WITHOUT_HOPE if no_cache else 1)

    async def _read_slices(
        self, user_id: UUID, slices: list[Slice], asked: _Asked, until: float
    ) -> list[DatabaseIndex]:
        """Read at least one of the slices, and no more when the loop's clock is at `until`."""
        parts: list[DatabaseIndex] = []
        for part in slices:
            parts.append(await self._read_part(user_id, asked, part))
            if asyncio.get_running_loop().time() >= until:
                break
        return parts

    async def _read_part(self, user_id: UUID, asked: _Asked, part: Part) -> DatabaseIndex:
        async with acting_as(self._pool, user_id) as conn:
            return await database_search.read(
                conn, user_id, asked.terms, asked.vector, self._model, asked.filters, part
            )

    async def _holding_rare_words(
        self, user_id: UUID, slices: list[Slice], asked: _Asked
    ) -> list[UUID]:
        """What is not weighed for want of time is looked through all the same for a rare word:
        whoever asks for one remembers that it is there."""
        until = asyncio.get_running_loop().time() + SECONDS_FOR_RARE_WORDS
        found: list[UUID] = []
        for part in slices:
            async with acting_as(self._pool, user_id) as conn:
                found += await rare_words.holders(conn, user_id, asked.query, asked.terms, part)
            if asyncio.get_running_loop().time() >= until:
                break
        return found

    def _rank(
        self, index: UserIndex | DatabaseIndex, evidence: Evidence, asked: _Asked
    ) -> list[_Found]:
        ranked = self._ranked(evidence, asked.limit * RANKED_FOR_ONE_SHOWN, asked.period)
        slots = [item.slot for item in ranked]
        nearest = nearest_chunks(evidence, slots)
        places = dict(zip(nearest, index.chunk_places([*nearest.values()]), strict=True))
        ids = index.ids_of(slots)
        return [_Found(*each) for each in zip(ids, ranked, map(places.get, slots), strict=True)]

    async def _read(
        self, user_id: UUID, page: list[_Found]
    ) -> tuple[Position, dict[bytes, Memory]]:
        ids = [UUID(bytes=found.memory_id) for found in page]
        now, memories = await memory_store.own(self._pool, user_id, ids)
        return now, {memory.id.bytes: memory for memory in memories}

    async def _show(
        self, user_id: UUID, found: list[_Found], asked: _Asked, memories: dict[bytes, Memory]
    ) -> list[Hit]:
        """Make hits of the best, of which the first page has been read."""
        shown, wanted = Shown(), set(asked.terms)
        for start in range(0, len(found), asked.limit):
            page = found[start : start + asked.limit]
            if start:
                _, memories = await self._read(user_id, page)
            for item in page:
                if memory := memories.get(item.memory_id):
                    shown.add(memory, item.ranked, item.nearest)
                if len(shown) == asked.limit:
                    return shown.hits(wanted)
        return shown.hits(wanted)
