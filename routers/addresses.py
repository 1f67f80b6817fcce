"""Limits by client address, for what has no user yet: slowapi, counting in this process."""

from typing import Literal, Protocol

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from slowapi import Limiter

from core import addresses
from core.auth import User
from core.bad_tokens import BadTokens, too_many
from core.config import Settings
from core.errors import AppError, Unauthorized

COUNTERS = 16_384
Door = Literal["sign_up", "sign_in", "admin"]


def client_address(request: Request) -> str:
    peer = request.client.host if request.client else None
    forwarded = request.headers.getlist("x-forwarded-for")
    trusted = request.state.resources.settings.trusted_proxies
    return addresses.client_address(peer, forwarded, trusted)


class Verifier(Protocol):
    def was_good(self, token: str) -> bool: ...

    async def verify(self, token: str) -> User: ...


async def verified(request: Request, verifier: Verifier, token: str) -> User:
    """Verify a token; raise TooManyRequests before trying one that was never good, where its
    address has sent too many bad ones."""
    bad_tokens: BadTokens = request.state.resources.bad_tokens
    address = client_address(request)
    if not verifier.was_good(token):
        bad_tokens.check(address)
    try:
        return await verifier.verify(token)
    except Unauthorized:
        bad_tokens.note(address)
        raise


class AddressLimits:
    """Its decorators are not used: they belong to a module, and these limits to the settings."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = Limiter(key_func=client_address, storage_uri="memory://")
        self._items: dict[Door, RateLimitItem] = {
            "sign_up": RateLimitItemPerHour(settings.sign_ups_per_hour),
            "sign_in": RateLimitItemPerMinute(settings.sign_ins_per_minute),
            "admin": RateLimitItemPerMinute(settings.admin_sign_ins_per_minute),
        }

    def check(self, door: Door, request: Request) -> None:
        """Raise TooManyRequests where no try is left at this door; count none."""
        item, counter = self._items[door], _counter_of(request)
        if not self._limiter.limiter.test(item, door, counter):
            raise self._refusal(door, counter)

    def spend(self, door: Door, request: Request) -> None:
        """Count a try at this door; raise TooManyRequests."""
        item, counter = self._items[door], _counter_of(request)
        if not self._limiter.limiter.hit(item, door, counter):
            raise self._refusal(door, counter)

    def _refusal(self, door: Door, counter: str) -> AppError:
        item = self._items[door]
        reset_at = self._limiter.limiter.get_window_stats(item, door, counter).reset_time
        return too_many(item.amount, reset_at)


def _counter_of(request: Request) -> str:
    """So many counters and no more, however many addresses there are; python's hash of a text
    differs from process to process, so that nobody can choose whose counter to share."""
    return str(hash(addresses.group_of(client_address(request))) % COUNTERS)
