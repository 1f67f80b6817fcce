"""What a route may ask for; the only module that knows Depends."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from core.admin_access import AdminAccess, Operator
from core.auth import User
from core.errors import Unauthorized
from core.resources import Resources
from routers import admin_cookie
from routers.addresses import client_address, verified


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
    token = token.strip()
    user = resources.verifier.remembered(token) or await verified(request, token)
    return SignedIn(user, resources)


async def _metered(request: Request) -> SignedIn:
    caller = await _known(request)
    await caller.resources.limiter.spend(caller.user.id)
    return caller


# Each request of a Caller is spent of its tier; that of a FreeCaller costs nothing.
Caller = Annotated[SignedIn, Depends(_metered)]
FreeCaller = Annotated[SignedIn, Depends(_known)]


@dataclass(frozen=True, slots=True)
class Administration:
    """Which operator calls, and what serves them."""

    operator: Operator
    resources: Resources


async def operator_of(request: Request, key: str) -> Operator:
    """Raise Unauthorized, or TooManyRequests after several wrong keys from one address."""
    admin: AdminAccess = request.state.resources.admin
    address = client_address(request)
    request.state.by_address.check("admin", request)
    try:
        return admin.by_key(key, address)
    except Unauthorized:
        # Nothing is awaited before this: tries that come all at once are counted one by one.
        request.state.by_address.spend("admin", request)
        await admin.note_wrong_key(address)
        raise


async def _operating(request: Request, response: Response) -> Administration:
    response.headers["Cache-Control"] = "no-store"
    resources: Resources = request.state.resources
    if (key := request.headers.get("x-admin-key")) is not None:
        return Administration(await operator_of(request, key), resources)
    token = admin_cookie.token_of(request)
    if token is None:
        raise Unauthorized("Send the admin key: X-Admin-Key: …")
    admin_cookie.require_own_page(request)
    operator, _ = await resources.admin.by_session(token, client_address(request))
    return Administration(operator, resources)


Admin = Annotated[Administration, Depends(_operating)]
