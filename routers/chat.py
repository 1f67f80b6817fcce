"""POST /chat: a chat with a model that remembers."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from core import chat_service
from core.chat_memory import Place
from core.chat_service import Chat, Wish
from core.errors import AppError, TooLarge
from core.injection import Source
from core.resources import Resources
from routers.answers import ASKING, STREAMED, Answer, failures
from routers.deps import Chatter, SignedIn, demand
from routers.inputs import LongText, Number, Provider, ProviderKey, ShortText, Truth
from routers.streaming import ClientGone, Stream, error_event, event, gone, unless_gone

MOST_TURNS = 1_000

router = APIRouter(tags=["answers"], responses=failures(*ASKING, TooLarge))


class Turn(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: LongText


class NewChat(BaseModel):
    messages: list[Turn] = Field(min_length=1, max_length=MOST_TURNS)
    provider: Provider | None = Field(None, description="One that this server has set up.")
    model: ShortText | None = None
    use_memory: Truth = Field(True, description="Let the model draw on memories.")
    save: Truth = Field(True, description="Keep the last turn and its reply as a memory.")
    stream: Truth = False
    max_tokens: Number | None = Field(None, ge=1, le=1_000_000)
    conversation_id: ShortText | None = None
    conversation_title: ShortText | None = None

    @field_validator("messages")
    @classmethod
    def _ends_with_the_user(cls, messages: list[Turn]) -> list[Turn]:
        if messages[-1].role != "user" or not messages[-1].content.strip():
            raise PydanticCustomError("turn", "must end with what the user says")
        return messages


@dataclass(frozen=True, slots=True)
class Reply:
    """`sources` are the memories that the model was shown. `memory_id` is null where nothing was
    to be saved, and `reply_is_saved` false where that failed."""

    reply: str
    provider: str
    model: str
    sources: list[Source]
    memory_id: UUID | None
    reply_is_saved: bool
    used_tokens: int


@router.post("/chat", response_model=Answer[Reply], responses=STREAMED)
async def chat(
    body: NewChat, caller: Chatter, request: Request, x_provider_key: ProviderKey = None
) -> Answer[Reply] | Response:
    """Chat with a model that may draw on the caller's memories; the turn becomes one itself.

    What the person said is saved also when the provider fails. `stream`: the events `sources`,
    `text`…, and `done` or `error`.
    """
    wish = _wish(body, caller, x_provider_key)
    try:
        if not body.stream:
            work = _whole(caller.resources, wish)
            return Answer(data=await unless_gone(request, work))
        started = await unless_gone(request, chat_service.start(caller.resources, wish))
    except ClientGone:
        return gone()
    return Stream(_events(started, wish.place), started.close)


def _wish(body: NewChat, caller: SignedIn, own_key: str | None) -> Wish:
    if body.use_memory:
        demand(caller, "read")
    if body.save:
        demand(caller, "write")
    provider, model = caller.resources.providers.choose(
        body.provider, body.model, own_key=own_key is not None
    )
    messages = [turn.model_dump() for turn in body.messages]
    asked = provider.format.request(model, messages, body.max_tokens)
    if body.stream:
        asked = provider.format.streamed(asked)
    place = Place(provider.name, model, "chat", body.conversation_id, body.conversation_title)
    return Wish(caller.user.id, provider, asked, place, body.use_memory, body.save, own_key)


async def _whole(res: Resources, wish: Wish) -> Reply:
    started = await chat_service.start(res, wish)
    try:
        texts = [text async for text in started.texts()]
    finally:
        started.close()
    return _reply("".join(texts), started, wish.place)


async def _events(started: Chat, place: Place) -> AsyncGenerator[bytes]:
    yield event("sources", {"sources": started.sources})
    texts: list[str] = []
    try:
        async for text in started.texts():
            texts.append(text)
            yield event("text", {"text": text})
    except AppError as error:
        yield error_event(error)
    else:
        yield event("done", _reply("".join(texts), started, place))


def _reply(text: str, started: Chat, place: Place) -> Reply:
    memory = started.memory
    return Reply(
        text,
        place.provider,
        started.call.said.model or place.model,
        started.sources,
        memory.id if memory else None,
        bool(memory and memory.reply_is_saved),
        started.call.used_tokens,
    )
