"""The operator's session: begun with the admin key, carried by a cookie."""

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from core.errors import Forbidden, TooManyRequests, Unauthorized, Unavailable
from routers import admin_cookie
from routers.addresses import client_address
from routers.answers import Answer, failures
from routers.deps import AppResources, operator_of

router = APIRouter(prefix="/admin/api", tags=["admin"])
refused = failures(Unauthorized, Unavailable)


class Session(BaseModel):
    """`configured` is false while the server has no admin key at all."""

    configured: bool
    signed_in: bool
    expires_at: datetime | None = None


@router.get("/session", responses=failures(Unavailable))
async def read_session(
    request: Request, response: Response, resources: AppResources
) -> Answer[Session]:
    """Say whether the request's cookie is a session; the answer is 200 either way."""
    response.headers["Cache-Control"] = "no-store"
    token, configured = admin_cookie.token_of(request), resources.admin.configured
    if not token:
        return Answer(data=Session(configured=configured, signed_in=False))
    try:
        _, ends = await resources.admin.by_session(token, client_address(request))
    except Unauthorized:
        admin_cookie.take_away(response)
        return Answer(data=Session(configured=configured, signed_in=False))
    return Answer(data=Session(configured=configured, signed_in=True, expires_at=ends))


@router.post("/session", responses=refused | failures(TooManyRequests))
async def sign_in(request: Request, response: Response, resources: AppResources) -> Answer[Session]:
    """Exchange `X-Admin-Key` for a cookie of 30 minutes, which no script can read."""
    response.headers["Cache-Control"] = "no-store"
    key = request.headers.get("x-admin-key", "")
    session = await resources.admin.begin_session(await operator_of(request, key))
    admin_cookie.give(request, response, session)
    return Answer(data=Session(configured=True, signed_in=True, expires_at=session.expires_at))


@router.delete(
    "/session",
    responses=refused | failures(Forbidden),
    openapi_extra={"security": [{"admin session": []}]},
)
async def sign_out(
    request: Request, response: Response, resources: AppResources
) -> Answer[Session]:
    """End the session of the cookie, whose name begins with `__Host-` over https."""
    response.headers["Cache-Control"] = "no-store"
    token = admin_cookie.token_of(request)
    if token is None:
        raise Unauthorized("There is no session to end.")
    admin_cookie.require_own_page(request)
    await resources.admin.end_session(token, client_address(request))
    admin_cookie.take_away(response)
    return Answer(data=Session(configured=True, signed_in=False))
