"""Spares a provider that is down, and those who would wait for it."""

import time
from collections.abc import Callable

FAILURES = 5
PAUSE = 15.0  # seconds


class Breaker:
    """Open after FAILURES failures in a row; then one call in PAUSE seconds tries it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES

    def wait(self) -> float:
        """Return the seconds until a call may be made: 0 lets one through."""
        if not self.is_open:
            return 0.0
        now = self._clock()
        if now < self._next_try:
            return self._next_try - now
        self._next_try = now + PAUSE
        return 0.0

    def failed(self) -> None:
        self._failures += 1
        if self._failures == FAILURES:
            self._next_try = self._clock() + PAUSE

    def succeeded(self) -> None:
        self._failures = 0
