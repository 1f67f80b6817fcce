"""The one ASGI layer of ours around every request: host, encoding, patience, timing, log."""

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from random import getrandbits
from uuid import UUID

import structlog
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
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
from core.logs import Pseudonyms
from core.resources import Resources
from routers.compression import Compression
from routers.inputs import MIB, MOST_BODY_BYTES
from routers.relay import refusal_at

log = structlog.get_logger("request")

# A body of a megabyte over a slow line takes a few seconds, an export of years an hour.
BODY_SECONDS = 30.0
UPLOAD_SECONDS = 3 * 3_600.0
UPLOADS = {("POST", "/import")}
EXPORTS = ("/export/full", "/export")
# What a form adds to the file in it.
FORM_BYTES = 64 * 1024
API_VERSION = "x-supabase-api-version"
REQUEST_ID = "x-request-id"
GOOD_ID = re.compile(r"[\w-]{8,64}", re.ASCII)
# Of pages elsewhere: what they may send, and what they may read.
ALLOWED_HEADERS = (
    "authorization",
    "content-type",
    "if-match",
    "apikey",
    "x-client-info",
    "x-memory",
    "x-conversation-id",
    "x-provider-key",
    API_VERSION,
    REQUEST_ID,
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
)
EXPOSED_HEADERS = (
    "etag",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "x-sb-error-code",
    "x-memory-id",
    "x-memory-sources",
    API_VERSION,
    REQUEST_ID,
)
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


@dataclass(slots=True)
class Seen:
    """What is known of a request; who learns something writes it here.

    `status` is 0 until the answer begins, `refused` says whether it was a limit's.
    """

    id: str
    status: int = 0
    refused: bool = False
    user_id: UUID | None = None
    code: str | None = None


class Edge:
    """Its settings come with the first request, from the lifespan: making it reads none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._compressed = Compression(app)
        self._guarded: ASGIApp = self._within_bounds
        self.timings = Timings()
        self._most_upload_bytes = 0
        self._hosts: frozenset[str] | None = None
        self._pseudonyms = Pseudonyms(None)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start = time.perf_counter()
        resources: Resources = scope["state"]["resources"]
        if self._hosts is None:
            self._configure(resources.settings)
        host, sent_id = _host_and_id(scope)
        made = f"{getrandbits(64):016x}"  # nosec B311 # no secret: it joins lines of a log
        seen = Seen(sent_id if GOOD_ID.fullmatch(sent_id) else made)
        scope["state"] = scope["state"] | {"timings": self.timings, "seen": seen}

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                seen.refused = seen.status in REFUSALS and _says_limits(message)
                name_it = REQUEST_ID.encode(), seen.id.encode()
                message["headers"] = [*message.get("headers", ()), name_it]
            await send(message)

        try:
            if self._hosts and not _answers_to(host, self._hosts):
                await refusal_at(scope, WrongHost())(scope, receive, note_status)
            else:
                await self._guarded(scope, receive, note_status)
        except Exception as error:
            resources.faults.report("unforeseen_error", error, id=seen.id, route=_route(scope))
            if not seen.status:
                answer = refusal_at(scope, AppError(request_id=seen.id))
                await answer(scope, receive, note_status)
        finally:
            self._note(scope, resources, seen, time.perf_counter() - start)

    def _note(self, scope: Scope, resources: Resources, seen: Seen, seconds: float) -> None:
        route, method = _route(scope), scope["method"]
        self.timings.add(seconds * 1000)
        resources.traffic.add(method, route, seen.status, seconds * 1000, seen.refused)
        resources.requests.add(route, method, seen.status, seen.code, seconds)
        self._log.info(
            "request",
            id=seen.id,
            method=method,
            route=route,
            status=seen.status,
            code=seen.code,
            ms=round(seconds * 1000, 2),
            user=self._pseudonyms.of(seen.user_id) if seen.user_id else None,
        )

    async def _within_bounds(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        bounds = _Bounds(MOST_BODY_BYTES, BODY_SECONDS, BODY_SECONDS)
        if (scope["method"], scope["path"]) in UPLOADS:
            bounds = _Bounds(self._most_upload_bytes, UPLOAD_SECONDS, BODY_SECONDS)
        if refusal := _refusal(headers, bounds):
            return await refusal_at(scope, refusal)(scope, receive, send)
        # Who does not ask for gzip need not pay for the layer, and a zip is as small as it gets.
        takes_gzip = b"gzip" in headers.get(b"accept-encoding", b"")
        wants_gzip = takes_gzip and not scope["path"].endswith(EXPORTS)
        await (self._compressed if wants_gzip else self.app)(scope, _bounded(receive, bounds), send)

    def _configure(self, settings: Settings) -> None:
        self._most_upload_bytes = settings.import_max_mb * MIB + FORM_BYTES
        at_home = not settings.uses_supabase_auth
        names = (*settings.allowed_hosts, "localhost") if at_home else settings.allowed_hosts
        self._hosts = frozenset(name.lower() for name in names)
        # The lazy logger would look its processors up with each line.
        self._log = log.bind()
        if settings.log_hash_key:
            self._pseudonyms = Pseudonyms(settings.log_hash_key.get_secret_value())
        if settings.cors_origins:
            # Around the refusals too: a page can read only what carries these headers.
            self._guarded = CORSMiddleware(
                self._within_bounds,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
                allow_headers=ALLOWED_HEADERS,
                expose_headers=EXPOSED_HEADERS,
                max_age=600,
            )


def _route(scope: Scope) -> str | None:
    """The template: of a path only what we wrote ourselves."""
    route: str | None = getattr(scope.get("route"), "path", None)
    return route


def _host_and_id(scope: Scope) -> tuple[str, str]:
    """The request's host, and what the client or a proxy calls this request."""
    host = sent_id = b""
    for name, value in scope["headers"]:
        if name == b"host":
            host = host or value
        elif name == b"x-request-id":
            sent_id = value
    return host.decode("latin-1"), sent_id.decode("latin-1")


def _says_limits(start: Message) -> bool:
    """Only a limit's refusal does: 403 is also the answer about what is somebody else's."""
    return any(name == b"ratelimit" for name, _ in start["headers"])


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What a body may be: its size, its time, and the time in which nothing of it comes."""

    bytes: int
    seconds: float
    silence: float


def _refusal(headers: dict[bytes, bytes], bounds: _Bounds) -> AppError | None:
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return UnsupportedEncoding()
    length = headers.get(b"content-length", b"")
    return TooLarge() if length.isdigit() and int(length) > bounds.bytes else None


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


def _bounded(receive: Receive, bounds: _Bounds) -> Receive:
    """Take a body within its bounds; one without end holds memory, or a connection, without end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bounds.seconds
    complete = False
    size = 0

    async def receive_within_bounds() -> Message:
        nonlocal complete, size
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + bounds.silence)):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408) from None
        size += len(message.get("body", b""))
        if size > bounds.bytes:
            raise HTTPException(413)
        complete = not message.get("more_body", False)
        return message

    return receive_within_bounds
