"""OpenAI's protocol under /v1: a client of theirs works by its base URL and a token of ours."""

from typing import Any

from fastapi import APIRouter, Request, Response

from core.providers.anthropic import AnthropicFormat
from core.providers.openai import OpenAIFormat
from routers.deps import ProviderClient
from routers.inputs import ProviderKey
from routers.relay import ERRORS, TAKEN, RelayRoute, relay


class OpenAIRoute(RelayRoute):
    format = OpenAIFormat()


router = APIRouter(prefix="/v1", tags=["providers' protocols"], route_class=OpenAIRoute)


@router.post("/chat/completions", responses=ERRORS, response_class=Response, openapi_extra=TAKEN)
async def chat_completions(
    request: Request, caller: ProviderClient, x_provider_key: ProviderKey = None
) -> Response:
    """OpenAI's chat completions, with memories; errors come in OpenAI's shape.

    `X-Memory: on | off | read | write` says what becomes of memories. The reply's bytes are the
    provider's own; `X-Memory-Sources` and `X-Memory-Id` name the memories in it and of it.
    """
    return await relay(request, caller, OpenAIFormat, x_provider_key)


@router.get("/models", responses=ERRORS)
async def list_models(
    request: Request, caller: ProviderClient, x_provider_key: ProviderKey = None
) -> dict[str, Any]:
    """The models that can be asked for, in OpenAI's shape, or Anthropic's for its clients."""
    providers = caller.resources.providers
    if "anthropic-version" in request.headers:
        listed = await providers.models(AnthropicFormat, x_provider_key)
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
        return {"data": listed, "has_more": False, "first_id": None, "last_id": None} | ends
    return {"object": "list", "data": await providers.models(OpenAIFormat, x_provider_key)}
