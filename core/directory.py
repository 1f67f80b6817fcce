"""The people who have accounts, as whoever signs them in knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from storage import admin
from storage.admin import Account
from storage.admin_access import acting_as_admin
from storage.database import Pool


@dataclass(frozen=True, slots=True)
class Page:
    """`complete` is False where there were more accounts than could be looked through."""

    accounts: list[Account]
    has_more: bool
    complete: bool = True


class Directory(Protocol):
    async def page(self, wanted: str, number: int, size: int) -> Page:
        """Return accounts whose e-mail address holds `wanted`; the first page is number 0."""

    async def of(self, user_ids: Sequence[UUID]) -> dict[UUID, Account]: ...

    async def mirror_tier(self, user_id: UUID, tier: str) -> bool | None:
        """Say whether the sign-in now shows the tier; None where it shows none."""


class HomeDirectory:
    """The accounts of the service's own sign-in."""

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
