"""Personal API tokens: shown once, kept as a hash, believed for a few seconds."""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import cast
from uuid import UUID

from core.auth import Scope, User
from core.errors import InvalidInput, NotFound, TooManyTokens, Unauthorized, Unavailable
from storage import api_tokens
from storage.api_tokens import ApiToken, Found
from storage.database import DATABASE_AWAY, Pool, acting_as
from storage.ids import uuid7

PREFIX = "ml_"
FORM = re.compile(r"ml_[\w-]{43}", re.ASCII)
MOST_TOKENS = 25  # of one person
FRESH = 5.0  # seconds that a token may be believed: so soon every replica knows of its end
UNKNOWN_FOR = 60.0  # seconds; 256 random bits that nobody has now will not be somebody's later
CACHE_SIZE = 10_000
BATCH = 500
MOST_WAITING = 5_000


def hash_of(token: str) -> bytes:
    # A plain hash is enough: nobody can guess 256 random bits.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class ApiTokens:
    """Issues, verifies and revokes tokens. `clock` is monotonic, in seconds."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        # Apart, so that a flood of guesses pushes out nobody who is known.
        self._known: OrderedDict[bytes, tuple[User | None, float]] = OrderedDict()
        self._unknown: OrderedDict[bytes, tuple[User | None, float]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Future[User]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def issue(
        self, user_id: UUID, name: str, scopes: Sequence[Scope], expires_at: datetime | None
    ) -> tuple[ApiToken, str]:
        """Return the token as it is listed, and its text, which is never shown again."""
        now = datetime.now(UTC)
        if expires_at and expires_at <= now:
            fields = [{"path": "body.expires_at", "message": "must lie in the future"}]
            raise InvalidInput("The token would have expired already.", fields=fields)
        text = PREFIX + secrets.token_urlsafe(32)
        new = ApiToken(uuid7(), name, list(dict.fromkeys(scopes)), now, expires_at, None)
        async with acting_as(self._pool, user_id) as conn:
            added = await api_tokens.add(conn, user_id, hash_of(text), new, MOST_TOKENS)
        if added is None:
            raise TooManyTokens(limit=MOST_TOKENS)
        return added, text

    async def list_for_user(self, user_id: UUID) -> list[ApiToken]:
        async with acting_as(self._pool, user_id) as conn:
            return await api_tokens.list_for_user(conn, user_id)

    async def revoke(self, user_id: UUID, token_id: UUID) -> None:
        """End a token: here at once, on other replicas within FRESH."""
        async with acting_as(self._pool, user_id) as conn:
            if not await api_tokens.delete(conn, user_id, token_id):
                raise NotFound("You have no such token.", token_id=str(token_id))
        self._forget(lambda user: user.token_id == token_id)

    def forget(self, user_id: UUID) -> None:
        """Of an erased account, whose tokens are gone."""
        self._forget(lambda user: user.id == user_id)

    def _forget(self, ended: Callable[[User], bool]) -> None:
        for digest, (user, _) in list(self._known.items()):
            if user and ended(user):
                del self._known[digest]

    def was_good(self, token: str) -> bool:
        return hash_of(token) in self._known

    def remembered(self, token: str) -> User | None:
        """Return whose token this is, if it was good a moment ago."""
        user, until = self._known.get(hash_of(token), (None, 0.0))
        return user if self._clock() < until else None

    async def verify(self, token: str) -> User:
        """Raise Unauthorized, or Unavailable when the database cannot be asked."""
        if (user := self.remembered(token)) is not None:
            return user
        if not FORM.fullmatch(token):
            raise Unauthorized
        digest, now = hash_of(token), self._clock()
        if now < self._unknown.get(digest, (None, 0.0))[1]:
            raise Unauthorized
        return await self._ask(digest)

    async def _ask(self, digest: bytes) -> User:
        """Ask once for all who wait for the same token, and together with all other tokens."""
        answer = self._asked.get(digest)
        if answer is None:
            if len(self._asked) >= MOST_WAITING:
                raise Unavailable
            answer = self._asked[digest] = asyncio.get_running_loop().create_future()
            # Who asked may be gone when a refusal comes.
            answer.add_done_callback(asyncio.Future.exception)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_up())
        return await asyncio.shield(answer)

    async def _look_up(self) -> None:
        """One statement at a time: however many tokens are tried, they cost one connection."""
        try:
            while self._asked:
                await self._look_up_some(list(islice(self._asked, BATCH)))
        finally:
            # A fault of ours must leave nobody waiting.
            for digest in list(self._asked):
                self._answer(digest, None, 0.0)

    async def _look_up_some(self, digests: list[bytes]) -> None:
        began = self._clock()
        found: dict[bytes, Found] | None = None
        with contextlib.suppress(*DATABASE_AWAY):
            async with acting_as(self._pool, ()) as conn:
                rows = await api_tokens.find(conn, digests)
            found = {row.token_hash: row for row in rows}
        for digest in digests:
            self._answer(digest, found, began)
        await self._note_use(found or {})

    def _answer(self, digest: bytes, found: dict[bytes, Found] | None, began: float) -> None:
        answer = self._asked.pop(digest)
        if found is None:
            answer.set_exception(Unavailable())
        elif row := found.get(digest):
            scopes = cast("list[Scope]", row.scopes)
            user = User(row.user_id, None, None, frozenset(scopes), row.id)
            left = FRESH if row.seconds_left is None else min(FRESH, row.seconds_left)
            # From before the question on: what was revoked since then may still be in the answer.
            _remember(self._known, digest, user, began + left)
            answer.set_result(user)
        else:
            _remember(self._unknown, digest, None, began + UNKNOWN_FOR)
            answer.set_exception(Unauthorized())

    async def _note_use(self, found: dict[bytes, Found]) -> None:
        due = [(row.user_id, row.id) for row in found.values() if row.is_due]
        if due:
            # That a database is read-only, or gone again, is no reason to refuse anybody.
            with contextlib.suppress(*DATABASE_AWAY):
                async with acting_as(self._pool, {user_id for user_id, _ in due}) as conn:
                    await api_tokens.note_use(conn, due)


def _remember(
    cache: OrderedDict[bytes, tuple[User | None, float]],
    digest: bytes,
    user: User | None,
    until: float,
) -> None:
    cache[digest] = user, until
    cache.move_to_end(digest)
    if len(cache) > CACHE_SIZE:
        cache.popitem(last=False)
