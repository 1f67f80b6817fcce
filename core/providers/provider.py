"""One model provider: its client, its time-outs, and how often it is asked again."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from core.errors import ProviderFailed, ProviderTooSlow
from core.providers.breaker import Breaker
from core.providers.format import Format, Sdk, at

log = structlog.get_logger()

ATTEMPTS = 3
BACK_OFF = 0.25  # seconds, doubled each time
LONGEST_WAIT = 2.0  # seconds; who asks us is told of a longer Retry-After
MOST_BYTES = 32 * 1024 * 1024  # of a reply that is not streamed
MODELS_FRESH = 600.0  # seconds
MODELS_RETRY = 30.0
MODELS_SECONDS = 10.0
KEY_REFUSED = (401, 403)
# A reply's bytes are passed on as they come, so they must not be compressed.
PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to connect, without a byte of a stream, and for a whole reply."""

    connect: float
    silence: float
    total: float


class Upstream:
    """A reply that has begun. `close` must follow."""

    def __init__(self, name: str, response: Any, first: bytes, rest: Any, deadline: float) -> None:
        self.content_type = response.headers.get("content-type", "application/json")
        self._name = name
        self._response = response
        self._first = first
        self._rest = rest
        self._deadline = deadline

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they came. Raise ProviderFailed where they end too early."""
        import httpx2

        yield self._first
        try:
            async for chunk in self._rest:
                yield chunk
                if time.monotonic() > self._deadline:
                    raise ProviderTooSlow(provider=self._name)
        except httpx2.TimeoutException as error:
            raise ProviderTooSlow(provider=self._name) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise ProviderFailed("The reply broke off.", provider=self._name) from error

    async def close(self) -> None:
        await self._response.aclose()


class Provider:
    def __init__(
        self,
        name: str,
        format: Format,
        base_url: str,
        api_key: str | None,
        model: str | None,
        patience: Patience,
        *,
        needs_key: bool,
    ) -> None:
        self.name = name
        self.format = format
        self.model = model
        self.breaker = Breaker()
        self.is_configured = api_key is not None or not needs_key
        self._base_url = base_url
        # A server without keys still gets one: the SDK insists.
        self._api_key = api_key or "none"
        self._patience = patience
        self._sdk: Sdk | None = None
        self._connecting = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._models: list[dict[str, Any]] = []
        self._models_until = 0.0

    async def open(
        self,
        content: bytes,
        *,
        stream: bool,
        own_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Upstream:
        """Return when the first bytes of a reply are here; until then it is tried again.

        Raises ProviderFailed and ProviderTooSlow.
        """
        for attempt in range(ATTEMPTS):
            if wait := self.breaker.wait():
                down = ProviderFailed("The model provider is down.", provider=self.name)
                down.retry_after = int(wait) + 1
                raise down
            try:
                upstream = await self._attempt(content, stream, own_key, headers or {})
            except ProviderFailed as error:
                self._note(error)
                pause = BACK_OFF * 2**attempt * random.uniform(0.5, 1.5)  # nosec B311 # only a pause
                pause = max(pause, error.retry_after or 0)
                if not error.passing or attempt + 1 == ATTEMPTS or pause > LONGEST_WAIT:
                    raise
                await asyncio.sleep(pause)
            else:
                self.breaker.succeeded()
                return upstream
        raise AssertionError("unreachable")

    async def models(self, own_key: str | None = None) -> list[dict[str, Any]]:
        """The provider's own list, which is believed for MODELS_FRESH, or longer while it is away.

        Raises ProviderFailed where there never was one. With a key of the caller's it is read anew.
        """
        if own_key is not None:
            return await self._read_models(own_key)
        async with self._listing:
            if time.monotonic() >= self._models_until:
                fresh = MODELS_FRESH
                try:
                    self._models = await self._read_models(None)
                except ProviderFailed:
                    if not self._models:
                        raise
                    fresh = MODELS_RETRY
                self._models_until = time.monotonic() + fresh
            return self._models

    async def aclose(self) -> None:
        if self._sdk:
            await self._sdk.client.close()

    async def _attempt(
        self, content: bytes, stream: bool, own_key: str | None, headers: Mapping[str, str]
    ) -> Upstream:
        sdk = await self._connected()
        silence = self._patience.silence if stream else self._patience.total
        deadline = time.monotonic() + self._patience.total
        response = None
        try:
            with self._translating(sdk, own_key):
                async with asyncio.timeout(silence):
                    response = await self._send(sdk, content, silence, own_key, headers)
                    rest = response.aiter_bytes()
                    first = await (anext(rest, b"") if stream else self._whole(rest))
            if not first:
                raise ProviderFailed("The reply was empty.", passing=True, provider=self.name)
            return Upstream(self.name, response, first, rest, deadline)
        except BaseException:
            if response is not None:
                await response.aclose()
            raise

    async def _send(
        self,
        sdk: Sdk,
        content: bytes,
        silence: float,
        own_key: str | None,
        headers: Mapping[str, str],
    ) -> Any:
        import httpx2

        client = sdk.client if own_key is None else sdk.client.with_options(api_key=own_key)
        return await client.post(
            self.format.path,
            cast_to=httpx2.Response,
            content=content,
            stream=True,
            options={
                "headers": {"Content-Type": "application/json", **PLAIN, **headers},
                "timeout": httpx2.Timeout(silence, connect=self._patience.connect),
                "follow_redirects": False,
            },
        )

    async def _whole(self, chunks: AsyncIterator[bytes]) -> bytes:
        whole = bytearray()
        async for chunk in chunks:
            whole += chunk
            if len(whole) > MOST_BYTES:
                raise ProviderFailed("The reply is too large.", provider=self.name)
        return bytes(whole)

    async def _read_models(self, own_key: str | None) -> list[dict[str, Any]]:
        import httpx2

        sdk = await self._connected()
        client = sdk.client if own_key is None else sdk.client.with_options(api_key=own_key)
        with self._translating(sdk, own_key):
            async with asyncio.timeout(MODELS_SECONDS):
                response = await client.get(
                    self.format.models_path,
                    cast_to=httpx2.Response,
                    options={"follow_redirects": False},
                )
        try:
            listed = at(orjson.loads(response.content), "data")
        except orjson.JSONDecodeError as error:
            raise ProviderFailed("Its list of models is no JSON.", provider=self.name) from error
        return [model for model in listed or () if isinstance(at(model, "id"), str)]

    async def _connected(self) -> Sdk:
        async with self._connecting:
            if self._sdk is None:
                self._sdk = await asyncio.to_thread(
                    self.format.connect, self._base_url, self._api_key
                )
            return self._sdk

    @contextmanager
    def _translating(self, sdk: Sdk, own_key: str | None) -> Iterator[None]:
        import httpx2

        try:
            yield
        except sdk.status_error as error:
            raise self._refusal(error.response, own_key) from error  # type: ignore[attr-defined]
        except (sdk.connection_error, httpx2.HTTPError) as error:
            if isinstance(error.__cause__ or error, httpx2.TimeoutException):
                raise ProviderTooSlow(provider=self.name) from error
            message = "The model provider cannot be reached."
            raise ProviderFailed(message, passing=True, provider=self.name) from error
        except TimeoutError as error:
            raise ProviderTooSlow(provider=self.name) from error

    def _refusal(self, response: Any, own_key: str | None) -> ProviderFailed:
        """What the provider says goes on to the caller, but not what it says of our key."""
        status, body = response.status_code, response.content
        told = None
        if status in KEY_REFUSED and own_key is None:
            log.error("provider_refused_the_key", provider=self.name, status=status)
        elif _is_refusal(body):
            for key in (self._api_key, own_key or self._api_key):
                body = body.replace(key.encode(), b"***")
            told = status, body
        passing = status == 429 or status >= 500
        error = ProviderFailed(told=told, passing=passing, provider=self.name, status=status)
        error.retry_after = _seconds(response.headers.get("retry-after"))
        return error

    def _note(self, error: ProviderFailed) -> None:
        """A provider that refuses one request is there for others."""
        status = error.details.get("status")
        if isinstance(status, int) and status < 500:
            self.breaker.succeeded()
        else:
            self.breaker.failed()


def _is_refusal(body: bytes) -> bool:
    try:
        return at(orjson.loads(body), "error") is not None
    except orjson.JSONDecodeError:
        return False


def _seconds(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 7 else None
