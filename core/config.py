"""Settings: the only reader of the environment and of `.env`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.addresses import Network, networks
from core.admin_keys import hash_of

ROOT = Path(__file__).resolve().parent.parent
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
VERSION = "0.1.0"
SHORTEST_ADMIN_KEY = 24


def complaints(error: ValidationError) -> list[str]:
    """One line for each wrong setting, without its value, which may be a secret."""
    lines = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"])).upper()
        reason = item["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {reason}" if name else reason)
    return lines


class SettingsError(ValueError):
    """A setting that would make the service start wrongly; the text is for the operator."""


class ProviderSettings(BaseModel):
    """A model provider of the operator's choice that speaks OpenAI's protocol."""

    model_config = ConfigDict(frozen=True)

    base_url: str = Field(pattern=r"^https?://[^\s@]+$")
    api_key: SecretStr | None = None
    model: str | None = None


ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]


def _default_data_dir() -> Path:
    """Outlive the checkout; as root stay out of /root, which Postgres' own user may not enter."""
    return Path("/var/lib/memory-layer") if os.geteuid() == 0 else Path.home() / ".memory-layer"


def _hashed(key: object) -> object:
    """From here on a key is known by its hash alone."""
    if not isinstance(key, str):
        return key
    if len(key.strip()) < SHORTEST_ADMIN_KEY:
        raise ValueError("too short to be safe: make one with `python main.py admin-key`")
    return hash_of(key.strip())


AdminKey = Annotated[bytes, BeforeValidator(_hashed)]


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    data_dir: Path = Field(default_factory=_default_data_dir)
    model_dir: Path = ROOT / "models"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_hash_key: SecretStr | None = Field(None, min_length=16)
    environment: str = Field("production", pattern=r"^[\w.-]{1,64}$")
    sentry_dsn: SecretStr | None = None
    metrics_token: SecretStr | None = Field(None, min_length=16)

    database_url: SecretStr | None = None
    database_pool_min: int = Field(2, ge=1, le=50)
    database_pool_max: int = Field(10, ge=1, le=50)
    redis_url: SecretStr | None = None

    supabase_url: str | None = None
    supabase_jwks_url: str | None = None
    supabase_jwt_secret: SecretStr | None = None
    supabase_publishable_key: SecretStr | None = None
    supabase_secret_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("supabase_secret_key", "supabase_key")
    )
    auth_disable_signup: bool = False
    auth_public_url: str | None = None
    access_token_seconds: int = Field(3600, ge=60, le=86_400)

    embedder: str = "local"
    openai_api_key: SecretStr | None = None
    openai_base_url: str = OPENAI_URL
    embedder_base_url: str | None = Field(None, pattern=r"^https?://[^\s@]+$")
    embedder_api_key: SecretStr | None = None
    embedding_batch: int = Field(64, ge=1, le=512)

    anthropic_api_key: SecretStr | None = None
    anthropic_base_url: str = ANTHROPIC_URL
    providers: dict[ProviderName, ProviderSettings] = Field(default_factory=dict)
    chat_model: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_.-]*:.+$")
    memory_tokens: int = Field(2_000, ge=200, le=100_000)
    provider_connect_seconds: float = Field(5, gt=0, le=60)
    provider_silence_seconds: float = Field(60, gt=0, le=600)
    provider_total_seconds: float = Field(600, gt=0, le=3_600)

    free_per_day: int = Field(100, ge=0)
    free_per_minute: int = Field(120, ge=0)
    pro_per_day: int = Field(2_000, ge=0)
    pro_per_minute: int = Field(300, ge=0)
    enterprise_per_day: int = Field(50_000, ge=0)
    enterprise_per_minute: int = Field(1_200, ge=0)
    free_tokens_per_day: int = Field(0, ge=0)
    pro_tokens_per_day: int = Field(0, ge=0)
    enterprise_tokens_per_day: int = Field(0, ge=0)
    default_tier: Literal["free", "pro", "enterprise"] | None = None
    replicas: int = Field(1, ge=1)

    admin_api_key: AdminKey | None = None
    admin_api_keys: Annotated[tuple[AdminKey, ...], NoDecode] = Field((), max_length=2)
    sign_ups_per_hour: int = Field(30, ge=1)
    sign_ins_per_minute: int = Field(20, ge=1)
    admin_sign_ins_per_minute: int = Field(5, ge=1)
    bad_tokens_per_minute: int = Field(60, ge=1)
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    import_max_mb: int = Field(2_048, ge=1)
    vector_backend: Literal["faiss", "pgvector"] = "faiss"
    index_memory_mb: int = Field(256, ge=1)
    index_load_ms: int = Field(300, ge=0, le=60_000)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_unset(cls, values: dict[str, object]) -> dict[str, object]:
        """`NAME=` in an env file or a deployment form is no value."""
        kept = {name: value for name, value in values.items() if value != ""}
        for name in ("admin_api_keys", "cors_origins", "allowed_hosts", "trusted_proxies"):
            if isinstance(listed := kept.get(name), str):
                kept[name] = tuple(part.strip() for part in listed.split(",") if part.strip())
        return kept

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, names: tuple[str, ...]) -> tuple[Network, ...]:
        return networks(names)

    @model_validator(mode="after")
    def _supabase_needs_its_database(self) -> "Settings":
        if self.supabase_url and not self.database_url:
            raise SettingsError("SUPABASE_URL is set but DATABASE_URL is not: set both, or neither")
        if self.supabase_jwt_secret and not self.supabase_url:
            raise SettingsError("SUPABASE_JWT_SECRET is set but SUPABASE_URL is not")
        if self.database_pool_min > self.database_pool_max:
            raise SettingsError("DATABASE_POOL_MIN is above DATABASE_POOL_MAX")
        return self

    @property
    def jwks_url(self) -> str:
        return self.supabase_jwks_url or f"{self.token_issuer}/.well-known/jwks.json"

    @property
    def uses_supabase_auth(self) -> bool:
        return self.supabase_url is not None

    @property
    def admin_key_hashes(self) -> tuple[bytes, ...]:
        return (*((self.admin_api_key,) if self.admin_api_key else ()), *self.admin_api_keys)

    @property
    def newcomers_tier(self) -> str:
        return self.default_tier or ("free" if self.uses_supabase_auth else "enterprise")

    @property
    def token_issuer(self) -> str:
        """The `iss` that access tokens must carry; at home it names no port, which may change."""
        if self.supabase_url:
            return self.supabase_url.rstrip("/") + "/auth/v1"
        return (self.auth_public_url or "http://127.0.0.1").rstrip("/") + "/auth/v1"
