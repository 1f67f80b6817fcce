"""The tools of /mcp: each a few lines over what the routes call; its docstring is for the model."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from core import memories, rag
from core.capture import Capture
from core.hits import Hit
from core.injection import seen
from routers import conversations
from routers.conversations import Conversations
from routers.deps import SignedIn
from routers.inputs import (
    LongText,
    Prompt,
    Provider,
    Question,
    ShortText,
    Time,
    make_filters,
    storable,
)
from storage.ids import uuid7

EXCERPT = 600  # characters of each side of a memory that was found
PART = 20_000  # characters of each side that one call reads: about 10,000 tokens in all


class SearchMemories(BaseModel):
    query: Annotated[str, StringConstraints(max_length=20_000), AfterValidator(storable)] = Field(
        description="A question or the words to look for, in any language."
    )
    limit: int = Field(8, ge=1, le=20, description="How many memories at most.")
    provider: Provider | None = Field(
        None, description="Only chats with this assistant, as chatgpt, claude, gemini or grok."
    )
    conversation_id: ShortText | None = Field(None, description="Only this conversation.")
    after: Time | None = Field(None, description="Only from this time on (ISO 8601).")
    before: Time | None = Field(None, description="Only before this time (ISO 8601).")


@dataclass(frozen=True, slots=True)
class FoundMemory:
    """`relevant` tells an answer from what is merely the nearest; `newer` is the one that answers
    the same and was said later; `duplicates` say nearly the same. Long texts end with `…`."""

    memory_id: UUID
    relevant: bool
    occurred_at: datetime
    provider: str
    conversation_id: str | None
    conversation_title: str | None
    snippet: str
    prompt: str | None
    response: str | None
    newer: UUID | None
    duplicates: list[UUID]


@dataclass(frozen=True, slots=True)
class FoundMemories:
    """The best first. `semantic` is false while only words can be compared."""

    memories: list[FoundMemory]
    semantic: bool


async def search_memories(caller: SignedIn, asked: SearchMemories) -> FoundMemories:
    """Find what the person and their AI assistants wrote before, by meaning and by words.

    Returns excerpts, the best first, each with its date. Use those marked relevant; when none is,
    the memories hold no answer. get_memory reads one in full."""
    filters = make_filters(asked.provider, asked.conversation_id, asked.after, asked.before)
    recall = await caller.resources.retrieval.recall(
        caller.user.id, asked.query, asked.limit, filters
    )
    return FoundMemories([_found(hit) for hit in recall.hits], recall.semantic)


def _found(hit: Hit) -> FoundMemory:
    memory = hit.memory
    return FoundMemory(
        memory.id,
        hit.relevant,
        memory.occurred_at,
        memory.provider,
        memory.conversation_id,
        _excerpt(memory.conversation_title),
        seen("".join(segment.text for segment in hit.snippet)),
        _excerpt(memory.prompt),
        _excerpt(memory.response),
        hit.newer,
        hit.duplicates,
    )


def _excerpt(text: str | None) -> str | None:
    return text and seen(text[:EXCERPT]) + ("…" if len(text) > EXCERPT else "")


class GetMemory(BaseModel):
    memory_id: UUID = Field(description="As search_memories and save_memory return it.")
    start: int = Field(0, ge=0, description="Where in long texts to begin: next_start of before.")


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """`next_start` leads on where a text is longer, and is null at the end."""

    memory_id: UUID
    occurred_at: datetime
    provider: str
    model: str | None
    conversation_id: str | None
    conversation_title: str | None
    url: str | None
    edited: bool
    prompt: str | None
    response: str | None
    next_start: int | None


async def get_memory(caller: SignedIn, asked: GetMemory) -> MemoryPart:
    """Read one memory word for word: what the person wrote and what the assistant answered.

    Long texts come in parts of 20,000 characters. Characters that nobody sees are left out."""
    memory = await memories.read(caller.resources.db, caller.user.id, asked.memory_id)
    prompt, response = memory.prompt or "", memory.response or ""
    end = asked.start + PART
    return MemoryPart(
        memory.id,
        memory.occurred_at,
        memory.provider,
        memory.model,
        memory.conversation_id,
        _excerpt(memory.conversation_title),
        memory.url,
        memory.edited,
        memory.prompt and seen(prompt[asked.start : end]),
        memory.response and seen(response[asked.start : end]),
        end if end < max(len(prompt), len(response)) else None,
    )


class ListConversations(BaseModel):
    limit: int = Field(20, ge=1, le=50)
    cursor: str | None = Field(None, max_length=5_000, description="next_cursor of before.")
    provider: Provider | None = Field(None, description="Only chats with this assistant.")


async def list_conversations(caller: SignedIn, asked: ListConversations) -> Conversations:
    """List the person's chats with AI assistants, the last used first.

    To look into one, give its id to search_memories as conversation_id."""
    answer = await conversations.list_conversations(
        caller, asked.limit, asked.cursor, asked.provider
    )
    listed = [replace(chat, title=_excerpt(chat.title)) for chat in answer.data.conversations]
    return Conversations(conversations=listed, next_cursor=answer.data.next_cursor)


class SaveMemory(BaseModel):
    prompt: Prompt = Field(description="What the person said or wants kept, word for word.")
    response: LongText | None = Field(None, description="What was answered, word for word.")
    provider: Provider = Field("mcp", description="Which assistant this is, as claude or chatgpt.")
    model: ShortText | None = None
    conversation_id: ShortText | None = Field(
        None, description="The same for all that belongs to one chat."
    )
    conversation_title: ShortText | None = None
    memory_id: UUID | None = Field(None, description="A UUID of your own: saves only once.")


@dataclass(frozen=True, slots=True)
class Saved:
    """`created` is false for what was saved before under the same id."""

    memory_id: UUID
    created: bool


async def save_memory(caller: SignedIn, asked: SaveMemory) -> Saved:
    """Keep something for good, so that every assistant of the person can find it later.

    Save what the person asks to have remembered, in their words. It is searchable at once."""
    memory_id = asked.memory_id or uuid7()
    names = {"provider", "model", "conversation_id", "conversation_title"}
    facts = asked.model_dump(include=names) | {"source": "mcp"}
    prompt = Capture(caller.user.id, memory_id, "prompt", asked.prompt, **facts)
    saved = await caller.resources.saves.save(prompt)
    if asked.response is not None:
        response = Capture(
            caller.user.id, memory_id, "response", asked.response, "complete", **facts
        )
        await caller.resources.saves.save(response)
    return Saved(memory_id, saved.created)


class AskMemory(BaseModel):
    question: Question = Field(description="The question, in any language.")
    limit: int = Field(8, ge=1, le=20, description="How many memories at most to draw on.")
    provider: Provider | None = Field(None, description="Only chats with this assistant.")
    conversation_id: ShortText | None = Field(None, description="Only this conversation.")
    after: Time | None = Field(None, description="Only from this time on (ISO 8601).")
    before: Time | None = Field(None, description="Only before this time (ISO 8601).")


async def ask_memory(caller: SignedIn, asked: AskMemory) -> rag.Answered:
    """Have a question answered from the person's memories alone, by a model of the server's.

    The answer names its sources as [n]. To reason about memories yourself, use search_memories."""
    filters = make_filters(asked.provider, asked.conversation_id, asked.after, asked.before)
    question = rag.Question(caller.user.id, asked.question, asked.limit, filters)
    return await rag.answer(caller.resources, question)
