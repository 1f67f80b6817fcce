"""GET /usage: what is left of the caller's tier, and what was used before."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

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
    tokens: int = Field(description="Of the operator's keys for model providers.")


class Usage(BaseModel):
    user_id: UUID
    tier: str
    day: Span
    minute: Span
    tokens: Span | None = Field(description="Null where no budget of tokens holds.")
    days: list[DayOfUse]


def _day(use: usage.Use) -> DayOfUse:
    return DayOfUse(day=use.day, requests=use.requests, tokens=use.tokens)


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
        used = await usage.by_day(conn, caller.user.id, days[0])
    used[today] = usage.Use(caller.user.id, today, now.day.used, tokens=now.tokens_today)
    listed = [_day(used.get(day) or usage.Use(caller.user.id, day)) for day in days]
    return Answer(
        data=Usage(
            user_id=caller.user.id,
            tier=now.tier,
            day=_span(now.day),
            minute=_span(now.minute),
            tokens=_span(now.tokens) if now.tokens else None,
            days=listed,
        )
    )
