"""A person's past by time: what was talked of when, and how much."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from core.errors import InvalidInput, Unauthorized, Unavailable
from routers.answers import METERED, Answer, failures
from routers.deps import Reader
from routers.inputs import Provider, Time, cursor_of, memory_cursor
from routers.memories import Limit
from storage import timeline
from storage.database import acting_as
from storage.timeline import Entry, UnknownZone

router = APIRouter(
    tags=["timeline"], responses=failures(InvalidInput, Unauthorized, Unavailable, *METERED)
)
Zone = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")]


class Timeline(BaseModel):
    entries: list[Entry]
    next_cursor: str | None


class Assistant(BaseModel):
    provider: str
    memories: int


class Day(BaseModel):
    day: date
    memories: dict[str, int] = Field(description="By assistant.")


class Activity(BaseModel):
    assistants: list[Assistant]
    days: list[Day]


@router.get("/timeline")
async def read_timeline(
    caller: Reader,
    limit: Limit = 20,
    cursor: str | None = None,
    provider: Annotated[Provider | None, Query()] = None,
    before: Annotated[Time | None, Query()] = None,
) -> Answer[Timeline]:
    """List conversations, and memories that belong to none, by their last memory, newest first.

    With `before`, as if nothing had been said from then on.
    """
    start = memory_cursor(cursor)
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        found = await timeline.page(conn, caller.user.id, provider, before, start, limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    last = cursor_of(shown[-1].last_at, shown[-1].memory_id) if more else None
    return Answer(data=Timeline(entries=shown, next_cursor=last))


@router.get("/activity")
async def read_activity(caller: Reader, zone: Annotated[Zone, Query()] = "UTC") -> Answer[Activity]:
    """Count memories by assistant, and by day of the last 53 weeks in a time zone; a day without
    any is left out."""
    try:
        found = await caller.resources.activities.of(caller.user.id, zone)
    except UnknownZone:
        fields = [{"path": "zone", "message": "is no time zone that this server knows"}]
        raise InvalidInput("The time zone is not known.", fields=fields) from None
    assistants = [Assistant(provider=name, memories=n) for name, n in found.assistants.items()]
    days = [Day(day=day, memories=memories) for day, memories in found.days.items()]
    return Answer(data=Activity(assistants=assistants, days=days))
