"""Personal API tokens: for programs that cannot sign in."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from core.auth import Scope
from core.errors import (
    InvalidInput,
    NotFound,
    RateLimitExceeded,
    SignInRequired,
    TooManyRequests,
    TooManyTokens,
    Unauthorized,
    Unavailable,
)
from routers.answers import Answer, failures
from routers.deps import MeteredOwner, Owner
from routers.inputs import Time, storable
from storage.api_tokens import ApiToken

router = APIRouter(
    prefix="/tokens",
    tags=["tokens"],
    responses=failures(InvalidInput, Unauthorized, SignInRequired, Unavailable),
)
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(storable),
]


class NewToken(BaseModel):
    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    expires_at: Time | None = Field(None, description="Without it the token does not expire.")


class IssuedToken(BaseModel):
    token: str = Field(description="Shown this once.")
    about: ApiToken


class Tokens(BaseModel):
    tokens: list[ApiToken]


@router.post(
    "",
    status_code=201,
    responses=failures(SignInRequired, RateLimitExceeded, TooManyTokens, TooManyRequests),
)
async def create_token(
    body: NewToken, caller: MeteredOwner, response: Response
) -> Answer[IssuedToken]:
    """Make a token. Its text is in this answer and nowhere else: only its hash is kept."""
    about, text = await caller.resources.tokens.issue(
        caller.user.id, body.name, body.scopes, body.expires_at
    )
    response.headers["cache-control"] = "no-store"
    return Answer(data=IssuedToken(token=text, about=about))


@router.get("")
async def list_tokens(caller: Owner) -> Answer[Tokens]:
    """List the caller's tokens, the oldest first; `last_used_at` is true to a minute."""
    return Answer(data=Tokens(tokens=await caller.resources.tokens.list_for_user(caller.user.id)))


@router.delete("/{token_id}", responses=failures(NotFound))
async def revoke_token(token_id: UUID, caller: Owner) -> Answer[None]:
    """End a token; within 5 seconds no replica accepts it."""
    await caller.resources.tokens.revoke(caller.user.id, token_id)
    return Answer(data=None)
