"""A person's chats, as the sites name them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from core.errors import InvalidInput, NotFound, Unauthorized, Unavailable
from routers.answers import METERED, Answer, failures
from routers.deps import Reader
from routers.inputs import Provider, ShortText, Time, cursor_of, memory_cursor, parts_of
from routers.memories import Limit, Page, make_page
from storage import conversations, memory_store
from storage.conversations import Conversation
from storage.database import acting_as
from storage.memory_store import Filters

router = APIRouter(
    prefix="/conversations",
    tags=["conversations"],
    responses=failures(InvalidInput, Unauthorized, Unavailable, *METERED),
)


class Conversations(BaseModel):
    conversations: list[Conversation]
    next_cursor: str | None


@router.get("")
async def list_conversations(
    caller: Reader,
    limit: Limit = 20,
    cursor: str | None = None,
    provider: Annotated[Provider | None, Query()] = None,
) -> Answer[Conversations]:
    """List conversations by their last memory, newest first."""
    start = None
    if cursor is not None:
        at, (last_provider, last_id) = parts_of(cursor, 3)
        start = (at, last_provider, last_id)
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        found = await conversations.page(conn, caller.user.id, provider, start, limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    last = cursor_of(shown[-1].last_at, shown[-1].provider, shown[-1].id) if more else None
    return Answer(data=Conversations(conversations=shown, next_cursor=last))


@router.get("/{conversation_id:path}", responses=failures(NotFound))
async def read_conversation(
    conversation_id: Annotated[ShortText, Path()],
    caller: Reader,
    limit: Limit = 50,
    cursor: str | None = None,
    provider: Annotated[Provider | None, Query()] = None,
    after: Annotated[Time | None, Query()] = None,
) -> Answer[Page]:
    """Read a conversation's memories, oldest first; with `after`, from that moment on."""
    filters = Filters(provider=provider, conversation_id=conversation_id, after=after)
    start = memory_cursor(cursor)
    async with acting_as(caller.resources.db, caller.user.id) as conn:
        found = await memory_store.oldest(conn, caller.user.id, filters, start, limit + 1)
    if not found and start is None:
        raise NotFound("There is no such conversation.")
    return Answer(data=make_page(found, limit))
