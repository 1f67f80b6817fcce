"""Who may act as the operator: by a key, or by the session that a key began."""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.admin_keys import hash_of
from core.errors import TooManyRequests, Unauthorized
from storage import admin_access
from storage.admin_access import acting_as_admin
from storage.database import Pool

SESSION_SECONDS = 1_800
FAILURES_A_MINUTE = 5
# Of all addresses together: a flood from everywhere must not fill the record.
NOTED_A_MINUTE = 60
MOST_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Operator:
    """`name` is what the record says: the key by the first characters of its hash."""

    name: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Session:
    token: str
    expires_at: datetime


class FailedTries:
    """Wrong keys of the last minute by address, in this process."""

    def __init__(self) -> None:
        self._tries: OrderedDict[str, list[float]] = OrderedDict()
        self._noted: list[float] = []

    def check(self, address: str) -> None:
        """Raise TooManyRequests before a key is even looked at."""
        recent = self._recent(self._tries.get(address, []))
        if len(recent) >= FAILURES_A_MINUTE:
            error = TooManyRequests("Too many wrong admin keys; wait a minute.")
            error.retry_after = max(1, round(recent[0] + 60 - time.monotonic()))
            raise error

    def add(self, address: str) -> bool:
        """Say whether there is still room to note it."""
        now = time.monotonic()
        self._tries[address] = [*self._recent(self._tries.pop(address, [])), now]
        while len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)
        self._noted = self._recent(self._noted)
        if len(self._noted) >= NOTED_A_MINUTE:
            return False
        self._noted.append(now)
        return True

    @staticmethod
    def _recent(times: list[float]) -> list[float]:
        since = time.monotonic() - 60
        return [moment for moment in times if moment > since]


class AdminAccess:
    """Keys are known by their hashes alone, and so are the tokens of sessions."""

    def __init__(self, pool: Pool, key_hashes: Sequence[bytes]) -> None:
        self._pool = pool
        self._keys = tuple(key_hashes)
        self._failed = FailedTries()

    @property
    def configured(self) -> bool:
        return bool(self._keys)

    async def by_key(self, key: str, address: str) -> Operator:
        """Raise Unauthorized, or TooManyRequests after several wrong keys from one address."""
        self._require_keys()
        self._failed.check(address)
        found = self._key_of(key)
        if found is None:
            if self._failed.add(address):
                async with acting_as_admin(self._pool) as conn:
                    await admin_access.note(conn, "unknown", address, "wrong_key")
            raise Unauthorized("This admin key is not valid.")
        return Operator(_name(found), address)

    async def by_session(self, token: str, address: str) -> tuple[Operator, datetime]:
        """Return when it ends, too; a session ends as well when its key is no longer active."""
        self._require_keys()
        async with acting_as_admin(self._pool) as conn:
            found = await admin_access.session(conn, hash_of(token))
        if found is None or not any(hmac.compare_digest(found[0], key) for key in self._keys):
            raise Unauthorized("Your session has ended; sign in with the admin key.")
        return Operator(_name(found[0]), address), found[1]

    async def begin_session(self, key: str, address: str) -> Session:
        operator = await self.by_key(key, address)
        token = secrets.token_urlsafe(32)
        found = self._key_of(key)
        assert found is not None
        async with acting_as_admin(self._pool) as conn:
            ends = await admin_access.begin_session(conn, hash_of(token), found, SESSION_SECONDS)
            await admin_access.note(conn, operator.name, address, "signed_in")
        return Session(token, ends)

    async def end_session(self, token: str, address: str) -> None:
        operator, _ = await self.by_session(token, address)
        async with acting_as_admin(self._pool) as conn:
            await admin_access.end_session(conn, hash_of(token))
            await admin_access.note(conn, operator.name, address, "signed_out")

    def _require_keys(self) -> None:
        if not self._keys:
            raise Unauthorized("No admin key is configured: set ADMIN_API_KEY.")

    def _key_of(self, key: str) -> bytes | None:
        """Compare with every key, in a time that says nothing about any."""
        given, found = hash_of(key), None
        for active in self._keys:
            if hmac.compare_digest(given, active):
                found = active
        return found


def _name(key_hash: bytes) -> str:
    return f"key {key_hash.hex()[:8]}"
