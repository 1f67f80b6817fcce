"""Who was deleted at Supabase is reported here; erased only when the operator says so."""

from dataclasses import dataclass
from uuid import UUID

from core.erasure import Erasures, Receipt
from core.errors import Conflict, NotFound, Unavailable
from core.supabase_users import DirectoryAway, SupabaseUsers
from storage import missing_users
from storage.database import Pool
from storage.job_runs import acting_as_janitor
from storage.missing_users import MissingUser

USERS_AT_ONCE = 5_000
# Each is asked for once more by itself; more than these are found on the next days.
MOST_NEW_IN_A_RUN = 200
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class MissingUsers:
    pool: Pool
    directory: SupabaseUsers
    erasures: Erasures

    async def look(self) -> str:
        """Compare everybody here with the project's users; erase nobody.

        Holds about 150 bytes a user of the project. A directory that fails changes nothing.
        """
        known = set[UUID]()
        async for page in self.directory.ids():
            known |= page
        reported = {user.user_id for user in await self.list()}
        candidates = await self._unknown(known | reported)
        # Pages shift while they are read: a user may have slipped between two of them.
        gone = [user_id for user_id in candidates if not await self.directory.exists(user_id)]
        async with acting_as_janitor(self.pool) as conn:
            await missing_users.report(conn, gone)
            await missing_users.withdraw(conn, list(reported & known))
        return f"{len((reported - known) | set(gone))} missing"

    async def _unknown(self, known: set[UUID]) -> list[UUID]:
        found: list[UUID] = []
        last, size = NOBODY, USERS_AT_ONCE
        while size == USERS_AT_ONCE and len(found) < MOST_NEW_IN_A_RUN:
            async with acting_as_janitor(self.pool) as conn:
                users = await missing_users.users_after(conn, last, USERS_AT_ONCE)
            found += [user_id for user_id in users if user_id not in known]
            last, size = (users or [NOBODY])[-1], len(users)
        return found[:MOST_NEW_IN_A_RUN]

    async def list(self) -> list[MissingUser]:
        async with acting_as_janitor(self.pool) as conn:
            return await missing_users.listed(conn)

    async def confirm_erasure(self, user_id: UUID) -> Receipt:
        """Erase a reported user; raise NotFound, or Conflict if the project knows them again."""
        if user_id not in {user.user_id for user in await self.list()}:
            raise NotFound("This user was not reported as missing.", user_id=str(user_id))
        try:
            exists = await self.directory.exists(user_id)
        except DirectoryAway as error:
            raise Unavailable("Supabase does not answer; nothing was erased.") from error
        if exists:
            raise Conflict("Supabase knows this user; nothing was erased.", user_id=str(user_id))
        return await self.erasures.erase_account(user_id)
