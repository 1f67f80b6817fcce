"""The background jobs of the service. None of them takes a memory that its owner did not delete."""

from collections.abc import Awaitable, Callable

from core import trash
from core.collector import trim_memory
from core.erasure import Erasures
from core.jobs import Job
from core.local_auth import MAX_IDLE
from core.missing_users import MissingUsers
from core.retrieval import Retrieval
from storage import accounts, admin, erasure, retention
from storage.admin_access import acting_as_admin
from storage.database import Connection, Pool
from storage.job_runs import acting_as_janitor

# Takes so many rows at most, and returns how many went.
Purge = Callable[[Connection, int], Awaitable[int]]

MINUTE, HOUR, DAY = 60, 3_600, 86_400
ROWS_AT_ONCE = 5_000
USERS_AT_ONCE = 500
COUNTED_AT_ONCE = 100


def all_jobs(
    pool: Pool, retrieval: Retrieval, erasures: Erasures, missing: MissingUsers | None
) -> list[Job]:
    """`missing` is None where there is no directory of users to compare with."""

    async def purge_trash() -> str:
        return f"{await trash.purge_expired(pool)} memories"

    async def purge_tombstones() -> str:
        return f"{await _purge_tombstones(pool)} tombstones"

    async def end_sessions() -> str:
        async with accounts.acting_as_auth(pool) as conn:
            return f"{await accounts.end_all_idle_sessions(conn, MAX_IDLE)} sessions"

    async def verify_caches() -> str:
        users = retrieval.caches.users
        right = sum([await retrieval.caches.verify(user_id) for user_id in users])
        return f"{len(users)} caches, {len(users) - right} differed"

    async def remove_marks() -> str:
        return f"{await _remove_marks(pool)} accounts"

    async def count_memories() -> str:
        return f"{await _count_memories(pool)} users"

    purge_daily_use = _until_none(pool, retention.purge_daily_use, "days")
    purge_tokens = _until_none(pool, retention.purge_tokens, "tokens")
    compare = "Compare the caches in use with the database; drop those that differ"
    jobs = [
        Job("purge_trash", HOUR, "Forget what was deleted over 30 days ago", purge_trash),
        Job("purge_tombstones", DAY, "Forget that it was, after 400 days", purge_tombstones),
        Job("count_memories", 15, "Count the memories of users who changed", count_memories),
        Job("purge_daily_use", DAY, "Forget the use of days over 400 days ago", purge_daily_use),
        Job("end_sessions", HOUR, "End sessions that 30 days went unused", end_sessions),
        Job("purge_tokens", DAY, "Forget tokens that expired over 30 days ago", purge_tokens),
        Job("verify_caches", 5 * MINUTE, compare, verify_caches, everywhere=True),
        Job("trim_memory", 5 * MINUTE, "Give back unused memory", trim_memory, everywhere=True),
        Job("finish_erasures", 10 * MINUTE, "Finish erasing accounts", erasures.finish_all),
        Job("remove_marks", DAY, "Forget who was erased over 8 days ago", remove_marks),
    ]
    if missing:
        what = "Report who was deleted at Supabase"
        jobs.append(Job("find_missing_users", DAY, what, missing.look))
    return jobs


async def _count_memories(pool: Pool) -> int:
    total, counted = 0, COUNTED_AT_ONCE
    while counted == COUNTED_AT_ONCE:
        async with acting_as_admin(pool) as conn:
            counted = await admin.count_stale(conn, COUNTED_AT_ONCE)
        total += counted
    async with acting_as_admin(pool) as conn:
        await admin.forget_totals_of_the_gone(conn)
    return total


def _until_none(pool: Pool, purge: Purge, what: str) -> Callable[[], Awaitable[str]]:
    """Make the work of purging in short transactions until nothing is left."""

    async def run() -> str:
        total, gone = 0, ROWS_AT_ONCE
        while gone == ROWS_AT_ONCE:
            async with acting_as_janitor(pool) as conn:
                gone = await purge(conn, ROWS_AT_ONCE)
            total += gone
        return f"{total} {what}"

    return run


async def _purge_tombstones(pool: Pool) -> int:
    total = 0
    while True:
        async with acting_as_janitor(pool) as conn:
            users = await retention.users_with_old_tombstones(conn, ROWS_AT_ONCE)
        if not users:
            return total
        for user_id in users:
            async with acting_as_janitor(pool) as conn:
                total += await retention.purge_tombstones(conn, user_id, ROWS_AT_ONCE)


async def _remove_marks(pool: Pool) -> int:
    """With the mark goes the last that is known of somebody; so look once more for the rest."""
    async with acting_as_janitor(pool) as conn:
        users = await retention.old_marks(conn, USERS_AT_ONCE)
    for user_id in users:
        await erasure.erase(pool, user_id)
        async with acting_as_janitor(pool) as conn:
            await retention.remove_mark(conn, user_id)
    return len(users)
