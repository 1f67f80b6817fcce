"""The one ASGI layer of ours around every request: host, encoding, patience, timing, log."""

import asyncio
import time
from collections import deque
from functools import lru_cache
from ipaddress import ip_address

import structlog
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.config import Settings
from core.errors import (
    AppError,
    RateLimitExceeded,
    TooLarge,
    TooManyRequests,
    UnsupportedEncoding,
    WrongHost,
)
from routers.answers import failure_response
from routers.inputs import MOST_BODY_BYTES

log = structlog.get_logger("request")

# A body of a megabyte over a slow line takes a few seconds.
BODY_SECONDS = 30.0
API_VERSION = "x-supabase-api-version"
REFUSALS = (RateLimitExceeded.status, TooManyRequests.status)


class Timings:
    """The milliseconds of the last thousand requests."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=1_000)

    def add(self, milliseconds: float) -> None:
        self._recent.append(milliseconds)

    def percentiles(self) -> dict[str, float]:
        ordered = sorted(self._recent)
        if not ordered:
            return {}
        return {
            f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 2)
            for p in (50, 95, 99)
        }


class Edge:
    """Its settings come with the first request, from the lifespan: making it reads none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._compressed = GZipMiddleware(app, minimum_size=1_000)
        self._guarded: ASGIApp = self._within_bounds
        self.timings = Timings()
        self._hosts: frozenset[str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self._hosts is None:
            self._configure(scope["state"]["resources"].settings)
        scope["state"]["timings"] = self.timings
        start = time.perf_counter()
        status = 0
        refused = False

        async def note_status(message: Message) -> None:
            nonlocal status, refused
            if message["type"] == "http.response.start":
                status = message["status"]
                refused = status in REFUSALS and _says_limits(message)
            await send(message)

        try:
            if self._hosts and not _answers_to(_header(scope, b"host"), self._hosts):
                await failure_response(WrongHost())(scope, receive, note_status)
            else:
                await self._guarded(scope, receive, note_status)
        except Exception as error:
            # Its text may quote what people wrote: only its kind is logged.
            log.error("unforeseen_error", error=type(error).__name__)
            if not status:
                await failure_response(AppError())(scope, receive, note_status)
        finally:
            took = round((time.perf_counter() - start) * 1000, 2)
            self.timings.add(took)
            route = getattr(scope.get("route"), "path", None)
            traffic = scope["state"]["resources"].traffic
            traffic.add(scope["method"], route, status, took, refused)
            log.info("request", method=scope["method"], route=route, status=status, ms=took)

    async def _within_bounds(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if refusal := _refusal(headers):
            return await failure_response(refusal)(scope, receive, send)
        # Who does not ask for gzip need not pay for the layer.
        wants_gzip = b"gzip" in headers.get(b"accept-encoding", b"")
        await (self._compressed if wants_gzip else self.app)(scope, _bounded(receive), send)

    def _configure(self, settings: Settings) -> None:
        at_home = not settings.uses_supabase_auth
        names = (*settings.allowed_hosts, "localhost") if at_home else settings.allowed_hosts
        self._hosts = frozenset(name.lower() for name in names)
        if settings.cors_origins:
            # Around the refusals too: a page can read only what carries these headers.
            self._guarded = CORSMiddleware(
                self._within_bounds,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
                allow_headers=(
                    "authorization",
                    "content-type",
                    "apikey",
                    "x-client-info",
                    "x-memory",
                    "x-conversation-id",
                    "x-provider-key",
                    API_VERSION,
                    "mcp-protocol-version",
                    "mcp-method",
                    "mcp-name",
                ),
                expose_headers=(
                    "retry-after",
                    "ratelimit",
                    "ratelimit-policy",
                    "x-sb-error-code",
                    "x-memory-id",
                    "x-memory-sources",
                    API_VERSION,
                ),
                max_age=600,
            )


def _says_limits(start: Message) -> bool:
    """Only a limit's refusal does: 403 is also the answer about what is somebody else's."""
    return any(name == b"ratelimit" for name, _ in start["headers"])


def _header(scope: Scope, name: bytes) -> str:
    return next((value for key, value in scope["headers"] if key == name), b"").decode("latin-1")


def _refusal(headers: dict[bytes, bytes]) -> AppError | None:
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return UnsupportedEncoding()
    length = headers.get(b"content-length", b"")
    return TooLarge() if length.isdigit() and int(length) > MOST_BODY_BYTES else None


@lru_cache(maxsize=1_000)
def _answers_to(host: str, names: frozenset[str]) -> bool:
    """Any address will do: a web page that rebinds DNS to this server comes with a name."""
    name = _name_of(host)
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return name in names
    return True


def _name_of(host: str) -> str:
    """Take the port off: `[::1]:8000` is `[::1]`."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _bounded(receive: Receive) -> Receive:
    """Take MOST_BODY_BYTES within BODY_SECONDS; a body without end holds memory without end."""
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS
    complete = False
    size = 0

    async def receive_within_bounds() -> Message:
        nonlocal complete, size
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408) from None
        size += len(message.get("body", b""))
        if size > MOST_BODY_BYTES:
            raise HTTPException(413)
        complete = not message.get("more_body", False)
        return message

    return receive_within_bounds
