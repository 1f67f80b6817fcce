"""`python main.py doctor`: is everything that the service needs there, and as it should be?"""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

import asyncpg
import httpx
from pydantic import ValidationError

from core import jwks
from core.config import Settings, SettingsError, complaints
from core.embeddings import EmbedderUnavailable, TextRefused, make_embedder
from storage.database import DATABASE_AWAY, most_connections
from storage.inspection import (
    SCHEMAS,
    DatabaseFacts,
    inspect_database,
    inspect_redis,
    running_at,
)

NO_ANSWER = (*DATABASE_AWAY, asyncpg.PostgresError, ValueError)
# Settings with the key of a chat provider, and what the provider is called.
PROVIDER_KEYS = {"openai_api_key": "OpenAI", "anthropic_api_key": "Anthropic"}
TABLES = {"memory_layer": "memories", "memory_layer_auth": "users"}
# https://docs.postgrest.org/en/stable/references/errors.html and Postgres' own.
NOT_PUBLISHED = ("PGRST106",)
PUBLISHED = ("PGRST205", "42501", "42P01")
KEY_REFUSED = ("401", "PGRST301", "PGRST302")
HOW_TO_HIDE = "Supabase > Project Settings > Data API > Exposed schemas"


class Finding(NamedTuple):
    """`look` is advice; only a `FAULT` keeps the service from doing what it promises."""

    verdict: Literal["ok", "look", "FAULT"]
    part: str
    text: str


def run() -> int:
    """Print a line for each part; return 1 when there is a fault."""
    try:
        settings = Settings()
    except ValidationError as error:
        print(*(f"FAULT  configuration  {line}" for line in complaints(error)), sep="\n")
        return 1
    return asyncio.run(_print_all(settings))


async def _print_all(settings: Settings) -> int:
    faults = 0
    async for finding in examine(settings):
        faults += finding.verdict == "FAULT"
        print(f"{finding.verdict:<6} {finding.part:<14} {finding.text}", flush=True)
    print(f"\n{faults} to mend" if faults else "\nNothing to mend")
    return 1 if faults else 0


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    for check in CHECKS:
        for finding in await check(settings):
            yield finding


async def _configuration(settings: Settings) -> list[Finding]:
    where = settings.supabase_url or "accounts at home"
    found = [Finding("ok", "configuration", f"{where}; new users are {settings.newcomers_tier}")]
    if settings.uses_supabase_auth and not settings.metrics_token:
        text = "/metrics is shut: set METRICS_TOKEN to read it"
        found.append(Finding("look", "configuration", text))
    if settings.uses_supabase_auth and not settings.admin_key_hashes:
        text = "the panel is shut: set ADMIN_API_KEY to what `python main.py admin-key` prints"
        found.append(Finding("look", "configuration", text))
    if settings.uses_supabase_auth and not settings.cors_origins:
        text = "no page or extension may call: set CORS_ORIGINS to chrome-extension://ID"
        found.append(Finding("look", "configuration", text))
    return found


async def _database(settings: Settings) -> list[Finding]:
    given = settings.database_url
    url = given.get_secret_value() if given else running_at(settings.data_dir)
    if url is None:
        text = f"no embedded Postgres runs on {settings.data_dir}: start the service beside this"
        return [Finding("look", "database", text)]
    try:
        facts = await inspect_database(url)
    except NO_ANSWER as error:
        return [Finding("FAULT", "database", _no_database(error))]
    text = f"Postgres {facts.version}, {facts.way}"
    if (most := most_connections(url, settings.database_pool_max)) < settings.database_pool_max:
        text += f"; the pool is kept at {most} connections"
    return [Finding("ok", "database", text), *_judge(facts)]


def _no_database(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return "this login may not read our tables: use the one that made them"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return f"it refuses the login ({kind}): check user and password in DATABASE_URL"
    return (
        f"it cannot be reached ({kind}): check DATABASE_URL; Supabase's direct address needs IPv6,"
        " its poolers do not"
    )


def _judge(facts: DatabaseFacts) -> list[Finding]:
    faults = {
        "version": None if 15 <= facts.version <= 18 else "use Postgres 15 to 18",
        "vector": None if facts.vector else "enable the extension `vector` (pgvector)",
        "migrations": facts.missing
        and f"not applied: {', '.join(facts.missing)}; the next start of the service does it",
        "roles": facts.unbound
        and f"{', '.join(facts.unbound)} can bypass row-level security: ALTER ROLE … NOBYPASSRLS",
        "login": facts.foreign
        and f"it may not act as {', '.join(facts.foreign)}: GRANT them to this login",
        "tables": facts.unguarded_tables
        and f"no row-level security on {', '.join(facts.unguarded_tables)}",
        "strangers": facts.strangers
        and f"{', '.join(facts.strangers)} may use our schemas: REVOKE USAGE ON SCHEMA"
        f" {', '.join(SCHEMAS)} FROM {', '.join(facts.strangers)}",
    }
    found = [
        Finding("FAULT", "database", f"{name}: {text}") for name, text in faults.items() if text
    ]
    good = Finding("ok", "database", f"pgvector {facts.vector}; every role of ours is bound by RLS")
    return found or [good]


async def _redis(settings: Settings) -> list[Finding]:
    if not settings.redis_url:
        if settings.replicas == 1:
            return [Finding("ok", "redis", "not used: this process counts the limits")]
        text = f"{settings.replicas} replicas without REDIS_URL: each counts its share alone"
        return [Finding("look", "redis", text)]
    try:
        facts = await inspect_redis(settings.redis_url.get_secret_value())
    except (OSError, ValueError) as error:
        text = f"no answer ({error or type(error).__name__}): check REDIS_URL; limits are counted"
        return [Finding("FAULT", "redis", text + " per process until it is back")]
    if facts.eviction not in ("noeviction", "unknown"):
        text = f"maxmemory-policy is {facts.eviction}: with noeviction no count is forgotten"
        return [Finding("look", "redis", text)]
    return [Finding("ok", "redis", f"{facts.version}, {facts.eviction}")]


async def _signing_keys(settings: Settings) -> list[Finding]:
    if not settings.uses_supabase_auth:
        return [Finding("ok", "sign-in", "accounts at home; the signing key is in the database")]
    try:
        async with httpx.AsyncClient() as http:
            keys = jwks.parse_key_set(await jwks.download(settings.jwks_url, http))
    except (httpx.HTTPError, ValueError) as error:
        text = f"no keys at {settings.jwks_url} ({type(error).__name__}): check SUPABASE_URL"
        return [Finding("FAULT", "sign-in", text)]
    if keys:
        kinds = ", ".join(sorted({algorithm for algorithm, _ in keys}))
        return [Finding("ok", "sign-in", f"{len(keys)} public keys ({kinds})")]
    if settings.supabase_jwt_secret:
        return [Finding("ok", "sign-in", "legacy HS256 by SUPABASE_JWT_SECRET")]
    text = (
        "the project has no public keys: rotate to an asymmetric key (Supabase > Project Settings >"
        " JWT Keys), or set SUPABASE_JWT_SECRET"
    )
    return [Finding("FAULT", "sign-in", text)]


async def _embedder(settings: Settings) -> list[Finding]:
    try:
        embedder = make_embedder(settings)
        if embedder is None:
            return [Finding("look", "embedder", "EMBEDDER=none: search is by words only")]
        try:
            [vector] = await embedder.embed(["Is anybody there?"], urgent=True)
        finally:
            await embedder.aclose()
    except SettingsError as error:
        return [Finding("FAULT", "embedder", str(error))]
    except (EmbedderUnavailable, TextRefused) as error:
        return [Finding("FAULT", "embedder", f"{settings.embedder} gives no vector: {error}")]
    return [Finding("ok", "embedder", f"{embedder.name}, {len(vector)} dimensions")]


async def _providers(settings: Settings) -> list[Finding]:
    """Look for keys only: to try one would cost money."""
    known = [name for key, name in PROVIDER_KEYS.items() if getattr(settings, key)]
    if known:
        return [Finding("ok", "providers", f"keys for {', '.join(known)}")]
    return [Finding("look", "providers", f"no key: set {' or '.join(PROVIDER_KEYS).upper()}")]


async def _data_api(settings: Settings) -> list[Finding]:
    """Ask the project's Data API, as any stranger can, for our tables."""
    key = settings.supabase_publishable_key
    if not settings.supabase_url:
        return []
    if not key:
        text = "not asked: set SUPABASE_PUBLISHABLE_KEY (Supabase > Project Settings > API Keys)"
        return [Finding("look", "data api", text)]
    base = settings.supabase_url.rstrip("/") + "/rest/v1"
    async with httpx.AsyncClient(timeout=10) as http:
        found = [
            await _ask(http, base, key.get_secret_value(), schema, table)
            for schema, table in TABLES.items()
        ]
    faults = [Finding("FAULT", "data api", text) for text in dict.fromkeys(found) if text]
    return faults or [Finding("ok", "data api", "our tables are not visible to strangers")]


def _judge_refusal(schema: str, code: str, message: str) -> str | None:
    if code in NOT_PUBLISHED:
        return None
    if code in PUBLISHED:
        return f"the schema {schema} is published: take it out of {HOW_TO_HIDE}"
    if code in KEY_REFUSED or "API key" in message:
        return "the project refuses SUPABASE_PUBLISHABLE_KEY"
    return f"it answers {code}, which says nothing: is the project paused?"


async def _ask(http: httpx.AsyncClient, base: str, key: str, schema: str, table: str) -> str | None:
    from postgrest import AsyncPostgrestClient
    from postgrest.exceptions import APIError

    headers = {"apikey": key}
    client = AsyncPostgrestClient(
        base, schema=schema, headers=headers, http_client=http, retry_enabled=False
    )
    try:
        await client.from_(table).select("*").limit(1).execute()
    except APIError as error:
        return _judge_refusal(schema, str(error.code), error.message or "")
    except (httpx.HTTPError, ValueError) as error:
        return f"no answer from {base} ({type(error).__name__}): check SUPABASE_URL"
    return f"STRANGERS CAN READ {schema}.{table}: take {schema} out of {HOW_TO_HIDE} at once"


CHECKS = (_configuration, _database, _redis, _signing_keys, _embedder, _providers, _data_api)
