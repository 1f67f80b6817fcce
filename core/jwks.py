"""The public keys that verify access tokens, fetched from an identity provider and cached."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from core.config import SettingsError
from core.errors import Unavailable

PublicKey = EllipticCurvePublicKey | RSAPublicKey
# By algorithm and kid: a key serves the one algorithm that its type allows.
KeySet = dict[tuple[str, str], PublicKey]

REFRESH_AFTER = 300  # seconds; from here on a use starts a fetch behind the request
FRESH_FOR = 600  # seconds; what Supabase's Cache-Control says and its documentation asks for
STALE_FOR = 24 * 3600  # seconds; as long as fetching fails
COOLDOWN = 30  # seconds between fetches, however many unknown key ids are shown to us
FIRST_COOLDOWN = 1  # seconds, while there is no key set at all
FETCH_TIMEOUT = 3  # seconds for the whole fetch
MAX_BYTES = 64 * 1024
MIN_RSA_BITS = 2048

log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Where a verifier finds keys."""

    @property
    def generation(self) -> int:
        """Grows whenever the set changes."""
        ...

    def knows(self, kid: str | None) -> bool: ...

    def refresh_soon(self) -> None:
        """Called on every use; must not block."""
        ...

    async def find(self, algorithm: str, kid: str) -> PublicKey | None: ...


class RemoteKeys:
    """A JSON Web Key Set behind a URL. `clock` is monotonic, in seconds."""

    def __init__(
        self, url: str, http: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = _secure(url)
        self._http = http
        self._clock = clock
        self._keys: KeySet = {}
        self._body = b""
        self._generation = 0
        self._fetched_at = self._tried_at = -math.inf
        self._fetch: asyncio.Task[None] | None = None

    @property
    def generation(self) -> int:
        return self._generation

    def knows(self, kid: str | None) -> bool:
        return any(known == kid for _, known in self._keys)

    def refresh_soon(self) -> None:
        if self._age() >= REFRESH_AFTER:
            self._start_fetch()

    async def find(self, algorithm: str, kid: str) -> PublicKey | None:
        """Raise Unavailable when there is no key set to look in."""
        if self._age() >= FRESH_FOR or (algorithm, kid) not in self._keys:
            await self._refetch()
        if self._age() >= STALE_FOR:
            raise Unavailable("The keys that verify access tokens cannot be fetched now.")
        return self._keys.get((algorithm, kid))

    def close(self) -> None:
        if self._fetch:
            self._fetch.cancel()

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    async def _refetch(self) -> None:
        if fetch := self._start_fetch():
            # Many requests wait for one fetch; one that goes away must not take it along.
            await asyncio.shield(fetch)

    def _start_fetch(self) -> asyncio.Task[None] | None:
        """Return the fetch under way, or a new one, or None during the cooldown."""
        if self._fetch and not self._fetch.done():
            return self._fetch
        cooldown = COOLDOWN if self._generation else FIRST_COOLDOWN
        if self._clock() - self._tried_at < cooldown:
            return None
        self._tried_at = self._clock()
        self._fetch = asyncio.create_task(self._replace())
        return self._fetch

    async def _replace(self) -> None:
        """Take over a new set; a failure of any kind leaves the old one."""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                body = await download(self._url, self._http)
            keys = parse_key_set(body)
        except (httpx.HTTPError, TimeoutError, ValueError) as exc:
            log.warning("jwks_fetch_failed", reason=type(exc).__name__)
            return
        if body != self._body:
            self._generation += 1
        self._body, self._keys, self._fetched_at = body, keys, self._clock()


async def download(url: str, http: httpx.AsyncClient) -> bytes:
    """Return a key set's bytes; raise ValueError for anything but a plain, small 200."""
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    body = b""
    async with http.stream(
        "GET", url, headers=headers, follow_redirects=False, timeout=FETCH_TIMEOUT
    ) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError("the key set's address did not answer 200")
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError("the key set is too large")
    return body


def parse_key_set(body: bytes) -> KeySet:
    """Return the usable keys; other kinds are passed over, symmetric ones above all.

    Raises ValueError when `body` is not a key set.
    """
    try:
        listed = json.loads(body)["keys"]
        found = [_parse_key(jwk) for jwk in listed]
    except (KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError) as exc:
        raise ValueError("not a key set") from exc
    return dict(entry for entry in found if entry)


def _parse_key(jwk: dict[str, object]) -> tuple[tuple[str, str], PublicKey] | None:
    algorithm = {"EC": "ES256", "RSA": "RS256"}.get(str(jwk["kty"]))
    kid = jwk.get("kid")
    if algorithm is None or not isinstance(kid, str):
        return None
    if jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    if algorithm == "ES256" and jwk.get("crv") != "P-256":
        return None
    key = jwt.PyJWK(jwk, algorithm=algorithm).key
    # A private key that somebody publishes is no key to trust.
    if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return None
    return (algorithm, kid), key


def _secure(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return url
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"):
        return url
    raise SettingsError("The address of the key set must begin with https://")
