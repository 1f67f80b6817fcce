"""The model providers that the operator has set up, and which of them serves a request."""

import asyncio
from typing import Any

from pydantic import SecretStr

from core.config import ANTHROPIC_URL, OPENAI_URL, Settings, SettingsError
from core.errors import InvalidInput, NoChatProvider, ProviderFailed
from core.providers.anthropic import AnthropicFormat
from core.providers.format import Format
from core.providers.openai import OpenAIFormat
from core.providers.provider import Patience, Provider

# What is asked where neither the request nor CHAT_MODEL names a model.
OPENAI_MODEL = "gpt-5.4-mini"
ANTHROPIC_MODEL = "claude-haiku-5-5"


class Providers:
    """OpenAI and Anthropic are always known, as callers may bring keys of their own."""

    def __init__(self, settings: Settings) -> None:
        self._all = _make_all(settings)
        self._favourite: str | None = None
        if settings.chat_model:
            self._favourite, _, model = settings.chat_model.partition(":")
            if self._favourite not in self._all:
                raise SettingsError(f"CHAT_MODEL names an unknown provider: {self._favourite}")
            self._all[self._favourite].model = model

    @property
    def states(self) -> dict[str, bool]:
        """Say of each that is set up whether it answers, as far as is known."""
        return {p.name: not p.breaker.is_open for p in self._all.values() if p.is_configured}

    def choose(
        self,
        provider: str | None,
        model: str | None,
        *,
        own_key: bool,
        speaks: type[Format] | None = None,
    ) -> tuple[Provider, str]:
        """Find who serves a model: the named provider, or that of `name/model`, or the default.

        Raises InvalidInput for a name that is not known, NoChatProvider where nobody has a key.
        """
        usable = [
            p
            for p in self._in_order()
            if (p.is_configured or own_key) and (speaks is None or isinstance(p.format, speaks))
        ]
        if provider is not None:
            found = next((p for p in usable if p.name == provider), None)
            if found is None and provider not in self._all:
                raise InvalidInput(fields=[_wrong("provider", "is no provider of this server")])
        else:
            name, slash, rest = (model or "").partition("/")
            found = next((p for p in usable if slash and rest and p.name == name), None)
            model = rest if found else model
            found = found or (usable[0] if usable else None)
        if found is None:
            raise NoChatProvider
        if not (model or found.model):
            raise InvalidInput(fields=[_wrong("model", f"must name a model of {found.name}")])
        return found, model or found.model or ""

    async def models(self, speaks: type[Format], own_key: str | None) -> list[dict[str, Any]]:
        """List what can be asked for: of the default provider by name, of others as `name/model`.

        Those that are away are left out; raises ProviderFailed where all are.
        """
        asked = [
            p
            for p in self._in_order()
            if isinstance(p.format, speaks) and (p.is_configured or own_key)
        ]
        if own_key is not None:
            asked = asked[:1]  # nobody else's key is to be shown to the others
        if not asked:
            raise NoChatProvider
        answers = await asyncio.gather(*(p.models(own_key) for p in asked), return_exceptions=True)
        listed: list[dict[str, Any]] = []
        for provider, answer in zip(asked, answers, strict=True):
            prefix = "" if provider is asked[0] else f"{provider.name}/"
            if isinstance(answer, list):
                listed += [model | {"id": prefix + model["id"]} for model in answer]
            elif not isinstance(answer, ProviderFailed):
                raise answer
        failed = [answer for answer in answers if isinstance(answer, ProviderFailed)]
        if len(failed) == len(asked):
            raise failed[0]
        return listed

    async def aclose(self) -> None:
        for provider in self._all.values():
            await provider.aclose()

    def _in_order(self) -> list[Provider]:
        return sorted(self._all.values(), key=lambda p: p.name != self._favourite)


def _make_all(settings: Settings) -> dict[str, Provider]:
    is_openai = settings.openai_base_url == OPENAI_URL
    is_anthropic = settings.anthropic_base_url == ANTHROPIC_URL
    made = {
        "openai": _make(
            settings,
            "openai",
            OpenAIFormat("max_completion_tokens" if is_openai else "max_tokens"),
            settings.openai_base_url,
            settings.openai_api_key,
            OPENAI_MODEL if is_openai else None,
            needs_key=is_openai,
        ),
        "anthropic": _make(
            settings,
            "anthropic",
            AnthropicFormat(),
            settings.anthropic_base_url,
            settings.anthropic_api_key,
            ANTHROPIC_MODEL,
            needs_key=is_anthropic,
        ),
    }
    for name, named in settings.providers.items():
        if name in made:
            raise SettingsError(f"PROVIDERS__{name} is taken: set {name.upper()}_BASE_URL instead")
        made[name] = _make(
            settings, name, OpenAIFormat(), named.base_url, named.api_key, named.model
        )
    return made


def _make(
    settings: Settings,
    name: str,
    format: Format,
    base_url: str,
    key: SecretStr | None,
    model: str | None,
    *,
    needs_key: bool = False,
) -> Provider:
    patience = Patience(
        settings.provider_connect_seconds,
        settings.provider_silence_seconds,
        settings.provider_total_seconds,
    )
    secret = key.get_secret_value() if key else None
    return Provider(name, format, base_url, secret or None, model, patience, needs_key=needs_key)


def _wrong(field: str, message: str) -> dict[str, str]:
    return {"path": f"body.{field}", "message": message}
