"""POST /mcp: the Model Context Protocol, over streamable HTTP without sessions."""

import asyncio
import importlib
import sys
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from core.errors import InvalidInput, TooLarge, Unauthorized, Unavailable
from routers.answers import failures
from routers.deps import FreeCaller, SignedIn
from routers.inputs import json_body
from routers.streaming import ClientGone, gone, unless_gone

SERVER = "routers.mcp_server"
router = APIRouter(tags=["mcp"], responses=failures(InvalidInput, Unauthorized, Unavailable))
_MESSAGE = json_body(
    {
        "type": "object",
        "required": ["jsonrpc", "method"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"description": "A text or an integer; without it, no answer."},
            "method": {"type": "string"},
            "params": {"type": ["object", "null"]},
        },
    }
)
_SPOKEN: dict[int | str, dict[str, Any]] = {
    200: {"description": "The protocol's answer.", "content": {"application/json": {}}},
    202: {"description": "A notification was taken in."},
    406: {"description": "The client does not accept JSON."},
}


@router.post(
    "/mcp",
    response_class=Response,
    responses=failures(TooLarge) | _SPOKEN,
    openapi_extra=_MESSAGE,
)
async def serve_mcp(request: Request, caller: FreeCaller) -> Response:
    """One JSON-RPC message of an MCP client, answered as JSON.

    There are no sessions, so that any replica can answer. What a tool costs is spent by its call;
    to connect and to list the tools is free.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise InvalidInput("Send one JSON-RPC message with Content-Type: application/json.")
    try:
        message = await request.body()
    except ClientDisconnect:
        raise InvalidInput("The request ended early.") from None
    (await _server()).check(message)
    return _Served(caller, message)


async def _server() -> Any:
    """Half a second and 20 MB, which only those pay who use it; and not on the event loop."""
    loaded = sys.modules.get(SERVER)
    # While another request loads it, it is there and has not come to its end.
    if hasattr(loaded, "serve"):
        return loaded
    return await asyncio.to_thread(importlib.import_module, SERVER)


class _Served(Response):
    """Leaves the answer to the tools' server, which writes it in its protocol's shape."""

    def __init__(self, caller: SignedIn, body: bytes) -> None:
        super().__init__()
        self._caller = caller
        self._message = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = await _server()
        unread: list[Message] = [
            {"type": "http.request", "body": self._message, "more_body": False}
        ]

        async def read_again() -> Message:
            return unread.pop() if unread else await receive()

        served = server.serve(self._caller, scope, read_again, send)
        try:
            await unless_gone(Request(scope, receive), served)
        except ClientGone:
            await gone()(scope, receive, send)
