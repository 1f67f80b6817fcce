"""Answers that come piece by piece, and clients that leave before the end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
import structlog
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from core.errors import AppError, ProviderFailed
from routers.answers import Failure

log = structlog.get_logger()
T = TypeVar("T")
ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class ClientGone(Exception):
    """Nobody listens any more."""


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do the work while its client waits for it; raise ClientGone when that leaves first."""
    here, left = asyncio.current_task(), False
    assert here is not None

    async def leave() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        here.cancel()

    leaving = asyncio.create_task(leave())
    try:
        return await work
    except asyncio.CancelledError:
        # Others may have had a reason to end it too, such as the end of the service.
        if left and not here.uncancel():
            raise ClientGone from None
        raise
    finally:
        leaving.cancel()


def gone() -> Response:
    """For the log alone, as nginx writes it."""
    return Response(status_code=499)


class Stream(StreamingResponse):
    """A stream whose source is closed whatever happens to it, also before it began."""

    def __init__(
        self,
        body: AsyncGenerator[bytes],
        ended: Callable[[], object],
        media_type: str = "text/event-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=UNBUFFERED | dict(headers or {}))
        self._source = body
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._source):
                await super().__call__(scope, receive, send)
        except ProviderFailed as error:
            # The status is sent: only a connection that breaks off says that not all is here.
            log.warning("reply_broke_off", **error.details)
        finally:
            self._ended()


def event(name: str, data: object) -> bytes:
    written = orjson.dumps(ANYTHING.dump_python(data, mode="json"))
    return b"event: %s\ndata: %s\n\n" % (name.encode(), written)


def error_event(error: AppError) -> bytes:
    failure = Failure(error=error.message, error_code=error.code, details=error.details)
    return event("error", failure)
