"""Anthropic's protocol under /v1: a client of theirs works by its base URL and a token of ours."""

from fastapi import APIRouter, Request, Response

from core.providers.anthropic import AnthropicFormat
from routers.deps import ProviderClient
from routers.inputs import ProviderKey
from routers.relay import ERRORS, TAKEN, RelayRoute, relay


class AnthropicRoute(RelayRoute):
    format = AnthropicFormat()


router = APIRouter(prefix="/v1", tags=["providers' protocols"], route_class=AnthropicRoute)


@router.post("/messages", responses=ERRORS, response_class=Response, openapi_extra=TAKEN)
async def messages(
    request: Request, caller: ProviderClient, x_provider_key: ProviderKey = None
) -> Response:
    """Anthropic's messages, with memories; errors come in Anthropic's shape.

    `X-Memory: on | off | read | write` says what becomes of memories. The reply's bytes are the
    provider's own; `X-Memory-Sources` and `X-Memory-Id` name the memories in it and of it.
    """
    return await relay(request, caller, AnthropicFormat, x_provider_key)
