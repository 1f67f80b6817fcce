"""Settings: the only reader of the environment and of `.env`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.addresses import Network, networks

ROOT = Path(__file__).resolve().parent.parent
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"


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


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    data_dir: Path = Field(default_factory=_default_data_dir)
    model_dir: Path = ROOT / "models"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: SecretStr | None = None
    database_pool_min: int = Field(2, ge=1, le=50)
    database_pool_max: int = Field(10, ge=1, le=50)
    redis_url: SecretStr | None = None

    supabase_url: str | None = None
    supabase_jwks_url: str | None = None
    supabase_jwt_secret: SecretStr | None = None
    supabase_secret_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("supabase_secret_key", "supabase_key")
    )
    auth_disable_signup: bool = False
    auth_public_url: str | None = None
    access_token_seconds: int = Field(3600, ge=60, le=86_400)

    embedder: str = "local"
    openai_api_key: SecretStr | None = None
    openai_base_url: str = OPENAI_URL
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

    sign_ups_per_hour: int = Field(30, ge=1)
    sign_ins_per_minute: int = Field(20, ge=1)
    admin_sign_ins_per_minute: int = Field(5, ge=1)
    bad_tokens_per_minute: int = Field(60, ge=1)
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    vector_backend: Literal["faiss", "pgvector"] = "faiss"
    index_memory_mb: int = Field(256, ge=1)
    index_load_ms: int = Field(300, ge=0, le=60_000)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_unset(cls, values: dict[str, object]) -> dict[str, object]:
        """`NAME=` in an env file or a deployment form is no value."""
        kept = {name: value for name, value in values.items() if value != ""}
        for name in ("cors_origins", "allowed_hosts", "trusted_proxies"):
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
    def uses_supabase_auth(self) -> bool:
        return self.supabase_url is not None

    @property
    def newcomers_tier(self) -> str:
        return self.default_tier or ("free" if self.uses_supabase_auth else "enterprise")

    @property
    def token_issuer(self) -> str:
        """The `iss` that access tokens must carry; at home it names no port, which may change."""
        if self.supabase_url:
            return self.supabase_url.rstrip("/") + "/auth/v1"
        return (self.auth_public_url or "http://127.0.0.1").rstrip("/") + "/auth/v1"
