"""Memory Layer: the app, and `python main.py`, which serves it or runs an operator's command."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from fastapi_swagger import patch_fastapi

from core.config import VERSION, Settings
from core.resources import Resources, open_resources
from routers import (
    account,
    admin,
    admin_session,
    answers,
    anthropic_api,
    capture_health,
    chat,
    conversations,
    edge,
    exports,
    health,
    imports,
    local_auth,
    mcp,
    memories,
    metrics,
    openai_api,
    pages,
    rag,
    saving,
    search,
    sync,
    timeline,
    tokens,
    trash,
    usage,
)
from routers.addresses import AddressLimits

# In the order in which they are looked through.
ROUTERS = (
    saving,
    search,
    rag,
    memories,
    trash,
    conversations,
    sync,
    timeline,
    imports,
    exports,
    chat,
    openai_api,
    anthropic_api,
    tokens,
    mcp,
    usage,
    capture_health,
    account,
    health,
    metrics,
    local_auth,
    admin,
    admin_session,
    pages,
)


class State(TypedDict):
    resources: Resources
    by_address: AddressLimits


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the app; nothing is opened and no setting is read before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_resources(settings or Settings()) as resources:
            yield {"resources": resources, "by_address": AddressLimits(resources.settings)}

    app = FastAPI(
        title="Memory Layer",
        description="Keeps a person's AI chats word for word and finds them again.",
        version=VERSION,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    answers.install(app)
    # FastAPI's own /docs loads its scripts from elsewhere; this one serves them itself.
    patch_fastapi(app, redirect_from_root_to_docs=False)
    # Flat, for FastAPI looks twice through a router that is included, and before its own, for each
    # route that is looked at in vain costs a request two thirds of a microsecond.
    app.router.routes[:0] = [route for module in ROUTERS for route in module.router.routes]
    app.add_middleware(edge.Edge)
    return app


app = create_app()

if __name__ == "__main__":
    from core.commands import run

    sys.exit(run("main:app"))
