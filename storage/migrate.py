"""Bring the schema up to date: each file of `migrations/` once, in the order of their names."""

from pathlib import Path

import asyncpg

from storage.database import Connection, Pool

MIGRATIONS = Path(__file__).parent / "migrations"
# Any number will do that no other program takes on this database; ours spells "MemLayer".
LOCK = 0x4D656D4C61796572

# Supabase keeps `vector` in `extensions`, others in `public`.
PREPARE = """
    CREATE SCHEMA IF NOT EXISTS memory_layer;
    SET LOCAL search_path = memory_layer, public, extensions;
    SET LOCAL statement_timeout = 0;
    CREATE TABLE IF NOT EXISTS memory_layer.schema_migrations (
        name text PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
    ALTER TABLE memory_layer.schema_migrations ENABLE ROW LEVEL SECURITY;
"""


def known() -> list[Path]:
    return sorted(MIGRATIONS.glob("[0-9]*.sql"))


async def migrate(url: str) -> list[str]:
    """Apply what is missing, all or nothing, and return the names of what was applied."""
    conn = await asyncpg.connect(url, statement_cache_size=0, timeout=30)
    try:
        async with conn.transaction():
            # Replicas that start together take turns; transaction pooling forbids session locks.
            await conn.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            await conn.execute(PREPARE)
            return [await _apply(conn, p.name, p.read_text()) for p in await missing(conn)]
    finally:
        await conn.close()


async def missing(conn: Connection) -> list[Path]:
    rows = await conn.fetch("SELECT name FROM memory_layer.schema_migrations")
    applied = {row["name"] for row in rows}
    return [path for path in known() if path.name not in applied]


async def _apply(conn: Connection, name: str, sql: str) -> str:
    await conn.execute(sql)
    await conn.execute("INSERT INTO memory_layer.schema_migrations (name) VALUES ($1)", name)
    return name


async def is_ready(pool: Pool) -> bool:
    """Say whether the database answers and every migration is in it."""
    async with pool.acquire() as conn:
        return not await missing(conn)
