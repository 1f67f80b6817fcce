"""Refuses, for a while, the tokens of an address that keeps sending bad ones."""

import time
from datetime import UTC, datetime

from core.addresses import group_of
from core.errors import TooManyRequests
from storage.counters import ALLOWED, Ask, LocalCounters

MOST_ADDRESSES = 10_000
NO_LIMIT = 10**9


def too_many(limit: int, reset_at: float) -> TooManyRequests:
    """`reset_at` in seconds since the epoch."""
    error = TooManyRequests(
        "Too many tries from this address; wait.",
        limit=limit,
        remaining=0,
        reset_at=datetime.fromtimestamp(reset_at, UTC).isoformat(),
    )
    error.retry_after = max(-int((time.time() - reset_at) // 1), 1)
    return error


class BadTokens:
    """Addresses that send bad tokens. Those longest without one are forgotten first."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._counters = LocalCounters(most_users=MOST_ADDRESSES)

    def check(self, address: str) -> None:
        """Raise TooManyRequests when no more of its tokens are to be verified now."""
        count = self._counters.spend(self._ask(address, 0))
        if count.verdict != ALLOWED:
            raise too_many(self._per_minute, count.free_at / 1_000_000)

    def note(self, address: str) -> None:
        self._counters.spend(self._ask(address, 1))

    def _ask(self, address: str, cost: int) -> Ask:
        return Ask(group_of(address), self._per_minute, NO_LIMIT, 0, 0, cost)
