"""What a route may ask for; the only module that knows Depends."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from core.admin_access import AdminAccess, Operator
from core.auth import Scope, User
from core.errors import MissingScope, SignInRequired, Unauthorized
from core.resources import Resources
from core.tokens import PREFIX
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


async def identify(request: Request, token: str, scope: Scope | None = None) -> SignedIn:
    """Say whose token this is, a personal one or an access token; it must have the scope.

    For routes that find the token elsewhere than `bearer_of` does. Costs the user nothing.
    """
    resources: Resources = request.state.resources
    verifier = resources.tokens if token.startswith(PREFIX) else resources.verifier
    user = verifier.remembered(token) or await verified(request, verifier, token)
    request.state.seen.user_id = user.id
    caller = SignedIn(user, resources)
    if scope is not None:
        demand(caller, scope)
    return caller


def demand(caller: SignedIn, scope: Scope) -> None:
    """Raise MissingScope for a personal token that was not given it."""
    if scope not in caller.user.scopes:
        raise MissingScope(f"This token lacks the scope {scope}.", scope=scope)


def bearer_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("Send an access token: Authorization: Bearer …")
    return token.strip()


Ask = Callable[[Request], Awaitable[SignedIn]]


def _free(scope: Scope | None) -> Ask:
    async def ask(request: Request) -> SignedIn:
        return await identify(request, bearer_of(request), scope)

    return ask


def _metered(scope: Scope) -> Ask:
    async def ask(request: Request) -> SignedIn:
        caller = await identify(request, bearer_of(request), scope)
        await caller.resources.limiter.spend(caller.user.id)
        return caller

    return ask


async def _owner(request: Request) -> SignedIn:
    caller = await identify(request, bearer_of(request))
    if caller.user.token_id is not None:
        raise SignInRequired
    return caller


async def _metered_owner(request: Request) -> SignedIn:
    caller = await _owner(request)
    await caller.resources.limiter.spend(caller.user.id)
    return caller


async def _metered_client(request: Request) -> SignedIn:
    """Anthropic's clients may send their key in a header of its own."""
    token = request.headers.get("x-api-key") or bearer_of(request)
    caller = await identify(request, token, "chat")
    await caller.resources.limiter.spend(caller.user.id)
    return caller


# Metered: each request is spent of its user's tier. Who signed in has every scope.
Reader = Annotated[SignedIn, Depends(_metered("read"))]
Writer = Annotated[SignedIn, Depends(_metered("write"))]
Chatter = Annotated[SignedIn, Depends(_metered("chat"))]
ProviderClient = Annotated[SignedIn, Depends(_metered_client)]

# Free of charge; FreeCaller needs no scope.
FreeCaller = Annotated[SignedIn, Depends(_free(None))]
FreeReader = Annotated[SignedIn, Depends(_free("read"))]
FreeWriter = Annotated[SignedIn, Depends(_free("write"))]

# The person, signed in: no personal token may do this.
Owner = Annotated[SignedIn, Depends(_owner)]
MeteredOwner = Annotated[SignedIn, Depends(_metered_owner)]


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
