"""POST /rag/query: an answer from one's own memories, with its sources."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from core import rag
from core.errors import AppError
from core.rag import Answered, Answering
from routers.answers import ASKING, STREAMED, Answer, failures
from routers.deps import Chatter, demand
from routers.inputs import (
    Number,
    Provider,
    ProviderKey,
    Question,
    ShortText,
    Time,
    Truth,
    make_filters,
)
from routers.streaming import ClientGone, Stream, error_event, event, gone, unless_gone

router = APIRouter(tags=["answers"], responses=failures(*ASKING))


class Asked(BaseModel):
    question: Question
    limit: Number = Field(8, ge=1, le=20, description="How many memories at most.")
    model: ShortText | None = Field(None, description="As `name` or `provider/name`.")
    stream: Truth = False
    provider: Provider | None = Field(None, description="Only memories of chats with this one.")
    conversation_id: ShortText | None = None
    after: Time | None = None
    before: Time | None = None


@router.post("/rag/query", response_model=Answer[Answered], responses=STREAMED)
async def ask_memories(
    body: Asked, caller: Chatter, request: Request, x_provider_key: ProviderKey = None
) -> Answer[Answered] | Response:
    """Answer a question from the caller's memories; every claim names its source as `[n]`.

    Without a model provider `answer` is null, `details.error_code` is NO_CHAT_PROVIDER, and the
    sources are there all the same. `stream`: the events `sources`, `text`…, and `done` or `error`.
    """
    demand(caller, "read")
    question = rag.Question(
        caller.user.id,
        body.question,
        body.limit,
        make_filters(body.provider, body.conversation_id, body.after, body.before),
        body.model,
        body.stream,
        x_provider_key,
    )
    try:
        if not body.stream:
            return Answer(data=await unless_gone(request, rag.answer(caller.resources, question)))
        answering = await unless_gone(request, rag.ask(caller.resources, question))
    except ClientGone:
        return gone()
    return Stream(_events(answering), answering.close)


async def _events(answering: Answering) -> AsyncGenerator[bytes]:
    yield event("sources", {"sources": answering.answered.sources})
    try:
        async for text in answering.texts():
            yield event("text", {"text": text})
    except AppError as error:
        yield error_event(error)
    else:
        yield event("done", replace(answering.answered, sources=[]))
