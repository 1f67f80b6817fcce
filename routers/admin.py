"""What the panel reads and does; by the admin key or its session alone."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from core import admin_service, overview
from core.admin_service import Details, LimitsInUse, People, Plan, Tier
from core.erasure import Receipt
from core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from core.overview import Overview, System
from routers.answers import Answer, failures
from routers.deps import Admin
from routers.inputs import Number, ShortText
from storage.admin_access import Deed
from storage.job_runs import JobRun

router = APIRouter(
    prefix="/admin/api",
    tags=["admin"],
    responses=failures(InvalidInput, Unauthorized, Forbidden, TooManyRequests, Unavailable),
)
MOST_DEEDS = 50
_ZIP: dict[str, Any] = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
EXPORTED: dict[int | str, dict[str, Any]] = {200: {"content": _ZIP}}
MOST_PAGES = 10_000
Limit = Annotated[Number, Field(ge=0, le=1_000_000_000)]


class NewPlan(BaseModel):
    """What is null, or left out, is the service's default."""

    tier: Tier | None = None
    per_minute: Limit | None = None
    per_day: Limit | None = None


class Confirmation(BaseModel):
    """The user's e-mail address or id, typed by a person who means it."""

    typed: ShortText


class PlanChanged(BaseModel):
    """`mirrored` says whether the sign-in's `app_metadata.tier` was set; null where it has none."""

    mirrored: bool | None


class Record(BaseModel):
    deeds: list[Deed]
    next_before: int | None


class Done(BaseModel):
    done: Literal[True] = True


@router.get("/overview")
async def read_overview(
    admin: Admin, request: Request, hours: Literal["1", "24", "168"] = "24"
) -> Answer[Overview]:
    """Users, memories, and the traffic of all replicas; times are of the last hour."""
    timings = request.state.timings
    return Answer(data=await overview.overview(admin.resources, timings, int(hours)))


@router.get("/users")
async def find_users(
    admin: Admin,
    query: Annotated[ShortText | None, Query()] = None,
    page: Annotated[int, Query(ge=0, le=MOST_PAGES)] = 0,
) -> Answer[People]:
    """Find by a part of the e-mail address, or by the whole id; the newest first."""
    return Answer(data=await admin_service.find_people(admin.resources, query or "", page))


@router.get("/users/{user_id}", responses=failures(NotFound))
async def read_user(admin: Admin, user_id: UUID) -> Answer[Details]:
    """One user with 30 days of use, and what operators did about this user."""
    return Answer(data=await admin_service.details(admin.resources, user_id))


@router.put("/users/{user_id}/plan", responses=failures(NotFound))
async def change_plan(admin: Admin, user_id: UUID, plan: NewPlan) -> Answer[PlanChanged]:
    """Give a tier and limits of one's own; it holds on every replica within 5 seconds."""
    new = Plan(plan.tier, plan.per_minute, plan.per_day)
    mirrored = await admin_service.change_plan(admin.resources, admin.operator, user_id, new)
    return Answer(data=PlanChanged(mirrored=mirrored))


@router.get(
    "/users/{user_id}/export",
    responses=EXPORTED | failures(NotFound, Conflict),
    response_class=StreamingResponse,
)
async def export_user(admin: Admin, user_id: UUID) -> StreamingResponse:
    """All memories of this user, as `GET /export/full` gives them to their owner; on record."""
    parts = await admin_service.export(admin.resources, admin.operator, user_id)
    headers = {
        "Content-Disposition": f'attachment; filename="memories-of-{user_id}.zip"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(parts, headers=headers, media_type="application/zip")


@router.post("/users/{user_id}/erase", responses=failures(NotFound))
async def erase_user(admin: Admin, user_id: UUID, confirmation: Confirmation) -> Answer[Receipt]:
    """Erase everything of this user, on every replica, as `DELETE /account` does."""
    typed = confirmation.typed
    receipt = await admin_service.erase(admin.resources, admin.operator, user_id, typed)
    return Answer(data=receipt)


@router.post("/users/{user_id}/rebuild-cache", responses=failures(NotFound))
async def rebuild_cache(admin: Admin, user_id: UUID) -> Answer[Done]:
    """Make every replica read this user's search cache anew from the database."""
    await admin_service.rebuild_cache(admin.resources, admin.operator, user_id)
    return Answer(data=Done())


@router.get("/limits")
async def read_limits(admin: Admin) -> Answer[LimitsInUse]:
    """The tiers as they stand, who has limits of their own, and who reaches them most."""
    return Answer(data=await admin_service.limits(admin.resources))


@router.get("/system")
async def read_system(admin: Admin, request: Request) -> Answer[System]:
    """Versions, settings without secrets, and the state of this process and its parts."""
    app, timings = request.app, request.state.timings
    return Answer(data=await overview.system(admin.resources, timings, app.version))


@router.post("/jobs/{name}/run", responses=failures(NotFound))
async def run_job(admin: Admin, name: ShortText) -> Answer[JobRun]:
    """Run a background job now, purging tombstones for one; running one twice does no harm."""
    return Answer(data=await admin_service.run_job(admin.resources, admin.operator, name))


@router.post("/missing-users/{user_id}/erase", responses=failures(NotFound, Conflict))
async def erase_missing_user(
    admin: Admin, user_id: UUID, confirmation: Confirmation
) -> Answer[Receipt]:
    """Erase a user who was deleted at Supabase, as the daily job has reported."""
    typed = confirmation.typed
    receipt = await admin_service.erase_missing(admin.resources, admin.operator, user_id, typed)
    return Answer(data=receipt)


@router.get("/audit")
async def read_audit(
    admin: Admin,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = MOST_DEEDS,
) -> Answer[Record]:
    """Who did what when, the newest first."""
    deeds = await admin_service.record(admin.resources, before, limit)
    more = deeds[-1].id if len(deeds) == limit else None
    return Answer(data=Record(deeds=deeds, next_before=more))
