"""POST /search: ranked memories, each with its score, the matched words and why."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from core.errors import InvalidInput, Unauthorized, Unavailable
from core.retrieval import Recall
from routers.answers import METERED, Answer, failures
from routers.deps import Reader
from routers.inputs import Number, Provider, ShortText, Time, make_filters, storable

router = APIRouter(
    tags=["search"], responses=failures(InvalidInput, Unauthorized, Unavailable, *METERED)
)


class Search(BaseModel):
    query: Annotated[str, StringConstraints(max_length=20_000), AfterValidator(storable)] = Field(
        description="A question or some words; an empty one finds nothing."
    )
    limit: Number = Field(10, ge=1, le=100)
    provider: Provider | None = None
    conversation_id: ShortText | None = None
    after: Time | None = None
    before: Time | None = None


@router.post("/search")
async def search(body: Search, caller: Reader) -> Answer[Recall]:
    """Find memories by meaning and by words, the best first.

    `relevant` says whether a hit is near enough to the query to be an answer. `semantic` is false
    while the embedder cannot be asked, and words alone counted.
    """
    filters = make_filters(body.provider, body.conversation_id, body.after, body.before)
    return Answer(
        data=await caller.resources.retrieval.recall(
            caller.user.id, body.query, body.limit, filters
        )
    )
