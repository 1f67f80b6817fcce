"""What a route may ask for; the only module that knows Depends."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from core.auth import User
from core.errors import Unauthorized
from core.resources import Resources


async def _resources(request: Request) -> Resources:
    resources: Resources = request.state.resources
    return resources


AppResources = Annotated[Resources, Depends(_resources)]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who calls, and what serves them: one dependency, since each costs a tenth of a request."""

    user: User
    resources: Resources


async def _known(request: Request) -> SignedIn:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("Send an access token: Authorization: Bearer …")
    resources: Resources = request.state.resources
    user = await resources.verifier.verify(token.strip())
    request.state.seen.user_id = user.id
    return SignedIn(user, resources)


async def _metered(request: Request) -> SignedIn:
    caller = await _known(request)
    await caller.resources.limiter.spend(caller.user.id)
    return caller


# Each request of a Caller is spent of its tier; that of a FreeCaller costs nothing.
Caller = Annotated[SignedIn, Depends(_metered)]
FreeCaller = Annotated[SignedIn, Depends(_known)]
