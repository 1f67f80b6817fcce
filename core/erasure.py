"""Erasing an account: everything of one person, on every replica, with a receipt."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import structlog

from core.auth import User, signed_in_just_now
from core.errors import SignInAgain
from core.local_auth import LocalAuth
from core.supabase_users import DirectoryAway, SupabaseUsers
from storage import erasure
from storage.database import DATABASE_AWAY, Pool

log = structlog.get_logger()

LOOK_EVERY = 2.0  # seconds; within 5 every replica has forgotten the person
# A transaction commits later than the time that it writes.
OVERLAP = timedelta(seconds=60)
MOST_IN_A_RUN = 100

SignIn = Literal["erased", "kept", "pending"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """How many rows of each table are gone. `sign_in` is `kept` where Supabase has the user and we
    have no key to delete it, and `pending` as long as the project does not answer."""

    erased_at: datetime
    erased: Mapping[str, int]
    sign_in: SignIn


class Erasures:
    """`forget` empties what this process remembers of a person."""

    def __init__(
        self,
        pool: Pool,
        forget: Callable[[UUID], Awaitable[None]],
        local_auth: LocalAuth | None,
        directory: SupabaseUsers | None,
    ) -> None:
        self._pool = pool
        self._forget = forget
        self._local_auth = local_auth
        self._directory = directory
        self._looked_at: datetime | None = None
        self._noticed: set[UUID] = set()

    async def erase_own_account(self, user: User, password: str | None) -> Receipt:
        """Raise SignInAgain unless it is the owner, by the password or by a sign-in just now."""
        proved = (
            await self._local_auth.proves(user, password)
            if self._local_auth
            else signed_in_just_now(user)
        )
        if not proved:
            raise SignInAgain
        return await self.erase_account(user.id)

    async def erase_account(self, user_id: UUID) -> Receipt:
        """May be repeated. What is cut short after the mark, `finish_all` finishes."""
        erased_at = await erasure.mark(self._pool, user_id)
        await self._forget(user_id)
        erased, sign_in = await self._erase_marked(user_id)
        return Receipt(erased_at, erased, sign_in)

    async def finish_all(self) -> str:
        """Erase again where it was cut short, or where a late write may have left something."""
        marked = await erasure.unfinished(self._pool, MOST_IN_A_RUN)
        for user_id in marked:
            await self._erase_marked(user_id)
        return f"{len(marked)} accounts"

    async def run(self) -> None:
        """Notice what other replicas erase, and forget it here."""
        while True:
            try:
                now, marked = await erasure.erased_since(self._pool, self._looked_at)
            except DATABASE_AWAY as error:
                log.warning("erasures_not_seen", error=type(error).__name__)
            else:
                self._looked_at = now - OVERLAP
                for user_id in marked - self._noticed:
                    await self._forget(user_id)
                self._noticed = marked
            await asyncio.sleep(LOOK_EVERY)

    async def _erase_marked(self, user_id: UUID) -> tuple[Mapping[str, int], SignIn]:
        erased = await erasure.erase(self._pool, user_id)
        # Requests that had begun before the mark may have counted or cached since.
        await self._forget(user_id)
        sign_in = await self._end_sign_in(user_id)
        if sign_in != "pending":
            await erasure.finish(self._pool, user_id)
        return erased, sign_in

    async def _end_sign_in(self, user_id: UUID) -> SignIn:
        """Accounts at home are rows like others; those of a project are the project's."""
        if self._local_auth:
            return "erased"
        if self._directory is None:
            return "kept"
        try:
            await self._directory.delete(user_id)
        except DirectoryAway as error:
            log.warning("user_not_deleted_at_supabase", reason=str(error))
            return "pending"
        return "erased"
