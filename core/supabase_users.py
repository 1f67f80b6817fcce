"""The users of a Supabase project, seen with the operator's secret key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from core.config import Settings
from storage.admin import Account

if TYPE_CHECKING:
    from supabase_auth import AsyncGoTrueAdminAPI
    from supabase_auth.types import User

USERS_A_PAGE = 1_000


class DirectoryAway(Exception):
    """The project could not be asked, or refuses the key; the text is safe to show."""


class SupabaseUsers:
    """The client is made on first use, and nobody is ever signed in on it: from then on its
    requests would be that person's."""

    def __init__(self, url: str, secret_key: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._key = secret_key
        self._http = http
        self._admin: AsyncGoTrueAdminAPI | None = None
        self._making = asyncio.Lock()

    async def delete(self, user_id: UUID) -> None:
        """Raise DirectoryAway; that somebody is gone already is as good."""
        admin = await self._client()
        with _asking(), _unless_unknown():
            await admin.delete_user(str(user_id))

    async def exists(self, user_id: UUID) -> bool:
        """Raise DirectoryAway unless the project says yes or no."""
        admin = await self._client()
        with _asking(), _unless_unknown():
            await admin.get_user_by_id(str(user_id))
            return True
        return False

    async def find(self, user_id: UUID) -> Account | None:
        """Raise DirectoryAway."""
        admin = await self._client()
        with _asking(), _unless_unknown():
            return _account((await admin.get_user_by_id(str(user_id))).user)
        return None

    async def page(self, number: int, size: int) -> list[Account]:
        """Return a page as the project orders it, the first being number 1; raise DirectoryAway."""
        admin = await self._client()
        with _asking():
            return [_account(user) for user in await admin.list_users(page=number, per_page=size)]

    async def set_tier(self, user_id: UUID, tier: str) -> None:
        """Show the tier in `app_metadata`, whose other members stay; raise DirectoryAway."""
        admin = await self._client()
        with _asking():
            await admin.update_user_by_id(str(user_id), {"app_metadata": {"tier": tier}})

    async def ids(self) -> AsyncIterator[set[UUID]]:
        """Yield page after page; raise DirectoryAway unless every page can be read."""
        admin = await self._client()
        page, size = 1, USERS_A_PAGE
        while size == USERS_A_PAGE:
            with _asking():
                users = await admin.list_users(page=page, per_page=USERS_A_PAGE)
                listed = {UUID(user.id) for user in users}
            yield listed
            page, size = page + 1, len(users)

    async def _client(self) -> "AsyncGoTrueAdminAPI":
        async with self._making:
            if self._admin is None:
                # Importing it takes the better part of a second.
                self._admin = await asyncio.to_thread(self._make)
        return self._admin

    def _make(self) -> "AsyncGoTrueAdminAPI":
        from supabase import AsyncClient, AsyncClientOptions

        options = AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, httpx_client=self._http
        )
        return AsyncClient(self._url, self._key, options).auth.admin


def _account(user: "User") -> Account:
    """Take what is shown; names are the user's own words, and may be of any type."""
    names = (user.user_metadata.get(key) for key in ("full_name", "name"))
    name = next((text for text in names if isinstance(text, str) and text), None)
    return Account(UUID(user.id), user.email, name, user.created_at, user.last_sign_in_at)


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    from supabase_auth.errors import AuthError

    try:
        yield
    except (AuthError, httpx.HTTPError, ValueError) as error:
        raise DirectoryAway(type(error).__name__) from error


@contextlib.contextmanager
def _unless_unknown() -> Iterator[None]:
    """A 404 alone may as well come from a proxy or a wrong address."""
    from supabase_auth.errors import AuthApiError

    try:
        yield
    except AuthApiError as error:
        if error.code != "user_not_found":
            raise


def supabase_users(settings: Settings, http: httpx.AsyncClient) -> SupabaseUsers | None:
    """None without a project, or without its secret key."""
    if not settings.supabase_url or not settings.supabase_secret_key:
        return None
    key = settings.supabase_secret_key.get_secret_value()
    return SupabaseUsers(settings.supabase_url, key, http)
