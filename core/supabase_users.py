"""The users of a Supabase project, seen with the operator's secret key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from core.config import Settings

if TYPE_CHECKING:
    from supabase_auth import AsyncGoTrueAdminAPI

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
