"""POST /save-prompt and /save-response: what the extension sends as it happens."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from core.capture import Capture
from core.errors import Conflict, InvalidInput, TooLarge, Unauthorized, Unavailable
from routers.answers import METERED, Answer, failures
from routers.deps import Writer
from routers.inputs import LongText, MaybeText, Metadata, OrUnknown, Prompt, Provider, Time, Url
from storage.ids import uuid7

router = APIRouter(
    tags=["saving"],
    responses=failures(InvalidInput, Unauthorized, Conflict, TooLarge, Unavailable, *METERED),
)


class Facts(BaseModel):
    """What may be known beside the text; fields that we do not know are ignored."""

    _texts: ClassVar = frozenset({"id", "prompt", "memory_id", "response"})

    model: MaybeText = None
    conversation_id: MaybeText = None
    conversation_title: MaybeText = None
    url: Annotated[Url | None, OrUnknown] = None
    source: MaybeText = None
    occurred_at: Time | None = None
    metadata: Metadata = Field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._texts}


class NewPrompt(Facts):
    id: UUID | None = Field(None, description="Made by the client; a retry sends it again.")
    prompt: Prompt
    provider: Provider


class NewResponse(Facts):
    memory_id: UUID = Field(description="The prompt's id; the answer may arrive first.")
    response: LongText
    status: Literal["complete", "partial"] = "complete"
    provider: Provider | None = None


class SavedMemory(BaseModel):
    memory_id: UUID
    created_at: datetime


@router.post("/save-prompt", status_code=201, responses={200: {"model": Answer[SavedMemory]}})
async def save_prompt(body: NewPrompt, caller: Writer, response: Response) -> Answer[SavedMemory]:
    """Save a prompt the moment it was sent. 201 when it is new, 200 when it was here already."""
    capture = Capture(caller.user.id, body.id or uuid7(), "prompt", body.prompt, **body.facts())
    saved = await caller.resources.saves.save(capture)
    response.status_code = 201 if saved.created else 200
    return Answer(data=SavedMemory(memory_id=saved.memory_id, created_at=saved.created_at))


@router.post("/save-response")
async def save_response(body: NewResponse, caller: Writer) -> Answer[SavedMemory]:
    """Save the answer to a prompt: `complete`, or `partial` when it was stopped."""
    capture = Capture(caller.user.id, body.memory_id, "response", body.response, **body.facts())
    saved = await caller.resources.saves.save(capture)
    return Answer(data=SavedMemory(memory_id=saved.memory_id, created_at=saved.created_at))
