"""The people who have accounts, as whoever signs them in knows them."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

import structlog

from core.errors import Unavailable
from core.supabase_users import DirectoryAway, SupabaseUsers
from storage import admin
from storage.admin import Account
from storage.admin_access import acting_as_admin
from storage.database import Pool

log = structlog.get_logger()

Source = Literal["home", "supabase", "ids"]
# The project's own list cannot be searched: it is read, and believed for as long as this.
FRESH = 60.0  # seconds
USERS_A_READ = 1_000
MOST_READS = 50
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """`complete` is False where there were more accounts than could be looked through."""

    accounts: list[Account]
    has_more: bool
    complete: bool = True


class Directory(Protocol):
    """`source` says where the accounts are; "ids" where nobody may be asked for their names."""

    @property
    def source(self) -> Source: ...

    async def page(self, wanted: str, number: int, size: int) -> Page:
        """Return accounts whose e-mail address holds `wanted`; the first page is number 0."""

    async def of(self, user_ids: Sequence[UUID]) -> dict[UUID, Account]: ...

    async def mirror_tier(self, user_id: UUID, tier: str) -> bool | None:
        """Say whether the sign-in now shows the tier; None where it shows none."""


class HomeDirectory:
    """The accounts of the service's own sign-in."""

    source: Source = "home"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, wanted: str, number: int, size: int) -> Page:
        async with acting_as_admin(self._pool) as conn:
            found = await admin.accounts(conn, wanted.lower(), number * size, size + 1)
        return Page(found[:size], len(found) > size)

    async def of(self, user_ids: Sequence[UUID]) -> dict[UUID, Account]:
        async with acting_as_admin(self._pool) as conn:
            return {found.id: found for found in await admin.accounts_of(conn, user_ids)}

    async def mirror_tier(self, user_id: UUID, tier: str) -> bool | None:
        return None


class ProjectDirectory:
    """The accounts of a Supabase project."""

    source: Source = "supabase"

    def __init__(self, users: SupabaseUsers) -> None:
        self._users = users
        self._known: OrderedDict[UUID, tuple[float, Account]] = OrderedDict()
        self._listed: tuple[list[Account], bool] = ([], True)
        self._listed_at = -FRESH
        self._listing = asyncio.Lock()

    async def page(self, wanted: str, number: int, size: int) -> Page:
        """Raise Unavailable where the project does not answer."""
        try:
            if not wanted:
                found = await self._users.page(number + 1, size)
                return Page(found, has_more=len(found) == size)
            everybody, complete = await self._everybody()
        except DirectoryAway as error:
            message = f"The Supabase project's user list cannot be read ({error})."
            raise Unavailable(message) from error
        wanted = wanted.lower()
        matches = [one for one in everybody if wanted in (one.email or "").lower()]
        start = number * size
        return Page(matches[start : start + size], len(matches) > start + size, complete)

    async def of(self, user_ids: Sequence[UUID]) -> dict[UUID, Account]:
        """Leave out whom the project does not know, and all while it does not answer."""
        try:
            found = await asyncio.gather(*(self._one(user_id) for user_id in user_ids))
        except DirectoryAway as error:
            log.warning("directory_away", reason=str(error))
            return {}
        return {account.id: account for account in found if account}

    async def mirror_tier(self, user_id: UUID, tier: str) -> bool | None:
        try:
            await self._users.set_tier(user_id, tier)
        except DirectoryAway as error:
            log.warning("tier_not_mirrored", reason=str(error))
            return False
        return True

    async def _one(self, user_id: UUID) -> Account | None:
        read_at, account = self._known.get(user_id, (-FRESH, None))
        if account is None or time.monotonic() - read_at > FRESH:
            account = await self._users.find(user_id)
            if account:
                self._known[user_id] = (time.monotonic(), account)
                while len(self._known) > MOST_REMEMBERED:
                    self._known.popitem(last=False)
        return account

    async def _everybody(self) -> tuple[list[Account], bool]:
        """Return whom the project lists, and whether these are all."""
        async with self._listing:
            if time.monotonic() - self._listed_at > FRESH:
                self._listed = await self._read_all()
                self._listed_at = time.monotonic()
            return self._listed

    async def _read_all(self) -> tuple[list[Account], bool]:
        everybody: list[Account] = []
        for number in range(1, MOST_READS + 1):
            read = await self._users.page(number, USERS_A_READ)
            everybody += read
            if len(read) < USERS_A_READ:
                return everybody, True
        return everybody, False


class IdsOnly:
    """Those who have called; their names are the project's, and its secret key is not here."""

    source: Source = "ids"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, wanted: str, number: int, size: int) -> Page:
        if wanted:
            return Page([], has_more=False)
        async with acting_as_admin(self._pool) as conn:
            ids = await admin.known_ids(conn, number * size, size + 1)
        found = [Account(user_id, None, None, None, None) for user_id in ids]
        return Page(found[:size], len(found) > size)

    async def of(self, user_ids: Sequence[UUID]) -> dict[UUID, Account]:
        return {}

    async def mirror_tier(self, user_id: UUID, tier: str) -> bool | None:
        return None


def make_directory(
    pool: Pool, uses_supabase_auth: bool, project: SupabaseUsers | None
) -> Directory:
    if not uses_supabase_auth:
        return HomeDirectory(pool)
    return ProjectDirectory(project) if project else IdsOnly(pool)
