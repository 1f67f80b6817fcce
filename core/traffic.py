"""Counts the requests of this process by route, and adds them to those of all replicas."""

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import structlog

from storage import traffic
from storage.database import DATABASE_AWAY, Pool, acting_as_meter
from storage.traffic import Counted

log = structlog.get_logger()

SECONDS = 300  # of a slot
KEPT = timedelta(days=8)
FLUSH = 15.0  # seconds
# Upper ends of the histogram's buckets in milliseconds, each 1.3 times the one before; the last
# bucket has none. They reach from half a millisecond to 4.9 seconds.
BOUNDS = tuple(0.5 * 1.3**n for n in range(36))
UNKNOWN = "(no such route)"
# What is asked by monitors and by the panel itself says nothing about the service's users.
UNCOUNTED = ("/health", "/readyz", "/metrics", "/admin", "/assets")


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    errors: int = 0
    refused: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


class Traffic:
    """`add` costs about a microsecond; a lost process takes up to FLUSH seconds of counts along."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sums: dict[tuple[int, str, str], _Sums] = {}
        self._closing = asyncio.Event()
        self._tidied = 0.0

    def add(self, method: str, route: str | None, status: int, ms: float, refused: bool) -> None:
        """`route` is the path's template, None where there is none: so the labels are bounded."""
        if route is None:
            method, route = "", UNKNOWN
        elif route.startswith(UNCOUNTED):
            return
        key = (int(time.time() // SECONDS), method, route)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = _Sums()
        sums.requests += 1
        sums.buckets[bisect_left(BOUNDS, ms)] += 1
        if status >= 500:
            sums.errors += 1
        elif refused:
            sums.refused += 1

    async def run(self) -> None:
        """Work until `close`, and then write what is left."""
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH):
                    await self._closing.wait()
            try:
                await self.write()
            except DATABASE_AWAY as error:
                log.warning("traffic_not_written", error=type(error).__name__)

    def close(self) -> None:
        self._closing.set()

    async def write(self) -> None:
        """Add what was counted; what cannot be written now is added the next time."""
        counted, self._sums = self._sums, {}
        if not counted:
            return
        try:
            async with acting_as_meter(self._pool) as conn:
                await traffic.add(conn, [_row(*key, sums) for key, sums in counted.items()])
                if time.monotonic() - self._tidied > 3600 or not self._tidied:
                    await traffic.forget_before(conn, datetime.now(UTC) - KEPT)
                    self._tidied = time.monotonic()
        except BaseException:
            self._take_back(counted)
            raise

    def _take_back(self, counted: dict[tuple[int, str, str], _Sums]) -> None:
        """Memory stays bounded through a long outage: slots older than a day are given up."""
        oldest = time.time() // SECONDS - 288
        for key, sums in counted.items():
            if key[0] < oldest:
                continue
            mine = self._sums.setdefault(key, _Sums())
            mine.requests += sums.requests
            mine.errors += sums.errors
            mine.refused += sums.refused
            mine.buckets = [a + b for a, b in zip(mine.buckets, sums.buckets, strict=True)]


def _row(slot: int, method: str, route: str, sums: _Sums) -> Counted:
    at = datetime.fromtimestamp(slot * SECONDS, UTC)
    label = f"{method} {route}".strip()
    return Counted(at, label, sums.requests, sums.errors, sums.refused, sums.buckets)


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """Return the milliseconds that `share` of the requests took at most; None without requests."""
    wanted = sum(buckets) * share
    if not wanted:
        return None
    seen = 0
    for (low, high), count in zip(pairwise((0.0, *BOUNDS)), buckets, strict=False):
        if seen + count >= wanted:
            return round(low + (high - low) * (wanted - seen) / count, 2)
        seen += count
    return round(BOUNDS[-1], 2)
