"""Operation: is the process alive, can it serve, and how are its parts."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from core.errors import Unavailable
from core.health import Health, examine
from routers.answers import Answer, failures
from routers.deps import AppResources
from storage.migrate import is_ready

router = APIRouter(tags=["operation"])


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def process_is_alive() -> Answer[Alive]:
    return Answer(data=Alive())


@router.get("/readyz", responses=failures(Unavailable))
async def can_serve(resources: AppResources) -> Answer[Alive]:
    """503 until the database answers and holds the newest schema."""
    if not await is_ready(resources.db):
        raise Unavailable("The database's schema is not the newest.")
    return Answer(data=Alive())


@router.get("/health")
async def parts(request: Request, resources: AppResources) -> Answer[Health]:
    """Every part with its state; the answer is 200 also when one is degraded."""
    return Answer(data=await examine(resources, request.state.timings))
