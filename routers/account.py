"""DELETE /account: everything of the caller, everywhere."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, StringConstraints

from core.erasure import Receipt
from core.errors import InvalidInput, SignInAgain, TooManyRequests, Unauthorized, Unavailable
from routers.answers import Answer, failures
from routers.deps import Owner

router = APIRouter(
    tags=["account"],
    responses=failures(InvalidInput, Unauthorized, SignInAgain, TooManyRequests, Unavailable),
)


class Proof(BaseModel):
    """Not needed within ten minutes of a sign-in; accounts of Supabase sign in again instead."""

    password: Annotated[str, StringConstraints(max_length=1_000)] | None = None


@router.delete("/account")
async def erase_account(
    request: Request, caller: Owner, proof: Proof | None = None
) -> Answer[Receipt]:
    """Erase memories, tokens, sessions, use and the account itself; nothing brings them back.

    The receipt says how many rows of each kind are gone. Other replicas forget within 5 seconds.
    """
    password = proof.password if proof else None
    if password is not None:
        request.state.by_address.spend("sign_in", request)
    erasures = caller.resources.erasures
    return Answer(data=await erasures.erase_own_account(caller.user, password))
