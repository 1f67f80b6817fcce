"""POST /capture-health: how well somebody's extension reads the sites, without any content."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic_core import PydanticCustomError

from core.errors import InvalidInput, MissingScope, Unauthorized, Unavailable
from routers.answers import Answer, failures
from routers.deps import FreeWriter
from routers.inputs import Number
from storage import capture_health
from storage.capture_health import KEPT_DAYS, SiteDay
from storage.database import acting_as

router = APIRouter(
    tags=["operation"],
    responses=failures(InvalidInput, Unauthorized, MissingScope, Unavailable),
)

Count = Annotated[Number, Field(ge=0, le=1_000_000)]


def _recent(day: date) -> date:
    """Clocks and time zones differ by a day; what is long past is kept nowhere."""
    today = datetime.now(UTC).date()
    if not today - timedelta(days=KEPT_DAYS) <= day <= today + timedelta(days=1):
        raise PydanticCustomError("day", "must be one of the last 30 days")
    return day


class Counters(BaseModel):
    day: Annotated[date, AfterValidator(_recent)]
    site: Literal["chatgpt", "claude", "gemini", "grok", "xgrok"]
    network: Count = Field(0, description="Turns read from the site's network.")
    dom: Count = Field(0, description="Turns read from the page, as the network could not be.")
    missed: Count = Field(0, description="Prompts that the network did not show.")
    partial: Count = 0
    empty: Count = Field(0, description="Streams that ended without any text.")
    unreadable: Count = Field(0, description="Requests that no adapter understood.")
    unknown_streams: Count = Field(0, description="Streams at addresses that no adapter knows.")


class Health(BaseModel):
    installation: UUID = Field(description="Made by the extension; tells two browsers apart.")
    version: Annotated[str, StringConstraints(max_length=20, pattern=r"^[\d.]+$")]
    days: Annotated[list[Counters], Field(max_length=40)]


@router.post("/capture-health")
async def put_capture_health(body: Health, caller: FreeWriter) -> Answer[None]:
    """Keep an installation's totals by site and day. Free; sending them again changes nothing."""
    rows = {(one.day, one.site): SiteDay(**one.model_dump()) for one in body.days}
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        user_id = caller.user.id
        await capture_health.put(conn, user_id, body.installation, body.version, [*rows.values()])
    return Answer(data=None)
