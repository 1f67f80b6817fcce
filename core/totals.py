"""Keeps the number of memories of each user counted, so that nobody waits for the counting."""

import asyncio

import structlog

from storage import admin
from storage.admin_access import acting_as_admin
from storage.database import DATABASE_AWAY, Pool

log = structlog.get_logger()

EVERY = 15.0  # seconds
USERS_AT_ONCE = 100


async def keep_counted(pool: Pool) -> None:
    """Count anew, from now on, the memories of each user who changed."""
    while True:
        try:
            await count(pool)
        except DATABASE_AWAY as error:
            log.warning("memories_not_counted", error=type(error).__name__)
        await asyncio.sleep(EVERY)


async def count(pool: Pool) -> None:
    counted = USERS_AT_ONCE
    while counted == USERS_AT_ONCE:
        async with acting_as_admin(pool) as conn:
            counted = await admin.count_stale(conn, USERS_AT_ONCE)
    async with acting_as_admin(pool) as conn:
        await admin.forget_totals_of_the_gone(conn)
