"""Passwords: hashing them off the event loop, a few at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from core.errors import Unavailable

MIN_LENGTH = 8  # characters; GoTrue allows 6
MAX_LENGTH = 1024  # bytes
THREADS = 2
MAX_WAITING = 100

T = TypeVar("T")


class Passwords:
    """Argon2id at OWASP's recommended cost: 19 MiB, 2 passes, 1 lane."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0
        # Verified against when there is no such user, so that the answer takes as long.
        self._nobodys_hash = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        return await self._work(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """A `password_hash` of None is an unknown user's: false, after the usual work."""
        if len(password.encode()) > MAX_LENGTH:
            return False
        same = await self._work(self._verify, password_hash or self._nobodys_hash, password)
        return same and password_hash is not None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerificationError:
            return False

    async def _work(self, function: Callable[..., T], *args: str) -> T:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many people are signing in at this moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        finally:
            self._waiting -= 1
