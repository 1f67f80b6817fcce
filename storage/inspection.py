"""A look at the database and at Redis from outside the running service, for the operator."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from storage.database import Connection, behind_transaction_pooler
from storage.migrate import missing

SECONDS = 10.0
SCHEMAS = ("memory_layer", "memory_layer_auth")
# Roles of Supabase's Data API.
STRANGERS = ("anon", "authenticated")


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """`missing` are migrations; `unbound` roles of ours that row-level security does not bind, and
    `foreign` those that this login may not act under."""

    version: int
    way: str
    vector: str | None
    missing: list[str]
    unbound: list[str]
    foreign: list[str]
    unguarded_tables: list[str]
    strangers: list[str]


async def inspect_database(url: str) -> DatabaseFacts:
    """Look, and change nothing. Raises what asyncpg raises."""
    conn = await asyncpg.connect(url, statement_cache_size=0, timeout=SECONDS)
    try:
        made = await conn.fetchval("SELECT to_regclass('memory_layer.schema_migrations')")
        bound = await _bound(conn) if made else {}
        return DatabaseFacts(
            version=conn.get_server_version().major,
            way=await _way(conn, url),
            vector=await conn.fetchval(
                "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
            ),
            missing=[path.name for path in await missing(conn)] if made else ["all of them"],
            unbound=[role for role, is_bound in bound.items() if is_bound is False],
            foreign=[role for role, is_bound in bound.items() if is_bound is None],
            unguarded_tables=await _unguarded_tables(conn),
            strangers=await _strangers(conn),
        )
    finally:
        await conn.close(timeout=SECONDS)


async def _way(conn: Connection, url: str) -> str:
    if behind_transaction_pooler(url):
        return "through a transaction pooler"
    pid = await conn.fetchval("SELECT pg_backend_pid()")
    return "directly" if conn.get_server_pid() == pid else "through a pooler"


async def _bound(conn: Connection) -> dict[str, bool | None]:
    """Ask as each role itself: that is what its statements meet."""
    rows = await conn.fetch(
        r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'memory\_layer\_%' ORDER BY 1"
    )
    # By number: a role need not be able to name a table of another's.
    table = await conn.fetchval(
        """
        SELECT pg_class.oid FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname = 'memory_layer' AND relname = 'memories'
        """
    )
    return {row["rolname"]: await _is_bound(conn, row["rolname"], table) for row in rows}


async def _is_bound(conn: Connection, role: str, table: int) -> bool | None:
    quoted = '"' + role.replace('"', '""') + '"'
    transaction = conn.transaction()
    await transaction.start()
    try:
        await conn.execute(f"SET LOCAL ROLE {quoted}")
        return bool(await conn.fetchval("SELECT row_security_active($1::oid)", table))
    except asyncpg.InsufficientPrivilegeError:
        return None
    finally:
        await transaction.rollback()


async def _unguarded_tables(conn: Connection) -> list[str]:
    rows = await conn.fetch(
        """
        SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname = ANY($1) AND relkind IN ('r', 'p') AND NOT relrowsecurity
         ORDER BY relname
        """,
        SCHEMAS,
    )
    return [row["relname"] for row in rows]


async def _strangers(conn: Connection) -> list[str]:
    rows = await conn.fetch(
        """
        SELECT DISTINCT rolname FROM pg_roles, pg_namespace
         WHERE rolname = ANY($1) AND nspname = ANY($2)
           AND has_schema_privilege(rolname, nspname, 'USAGE')
         ORDER BY rolname
        """,
        STRANGERS,
        SCHEMAS,
    )
    return [row["rolname"] for row in rows]


def running_at(data_dir: Path) -> str | None:
    """The address of the embedded Postgres of this folder, where one is running."""
    try:
        lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
        sockets = lines[4]
    except (OSError, IndexError):
        return None
    return f"postgresql://postgres@/memory_layer?host={quote(sockets)}&port=5432"


@dataclass(frozen=True, slots=True)
class RedisFacts:
    version: str
    eviction: str


async def inspect_redis(url: str) -> RedisFacts:
    """Raises OSError when it is away, refuses the password, or hangs."""
    client = Redis.from_url(
        url, socket_timeout=3, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0)
    )
    try:
        info = await client.info()
        return RedisFacts(
            info.get("valkey_version") or info["redis_version"],
            info.get("maxmemory_policy", "unknown"),
        )
    except RedisError as error:
        raise OSError(type(error).__name__) from error
    finally:
        await client.aclose()
