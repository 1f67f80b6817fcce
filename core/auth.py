"""From an access token to the user it belongs to."""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args
from uuid import UUID

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.config import SettingsError
from core.errors import Unauthorized
from core.jwks import KeySource, PublicKey

MAX_TOKEN = 8192  # characters
LEEWAY = 30  # seconds between two machines' clocks
CACHE_FOR = 300  # seconds
JUST_NOW = 600  # seconds
CACHE_SIZE = 10_000
NO_PROOF = ("token_refresh", "anonymous")
MIN_SECRET = 32  # bytes, as RFC 7518 demands for HS256

COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

Seconds = Annotated[float, Field(allow_inf_nan=False)]


# What a personal API token may do; whoever signed in may do all of it.
Scope = Literal["read", "write", "chat"]
ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. `email` is for display: it proves nothing and may change.

    `token_id` is that of the personal API token, None of somebody who signed in.
    `signed_in_at`, in seconds since the epoch, is when the user last proved who it is.
    """

    id: UUID
    session_id: UUID | None
    email: str | None
    scopes: frozenset[Scope] = ALL_SCOPES
    token_id: UUID | None = None
    signed_in_at: float | None = None


def signed_in_just_now(user: User) -> bool:
    return user.signed_in_at is not None and time.time() - user.signed_in_at <= JUST_NOW


class Claims(BaseModel):
    """What a token must say, in exactly these types, to be a signed-in user's."""

    model_config = ConfigDict(strict=True)

    iss: str
    sub: UUID
    aud: (
        Literal["authenticated"]
        | Annotated[list[Literal["authenticated"]], Field(min_length=1, max_length=1)]
    )
    role: Literal["authenticated"]
    exp: Seconds
    iat: Seconds
    nbf: Seconds | None = None
    session_id: UUID | None = None
    email: str | None = None
    # Added to by others' hooks, so that nothing is refused for what is in it.
    amr: object = None

    @property
    def signed_in_at(self) -> float | None:
        """The last proof of who it is; a token that was merely refreshed is none."""
        entries = self.amr if isinstance(self.amr, list) else []
        times = [
            entry["timestamp"]
            for entry in entries
            if isinstance(entry, dict)
            and type(entry.get("timestamp")) in (int, float)
            and entry.get("method") not in NO_PROOF
        ]
        return max(times, default=None)


class TokenVerifier:
    """Verifies tokens and remembers, by their hash, those that were good.

    An `hs256_secret` admits Supabase's legacy tokens as well. Anonymous users of Supabase are
    users like others. `clock` is in seconds since the epoch.
    """

    def __init__(
        self,
        issuer: str,
        keys: KeySource,
        hs256_secret: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if hs256_secret is not None and len(hs256_secret.encode()) < MIN_SECRET:
            raise SettingsError(f"SUPABASE_JWT_SECRET is shorter than {MIN_SECRET} bytes")
        self._issuer = issuer
        self._keys = keys
        self._secret = hs256_secret
        self._clock = clock
        self._jws = jwt.PyJWS()
        self._verified: OrderedDict[bytes, tuple[User, float]] = OrderedDict()
        self._generation = keys.generation

    async def verify(self, token: str) -> User:
        """Raise Unauthorized, or Unavailable when there are no keys to verify with."""
        user = self.remembered(token)
        if user is not None:
            return user
        if len(token) > MAX_TOKEN or not COMPACT.fullmatch(token):
            raise Unauthorized
        digest = _digest(token)
        # What was good must prove itself anew.
        self._verified.pop(digest, None)
        claims = await self._claims(token)
        email, signed_in_at = claims.email or None, claims.signed_in_at
        user = User(claims.sub, claims.session_id, email, signed_in_at=signed_in_at)
        self._remember(digest, user, claims.exp)
        return user

    def forget(self, user_id: UUID) -> None:
        mine = [digest for digest, (user, _) in self._verified.items() if user.id == user_id]
        for digest in mine:
            del self._verified[digest]

    def was_good(self, token: str) -> bool:
        return _digest(token) in self._verified

    def remembered(self, token: str) -> User | None:
        """Return whose token this is, if it was good a moment ago."""
        digest = _digest(token)
        self._keys.refresh_soon()
        self._forget_tokens_of_old_keys()
        user, until = self._verified.get(digest, (None, 0.0))
        if user is None or self._clock() >= until:
            return None
        self._verified.move_to_end(digest)
        return user

    def _remember(self, digest: bytes, user: User, expires_at: float) -> None:
        # Looking for the key may have brought in a new set.
        self._forget_tokens_of_old_keys()
        self._verified[digest] = user, min(expires_at, self._clock() + CACHE_FOR)
        self._verified.move_to_end(digest)
        if len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)

    def _forget_tokens_of_old_keys(self) -> None:
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._verified.clear()

    async def _claims(self, token: str) -> Claims:
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key_for(header)
            # One algorithm, never a list of families: a public key must not become an HMAC secret.
            payload = self._jws.decode(token, key, algorithms=[header["alg"]])
            claims = Claims.model_validate_json(payload)
        except (jwt.PyJWTError, ValidationError, RecursionError) as exc:
            raise Unauthorized from exc
        self._check(claims)
        return claims

    async def _key_for(self, header: dict[str, object]) -> PublicKey | str:
        """Choose by algorithm and key id alone; keys and addresses a token brings are ignored."""
        algorithm, kid = header.get("alg"), header.get("kid")
        key: PublicKey | str | None = None
        if "crit" not in header and (kid is None or isinstance(kid, str)):
            if algorithm in ("ES256", "RS256") and kid is not None:
                key = await self._keys.find(str(algorithm), kid)
            elif algorithm == "HS256" and not self._keys.knows(kid):
                key = self._secret
        if key is None:
            raise Unauthorized
        return key

    def _check(self, claims: Claims) -> None:
        now = self._clock()
        begins = max(claims.iat, claims.nbf or 0)
        if claims.iss != self._issuer or claims.exp + LEEWAY <= now or begins - LEEWAY > now:
            raise Unauthorized


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
