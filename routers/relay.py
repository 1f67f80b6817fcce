"""What the drop-in routes share: memory by header, the provider's bytes, errors in its shape."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, ClassVar

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Scope

from core import chat_service
from core.chat_memory import Place
from core.chat_service import Chat, Wish
from core.errors import AppError, InvalidInput, ProviderFailed, Unavailable
from core.providers.anthropic import AnthropicFormat
from core.providers.format import Format
from core.providers.openai import OpenAIFormat
from routers.answers import ASKING, BY_STATUS, failure_response, failures, headers_of
from routers.deps import SignedIn, demand
from routers.inputs import json_body
from routers.streaming import ClientGone, Stream, gone, unless_gone
from storage.database import DATABASE_AWAY

MEMORY = {"on": (True, True), "off": (False, False), "read": (True, False), "write": (False, True)}
# What a client says to the provider beside the body.
PASSED_ON = ("anthropic-version", "anthropic-beta", "openai-beta")
MOST_HEADER = 500  # characters
SHAPES: dict[str, Format] = {
    "/v1/chat/completions": OpenAIFormat(),
    "/v1/models": OpenAIFormat(),
    "/v1/messages": AnthropicFormat(),
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Refused(BaseModel):
    """A failure in the shape of OpenAI, or of Anthropic, which names its `type` as well."""

    error: dict[str, Any]
    type: str | None = None


# The rest of the body is the provider's to judge.
TAKEN = json_body(
    {
        "type": "object",
        "required": ["messages"],
        "properties": {
            "messages": {"type": "array", "items": {}},
            "model": {"description": "As `name` or `provider/name`."},
            "stream": {"description": "true for server-sent events."},
        },
    }
)
ERRORS = {status: said | {"model": Refused} for status, said in failures(*ASKING).items()}


class RelayRoute(APIRoute):
    """Answers errors as the provider would, so that its client understands them."""

    format: ClassVar[Format]

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientGone:
                return gone()
            except AppError as error:
                return refusal(request, self.format, error)
            except RequestValidationError as error:
                names = ", ".join(str(item["loc"][-1]) for item in error.errors())
                return refusal(
                    request, self.format, InvalidInput(f"The request is not valid: {names}.")
                )
            except HTTPException as error:
                return refusal(request, self.format, BY_STATUS.get(error.status_code, AppError)())
            except DATABASE_AWAY:
                return refusal(request, self.format, Unavailable())

        return answer


def refusal(request: Request, format: Format, error: AppError) -> Response:
    request.state.seen.code = error.code
    headers = headers_of(error)
    if isinstance(error, ProviderFailed) and error.told:
        status, body = error.told
        return Response(body, status, headers, "application/json")
    written = orjson.dumps(format.failure(error.status, error.message, error.code))
    return Response(written, error.status, headers, "application/json")


def refusal_at(scope: Scope, error: AppError) -> Response:
    """Refuse in the shape of whoever's protocol the address speaks, before any route is asked."""
    shape = SHAPES.get(scope["path"])
    return refusal(Request(scope), shape, error) if shape else failure_response(error)


async def relay(
    request: Request, caller: SignedIn, format: type[Format], own_key: str | None
) -> Response:
    """Pass a request on, with memories where they are wanted, and the reply back."""
    body = await _body_of(request)
    reads, writes = _wanted(request, caller)
    model = body.get("model")
    provider, model = caller.resources.providers.choose(
        None, model if isinstance(model, str) else None, own_key=own_key is not None, speaks=format
    )
    headers = {
        name: value
        for name in PASSED_ON
        if (value := request.headers.get(name, "")) and value.isascii() and len(value) < MOST_HEADER
    }
    conversation = request.headers.get("x-conversation-id", "")[:MOST_HEADER] or None
    wish = Wish(
        caller.user.id,
        provider,
        body | {"model": model},
        Place(provider.name, model, "proxy", conversation),
        reads,
        writes,
        own_key,
        headers,
    )
    chat = await unless_gone(request, chat_service.start(caller.resources, wish))
    if body.get("stream") is not True:
        # It is here as a whole, so it can be a memory before the client goes on.
        whole = b"".join([chunk async for chunk in chat.relayed()])
        await chat.saved()
        return Response(whole, 200, _said(chat), chat.call.content_type)
    return Stream(_bytes_of(chat, provider.format), chat.close, chat.call.content_type, _said(chat))


async def _body_of(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise InvalidInput("The body is not valid JSON.") from None
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise InvalidInput("The body must be a JSON object with `messages`.")
    return body


def _wanted(request: Request, caller: SignedIn) -> tuple[bool, bool]:
    """Whether memories are read and written: as the header says, or else as the token may."""
    header = request.headers.get("x-memory")
    if header is None:
        return "read" in caller.user.scopes, "write" in caller.user.scopes
    if header.lower() not in MEMORY:
        raise InvalidInput("X-Memory must be on, off, read or write.")
    reads, writes = MEMORY[header.lower()]
    if reads:
        demand(caller, "read")
    if writes:
        demand(caller, "write")
    return reads, writes


def _said(chat: Chat) -> dict[str, str]:
    headers = {"X-Memory-Sources": ",".join(str(source.memory_id) for source in chat.sources)}
    return headers | ({"X-Memory-Id": str(chat.memory.id)} if chat.memory else {})


async def _bytes_of(chat: Chat, format: Format) -> AsyncGenerator[bytes]:
    """The provider's bytes; where they end too early an error of its kind, if it can be read."""
    last = b""
    try:
        async for chunk in chat.relayed():
            last = chunk
            yield chunk
    except ProviderFailed as error:
        if not last.endswith((b"\n\n", b"\r\n\r\n")):
            raise
        yield format.failure_event(error.message, error.code)
