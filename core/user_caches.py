"""The caches of the users who searched last: loaded, kept up to date, within a budget of bytes."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import structlog

from storage import change_feed, keyword_store
from storage.change_feed import NOWHERE, Chunks, Feed, Position
from storage.database import Pool, acting_as
from storage.keyword_store import Texts
from storage.packed_terms import Packed
from storage.user_index import UserIndex

log = structlog.get_logger()
T = TypeVar("T")

# In another thread a moment's work waits for the interpreter longer than it takes: so few changes
# of an index of so few vectors, and texts of so many characters, are worked through at once.
FEW_CHANGES, SMALL_INDEX, SHORT_TEXTS = 20, 2_000, 20_000
# What is less than a page behind is taken in sooner than the database could answer. Only where
# the machine is too busy for either it takes longer, and to ask both would keep it so.
LONGER_FOR_LITTLE = 20
# Texts of a mebibyte on both sides make so many of them 100 MB at the very worst.
TEXTS_AT_ONCE = 50
# So many memories whose words nobody has packed are worth a write; of fewer the embedding worker
# takes care in a moment.
WORTH_KEEPING = 20


@dataclass(slots=True)
class Cached:
    """`at` is how far the index is complete, `grows` whether something was new the last time.
    Hold the lock while the index is used."""

    index: UserIndex
    at: Position = NOWHERE
    grows: bool = False
    bytes: int = 0
    too_large: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    loading: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Page:
    """What `index` has to take in next, and where the user stood when it was read."""

    index: UserIndex
    feed: Feed
    chunks: Chunks | None


class UserCaches:
    def __init__(
        self, pool: Pool, model: str, dimensions: int, budget_bytes: int, patience: float
    ) -> None:
        """`patience` is how many seconds a search waits for a cache to be loaded."""
        self._pool = pool
        self._model = model
        self._dimensions = dimensions
        self._budget = budget_bytes
        self._patience = patience
        self._cached: OrderedDict[UUID, Cached] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self.nbytes = 0  # of all of them
        self.hits = self.misses = 0

    def close(self) -> None:
        for cached in self._cached.values():
            if cached.loading:
                cached.loading.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def users(self) -> list[UUID]:
        """Those who have a cache, the one who searched last at the end."""
        return list(self._cached)

    def of(self, user_id: UUID) -> Cached:
        cached = self._cached.get(user_id)
        if cached is None:
            cached = self._cached[user_id] = Cached(self._empty())
            self.misses += 1
        else:
            self.hits += 1
        self._cached.move_to_end(user_id)
        return cached

    def _empty(self) -> UserIndex:
        return UserIndex(self._dimensions)

    def begin_refresh(
        self, user_id: UUID, cached: Cached
    ) -> "asyncio.Task[Position | None] | None":
        """Catch up with who wrote since the last search, and likely did again.

        The task says up to where, if that is all there was when it began.
        """
        if not cached.grows or cached.at == NOWHERE:
            return None
        return asyncio.create_task(self._refresh(user_id, cached))

    async def _refresh(self, user_id: UUID, cached: Cached) -> Position | None:
        joins = cached.loading is not None
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(self._load_once(user_id, cached))
        except TimeoutError:
            return None
        return None if joins or cached.at == NOWHERE else cached.at

    async def catch_up(self, user_id: UUID, cached: Cached, wanted: Position) -> bool:
        """Say whether the cache holds all up to `wanted` in time; if not, it goes on loading."""
        little = wanted.change_seq - cached.index.change_seq < change_feed.PAGE
        try:
            async with asyncio.timeout(self._patience * (LONGER_FOR_LITTLE if little else 1)):
                while not (cached.too_large or cached.at.has_reached(wanted)):
                    # One loads for all who wait, and for whoever comes after they have gone.
                    await asyncio.shield(self._load_once(user_id, cached))
        except TimeoutError:
            return False
        return not cached.too_large

    def _load_once(self, user_id: UUID, cached: Cached) -> "asyncio.Task[None]":
        if cached.loading is None:
            cached.loading = asyncio.create_task(self._load(user_id, cached))
            cached.loading.add_done_callback(lambda task: self._loaded(user_id, cached, task))
        return cached.loading

    def _loaded(self, user_id: UUID, cached: Cached, task: "asyncio.Task[None]") -> None:
        cached.loading = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.warning("cache_not_loaded", error=type(error).__name__)
        # It may have been left between two changes; Postgres has it all.
        self._drop(user_id, cached)

    async def _load(self, user_id: UUID, cached: Cached) -> None:
        """Take in what is new: while one page is taken in, the next one is read."""
        page = await self._read(user_id, cached, cached.index.change_seq)
        cached.grows = bool(page.feed.changes)
        while not (page.feed.complete or cached.too_large):
            last = page.feed.changes[-1].change_seq
            following = self._read(user_id, cached, last)
            _, page = await asyncio.gather(self._take_in(user_id, cached, page), following)
        await self._take_in(user_id, cached, page)

    async def _read(self, user_id: UUID, cached: Cached, after: int) -> _Page:
        """Read a page. No connection is held for longer than that."""
        few = await self._read_few(user_id, cached, after) if cached.at != NOWHERE else None
        return few or await self._read_many(user_id, cached, after)

    async def _read_few(self, user_id: UUID, cached: Cached, after: int) -> _Page | None:
        model = self._model if self._dimensions else ""
        batch = await change_feed.few_since(self._pool, user_id, after, FEW_CHANGES, model)
        index = cached.index
        if batch is None or self._is_beyond_use(index, batch.feed.now, after):
            return None
        return _page(index, batch.feed, batch.chunks, await self._analyse(batch.texts))

    async def _read_many(self, user_id: UUID, cached: Cached, after: int) -> _Page:
        async with acting_as(self._pool, user_id) as conn:
            feed = await change_feed.since(conn, user_id, after)
            if self._is_beyond_use(cached.index, feed.now, after):
                cached.index, cached.at = self._empty(), NOWHERE
                feed = await change_feed.since(conn, user_id, 0)
            index = cached.index
            ids = [change.id for change in feed.changes if change.embedded]
            chunks = None
            if ids and self._dimensions:
                chunks = await change_feed.chunks_of(conn, user_id, ids, self._model)
        missing = [c.id for c in feed.changes if c.packed is None and not c.deleted]
        return _page(index, feed, chunks, await self.pack(user_id, missing))

    def _is_beyond_use(self, index: UserIndex, now: Position, after: int) -> bool:
        """Tombstones that went before they were read, or another epoch, leave ghosts behind; a
        purge leaves the words of what was forgotten."""
        missed = index.purged_through < now.purged_through > after
        other = (index.epoch, index.purges) != (now.epoch, now.purges)
        return index.epoch is not None and (missed or other)

    async def _take_in(self, user_id: UUID, cached: Cached, page: _Page) -> None:
        index = page.index
        if cached.too_large or index is not cached.index:
            return  # it had missed deletions, or what was before this page is gone
        small = len(page.feed.changes) <= FEW_CHANGES and index.vectors <= SMALL_INDEX
        async with cached.lock:
            await self._do(small, index.apply, page.feed.changes, page.chunks)
            if page.feed.complete:
                await self._do(small, index.tidy)
                now = page.feed.now
                index.change_seq = max(index.change_seq, now.change_seq)
                cached.at = now._replace(change_seq=index.change_seq)
        if index is cached.index:
            self._keep_within_budget(user_id, cached)

    async def pack(
        self, user_id: UUID, ids: Sequence[UUID], until: float = math.inf
    ) -> list[tuple[Texts, Packed]]:
        """Analyse the texts of these memories, and keep the words when it was much work.

        After the first TEXTS_AT_ONCE no more are begun when the loop's clock is at `until`.
        """
        packed: list[tuple[Texts, Packed]] = []
        clock = asyncio.get_running_loop().time
        for start in range(0, len(ids), TEXTS_AT_ONCE):
            if start and clock() >= until:
                break
            async with acting_as(self._pool, user_id) as conn:
                texts = await keyword_store.texts_of(
                    conn, user_id, ids[start : start + TEXTS_AT_ONCE]
                )
            packed += await self._analyse(texts)
        if len(packed) >= WORTH_KEEPING:
            async with acting_as(self._pool, user_id) as conn:
                await keyword_store.keep(conn, user_id, packed)
        return packed

    async def _analyse(self, texts: Sequence[Texts]) -> list[tuple[Texts, Packed]]:
        length = sum(len(each.prompt or "") + len(each.response or "") for each in texts)
        return await self._do(length <= SHORT_TEXTS, _packed, texts)

    async def _do(self, little: bool, work: Callable[..., T], *arguments: object) -> T:
        return work(*arguments) if little else await self._in_thread(work, *arguments)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, *arguments)

    def _keep_within_budget(self, user_id: UUID, latest: Cached) -> None:
        """Drop those who have not searched for longest; who is too large for all of it has none."""
        size = latest.index.nbytes
        if size > self._budget:
            latest.index, latest.at, latest.too_large = self._empty(), NOWHERE, True
            size = latest.index.nbytes
        if self._cached.get(user_id) is latest:
            self.nbytes += size - latest.bytes
        latest.bytes = size
        if self.nbytes <= self._budget:
            return
        for other_id, cached in list(self._cached.items()):
            if self.nbytes <= self._budget:
                return
            if cached is not latest and not cached.loading and not cached.lock.locked():
                self.forget(other_id)

    def _drop(self, user_id: UUID, cached: Cached) -> None:
        """Forget this very one, and not what may have come in its place."""
        if self._cached.get(user_id) is cached:
            self.forget(user_id)

    def is_too_large(self, user_id: UUID) -> bool:
        cached = self._cached.get(user_id)
        return cached is not None and cached.too_large

    def forget(self, user_id: UUID) -> None:
        """A cache that is being loaded serves those who wait for it, and nobody after them."""
        if cached := self._cached.pop(user_id, None):
            self.nbytes -= cached.bytes

    async def verify(self, user_id: UUID) -> bool:
        """Compare a user's cache with the database; one that differs is dropped, to load anew."""
        cached = self._cached.get(user_id)
        if cached is None or cached.loading or cached.at is NOWHERE:
            return True
        async with acting_as(self._pool, user_id) as conn:
            now, wanted = await change_feed.fingerprint(conn, user_id, self._model)
        if cached.at.purges < now.purges:
            # Nobody searches here, and what was forgotten must not wait until somebody does.
            self.forget(user_id)
            return True
        async with cached.lock:
            # What was written a moment ago is the next search's to take in, and tells nothing.
            if cached.at[:2] != now[:2]:
                return True
            held = await self._in_thread(cached.index.fingerprint)
        # More vectors than the database are those of texts that are being embedded anew.
        if held.memories == wanted.memories and held.chunks >= wanted.chunks:
            return True
        log.error("cache_differed", chunks=held.chunks, wanted_chunks=wanted.chunks)
        self._drop(user_id, cached)
        return False


def _page(
    index: UserIndex, feed: Feed, chunks: Chunks | None, packed: Sequence[tuple[Texts, Packed]]
) -> _Page:
    index.epoch, _, index.purged_through, index.purges = feed.now
    # Where the text has grown since, a later change brings the same words once more: to leave
    # them out until then would hide a memory that was found a moment ago.
    words = {item.id: words for item, words in packed}
    for change in feed.changes:
        change.packed = change.packed or words.get(change.id)
    return _Page(index, feed, chunks)


def _packed(texts: Sequence[Texts]) -> list[tuple[Texts, Packed]]:
    return [(item, item.pack()) for item in texts]
