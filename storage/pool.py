"""Connections to Postgres, handed from one use to the next."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg

# Text, since asyncpg's classes take parameters only in its stubs.
Taken: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

SECONDS_FOR_A_CONNECTION = 5
# Idle connections may be cut off on their way, and then the next use of one would hang.
KEPT_SECONDS = 30.0


class Pool:
    """asyncpg's pool, in front of which connections wait for who needs one next.

    To take one from asyncpg's and give it back costs more than a small query, and several turns of
    the event loop, which are what a request waits for where many do. So one whose use ended well
    stays taken. What ended otherwise asyncpg sees to: it cancels what still runs, and replaces it.
    """

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self._pool = pool
        self._kept_seconds = kept_seconds
        self._taken = 0  # from asyncpg's
        # Of these, what nobody uses, with the time since when; the one that was used last is last.
        self._ready: deque[tuple[Taken, float]] = deque()
        self._waiting: deque[asyncio.Future[Taken | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(kept_seconds, self._give_back_idle)
        self._giving_back: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Taken]:
        """Raise TimeoutError where none is to be had for SECONDS_FOR_A_CONNECTION, and what asyncpg
        raises where the server cannot be reached."""
        if self._ready and not _is_lost(self._ready[-1][0]):
            conn, _ = self._ready.pop()
        else:
            async with asyncio.timeout(SECONDS_FOR_A_CONNECTION):
                conn = await self._take()
        try:
            yield conn
        except BaseException:
            await self._give_back(conn)
            raise
        self._keep(conn)

    def terminate(self) -> None:
        self._timer.cancel()
        self._pool.terminate()

    def get_size(self) -> int:
        return self._pool.get_size()

    def get_idle_size(self) -> int:
        return self._pool.get_idle_size() + len(self._ready)

    def get_max_size(self) -> int:
        return self._pool.get_max_size()

    async def _take(self) -> Taken:
        if self._ready:
            return await self._open(instead_of=self._ready.pop()[0])
        if self._taken < self._pool.get_max_size():
            self._taken += 1
            return await self._open()
        return await self._wait() or await self._open()

    async def _wait(self) -> "Taken | None":
        """Return a connection, or None where one has gone and another may be opened."""
        waiter: asyncio.Future[Taken | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # It may have come in the very moment in which nobody waited any more.
            if waiter.done() and not waiter.cancelled():
                if conn := waiter.result():
                    self._keep(conn)
                else:
                    self._leave_place()
            raise

    async def _open(self, instead_of: "Taken | None" = None) -> Taken:
        try:
            if instead_of:
                await self._pool.release(instead_of)
            return await self._pool.acquire()
        except BaseException:
            self._leave_place()
            raise

    def _keep(self, conn: Taken) -> None:
        if waiter := self._next_waiter():
            waiter.set_result(conn)
        else:
            self._ready.append((conn, self._loop.time()))

    async def _give_back(self, conn: Taken) -> None:
        try:
            await self._pool.release(conn)
        finally:
            self._leave_place()

    def _leave_place(self) -> None:
        if waiter := self._next_waiter():
            waiter.set_result(None)
        else:
            self._taken -= 1

    def _next_waiter(self) -> "asyncio.Future[Taken | None] | None":
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _give_back_idle(self) -> None:
        """asyncpg closes them when nobody has wanted them for as long once more."""
        now = self._loop.time()
        while self._ready and now - self._ready[0][1] >= self._kept_seconds:
            task = self._loop.create_task(self._give_back(self._ready.popleft()[0]))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)
        self._timer = self._loop.call_later(self._kept_seconds, self._give_back_idle)


def _is_lost(conn: Taken) -> bool:
    try:
        return conn.is_closed()
    except asyncpg.InterfaceError:
        return True  # asyncpg has taken it back by itself
