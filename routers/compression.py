"""Answers in gzip: Starlette's, at the price that small answers are worth."""

import zlib
from functools import cached_property

from starlette.middleware.gzip import GZipResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEAST_BYTES = 1_000
# For a list of memories level 4 takes a third more time and level 9 thrice as much, for answers a
# hundredth and a twentieth shorter.
LEVEL = 3
# Zlib's own 15 and 8 clear a quarter of a megabyte, which takes longer than a short answer does;
# half of it costs a page's script 3 % of its size, and a list of memories nothing.
WINDOW_BITS, MEMORY_LEVEL = 14, 7
GZIP_FORMAT = 16


class _Responder(GZipResponder):
    @cached_property
    def compressor(self) -> "zlib._Compress":
        return zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_FORMAT + WINDOW_BITS, MEMORY_LEVEL)


class Compression:
    """For who takes gzip. An answer that says it is short passes, and nothing is made for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        onward = send

        async def compress(message: Message) -> None:
            nonlocal onward
            if message["type"] == "http.response.start" and not _is_short(message):
                responder = _Responder(self._app, LEAST_BYTES)
                responder.send = send
                onward = responder.send_with_compression
            await onward(message)

        await self._app(scope, receive, compress)


def _is_short(start: Message) -> bool:
    for name, value in start.get("headers", ()):
        if name == b"content-length":
            return int(value) < LEAST_BYTES
    return False
