"""Who may act as the operator: by a key, or by the session that a key began."""

import hmac
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.admin_keys import hash_of
from core.errors import Unauthorized
from storage import admin_access
from storage.admin_access import acting_as_admin
from storage.database import Pool

SESSION_SECONDS = 1_800
NOTED_A_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Operator:
    key_hash: bytes
    address: str

    @property
    def name(self) -> str:
        """What the record says: the key by the first characters of its hash."""
        return f"key {self.key_hash.hex()[:8]}"


@dataclass(frozen=True, slots=True)
class Session:
    token: str
    expires_at: datetime


class AdminAccess:
    """Keys are known by their hashes alone, and so are the tokens of sessions."""

    def __init__(self, pool: Pool, key_hashes: Sequence[bytes]) -> None:
        self._pool = pool
        self._keys = tuple(key_hashes)
        self._noted = deque[float](maxlen=NOTED_A_MINUTE)

    @property
    def configured(self) -> bool:
        return bool(self._keys)

    def by_key(self, key: str, address: str) -> Operator:
        """Raise Unauthorized; compares with every key, in a time that says nothing about any."""
        self._require_keys()
        given, found = hash_of(key), None
        for active in self._keys:
            if hmac.compare_digest(given, active):
                found = active
        if found is None:
            raise Unauthorized("This admin key is not valid.")
        return Operator(found, address)

    async def note_wrong_key(self, address: str) -> None:
        """A flood from everywhere does not fill the record: what is too much is not noted."""
        now = time.monotonic()
        if len(self._noted) == NOTED_A_MINUTE and now - self._noted[0] < 60:
            return
        self._noted.append(now)
        async with acting_as_admin(self._pool) as conn:
            await admin_access.note(conn, "unknown", address, "wrong_key")

    async def by_session(self, token: str, address: str) -> tuple[Operator, datetime]:
        """Return when it ends, too; a session ends as well when its key is no longer active."""
        self._require_keys()
        async with acting_as_admin(self._pool) as conn:
            found = await admin_access.session(conn, hash_of(token))
        if found is None or not any(hmac.compare_digest(found[0], key) for key in self._keys):
            raise Unauthorized("Your session has ended; sign in with the admin key.")
        return Operator(found[0], address), found[1]

    async def begin_session(self, operator: Operator) -> Session:
        token = secrets.token_urlsafe(32)
        async with acting_as_admin(self._pool) as conn:
            ends = await admin_access.begin_session(
                conn, hash_of(token), operator.key_hash, SESSION_SECONDS
            )
            await admin_access.note(conn, operator.name, operator.address, "signed_in")
        return Session(token, ends)

    async def end_session(self, token: str, address: str) -> None:
        operator, _ = await self.by_session(token, address)
        async with acting_as_admin(self._pool) as conn:
            await admin_access.end_session(conn, hash_of(token))
            await admin_access.note(conn, operator.name, address, "signed_out")

    def _require_keys(self) -> None:
        if not self._keys:
            raise Unauthorized("No admin key is configured: set ADMIN_API_KEY.")
