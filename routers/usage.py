"""GET /usage: what is left of the caller's tier, and what was used before."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from core.errors import Unauthorized, Unavailable
from core.rate_limiter import Window
from routers.answers import Answer, failures
from routers.deps import FreeCaller
from storage import usage
from storage.database import acting_as

router = APIRouter(tags=["usage"], responses=failures(Unauthorized, Unavailable))
DAYS = 30


class Span(BaseModel):
    limit: int
    used: int
    remaining: int
    reset_at: datetime


class DayOfUse(BaseModel):
    day: date
    requests: int


class Usage(BaseModel):
    user_id: UUID
    tier: str
    day: Span
    minute: Span
    days: list[DayOfUse]


def _span(window: Window) -> Span:
    return Span.model_validate(window._asdict())


@router.get("/usage")
async def read_usage(caller: FreeCaller) -> Answer[Usage]:
    """What is used and left today and in the last minute, and each of the last 30 days (UTC).

    Asking costs nothing. The days before today may lack the last seconds before a crash.
    """
    now = await caller.resources.limiter.standing(caller.user.id)
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in reversed(range(DAYS))]
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        used = await usage.by_day(conn, caller.user.id, days[0]) | {today: now.day.used}
    listed = [DayOfUse(day=day, requests=used.get(day, 0)) for day in days]
    return Answer(
        data=Usage(
            user_id=caller.user.id,
            tier=now.tier,
            day=_span(now.day),
            minute=_span(now.minute),
            days=listed,
        )
    )
