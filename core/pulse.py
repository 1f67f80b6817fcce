"""Looks at the service by turns, so that /metrics answers at once, also while Postgres is away."""

import asyncio
import time
from collections import deque

from storage import embedding_queue
from storage.database import DATABASE_AWAY, Pool
from storage.embedding_queue import Backlog
from storage.migrate import is_ready

TICK = 0.5  # seconds
LOOK_EVERY = 15.0  # seconds; as often as Prometheus asks


class Pulse:
    def __init__(self, pool: Pool, *, embeds: bool) -> None:
        self._pool = pool
        self._embeds = embeds
        self._late: deque[float] = deque(maxlen=round(LOOK_EVERY / TICK))
        self.database_up = True
        self.backlog: Backlog | None = None

    @property
    def lag(self) -> float:
        """The most seconds that the event loop was late within the last LOOK_EVERY."""
        return max(self._late, default=0.0)

    async def watch_loop(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self._late.append(max(time.monotonic() - due, 0.0))

    async def watch_database(self) -> None:
        while True:
            try:
                self.database_up = await is_ready(self._pool)
                self.backlog = await embedding_queue.backlog(self._pool) if self._embeds else None
            except DATABASE_AWAY:
                self.database_up, self.backlog = False, None
            await asyncio.sleep(LOOK_EVERY)
