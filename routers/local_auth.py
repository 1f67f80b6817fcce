"""Supabase Auth's protocol under /auth/v1, so that its official clients sign in here."""

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, JsonValue, ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from core.auth_protocol import AuthError
from core.errors import TooManyRequests, Unauthorized, Unavailable
from core.local_auth import SIGN_OUT_SCOPES, AccountChange, LocalAuth
from routers.addresses import verified
from routers.inputs import json_body
from storage.database import DATABASE_AWAY

API_VERSION = "x-supabase-api-version"
DATED_ERRORS = "2024-01-01"
MAX_BODY = 1_000_000  # bytes
# An odd number of backslashes makes it an escape; Postgres cannot store what it stands for.
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class AuthRoute(APIRoute):
    """Answers errors in the protocol's own shape."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except AuthError as exc:
                return _refusal(request, exc)
            except TooManyRequests as exc:
                return _refusal(request, _too_often(exc))
            except (Unavailable, *DATABASE_AWAY):
                away = AuthError(503, "unexpected_failure", "Sign-in is away; try again shortly.")
                away.retry_after = Unavailable.retry_after
                return _refusal(request, away)

        return answer


class AuthFailure(BaseModel):
    """The shape for clients that send x-supabase-api-version; `x-sb-error-code` repeats `code`."""

    code: str
    message: str


class UndatedAuthFailure(BaseModel):
    """The shape for clients that send no x-supabase-api-version."""

    code: int
    error_code: str
    msg: str


Refused = AuthFailure | UndatedAuthFailure


class Session(BaseModel):
    """What a sign-in gives; `user` has the members of Supabase Auth's user object."""

    access_token: str
    token_type: str
    expires_in: int
    expires_at: int
    refresh_token: str
    user: dict[str, JsonValue]


class Account(BaseModel):
    """The members that clients read; more come with them."""

    id: str
    email: str
    user_metadata: dict[str, JsonValue]
    app_metadata: dict[str, JsonValue]
    created_at: str


SESSION: dict[int | str, dict[str, Any]] = {200: {"model": Session}}
ACCOUNT: dict[int | str, dict[str, Any]] = {200: {"model": Account}}

router = APIRouter(
    prefix="/auth/v1",
    route_class=AuthRoute,
    tags=["accounts at home"],
    responses={
        "4XX": {"model": Refused, "description": "Refused, in Supabase Auth's own shape."},
        503: {"model": Refused, "description": "The database is away; try again shortly."},
    },
)
NEEDS_TOKEN: dict[str, Any] = {"security": [{"bearer": []}]}
# Answered only so that clients are refused in the protocol's words.
not_offered: dict[str, Any] = {"include_in_schema": False}


class NewAccount(BaseModel):
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    data: dict[str, Any] | None = None


class Grant(BaseModel):
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    refresh_token: str | None = None


class UserUpdate(BaseModel):
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    current_password: str | None = None
    data: dict[str, Any] | None = None
    app_metadata: Any = None


def _taking(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a route that reads its body itself, for OpenAPI; null is taken for an empty one."""
    return json_body({"anyOf": [model.model_json_schema(), {"type": "null"}]}, required=False)


def _choosing(name: str, values: Sequence[str], default: str | None = None) -> dict[str, Any]:
    """Describe a query parameter that a route reads itself, for OpenAPI; needed without default."""
    schema = {"enum": [*values]} | ({"default": default} if default else {})
    return {
        "parameters": [{"name": name, "in": "query", "required": not default, "schema": schema}]
    }


@router.post("/signup", responses=SESSION, openapi_extra=_taking(NewAccount))
async def sign_up(request: Request) -> Response:
    """Make an account and begin its first session: access_token, refresh_token, user."""
    _service(request)
    request.state.by_address.spend("sign_up", request)
    body = await _parse(request, NewAccount)
    _refuse_phone(body.phone)
    session = await _service(request).sign_up(body.email, body.password, _object(body.data))
    return _private(session)


@router.post(
    "/token",
    responses=SESSION,
    openapi_extra=_taking(Grant) | _choosing("grant_type", ["password", "refresh_token"]),
)
async def grant_token(request: Request) -> Response:
    """Begin a session with a password, or go on with it by its refresh token, which rotates."""
    body = await _parse(request, Grant)
    match request.query_params.get("grant_type"):
        case "password":
            _refuse_phone(body.phone)
            request.state.by_address.spend("sign_in", request)
            session = await _service(request).sign_in(body.email, body.password)
        case "refresh_token":
            session = await _service(request).refresh(body.refresh_token)
        case _:
            raise AuthError(400, "invalid_credentials", "unsupported_grant_type")
    return _private(session)


@router.get("/user", responses=ACCOUNT, openapi_extra=NEEDS_TOKEN)
async def show_user(request: Request) -> Response:
    """Show the account of the bearer."""
    return _private(await _service(request).user(await _bearer(request)))


@router.put("/user", responses=ACCOUNT, openapi_extra=_taking(UserUpdate) | NEEDS_TOKEN)
async def change_user(request: Request) -> Response:
    """Change address, password or metadata; a new password ends the other sessions."""
    body = await _parse(request, UserUpdate)
    _refuse_phone(body.phone)
    if body.app_metadata is not None:
        raise AuthError(403, "not_admin", "Updating app_metadata requires admin privileges")
    change = AccountChange(body.email, body.password, body.current_password, _object(body.data))
    return _private(await _service(request).change_account(await _bearer(request), change))


@router.post(
    "/logout",
    status_code=204,
    response_class=Response,
    openapi_extra=NEEDS_TOKEN | _choosing("scope", SIGN_OUT_SCOPES, default=SIGN_OUT_SCOPES[0]),
)
async def sign_out(request: Request) -> Response:
    """End all sessions of the account, or with ?scope=local or others just these."""
    scope = request.query_params.get("scope", SIGN_OUT_SCOPES[0])
    await _service(request).sign_out(await _bearer(request), scope)
    return Response(status_code=204)


@router.get("/.well-known/jwks.json")
async def show_keys(request: Request) -> Response:
    """The public keys that verify access tokens, as a JSON Web Key Set."""
    headers = {"cache-control": "public, max-age=600"}
    return JSONResponse(_service(request).published_keys(), headers=headers)


@router.get("/settings")
async def show_settings(request: Request) -> Response:
    """What clients may know before they sign in."""
    return JSONResponse(_service(request).described())


@router.get("/health")
async def show_health(request: Request) -> Response:
    """The answer by which Supabase's clients know such a service."""
    _service(request)
    return JSONResponse(
        {"name": "GoTrue", "version": "1", "description": "Memory Layer's own sign-in"}
    )


@router.post("/recover", **not_offered)
@router.post("/otp", **not_offered)
@router.post("/magiclink", **not_offered)
@router.post("/resend", **not_offered)
@router.get("/reauthenticate", **not_offered)
async def refuse_mail(request: Request) -> Response:
    _service(request)
    raise AuthError(422, "email_provider_disabled", "This server sends no e-mail")


@router.get("/verify", **not_offered)
@router.post("/verify", **not_offered)
async def refuse_code(request: Request) -> Response:
    _service(request)
    raise AuthError(403, "otp_expired", "Token has expired or is invalid")


@router.get("/authorize", **not_offered)
async def refuse_provider(request: Request) -> Response:
    _service(request)
    raise AuthError(400, "validation_failed", "Unsupported provider: provider is not enabled")


@router.api_route("/admin/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], **not_offered)
async def refuse_admin(request: Request) -> Response:
    _service(request)
    raise AuthError(403, "not_admin", "User not allowed")


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], **not_offered)
async def refuse_unknown(request: Request) -> Response:
    offered = [
        method
        for route in router.routes
        if isinstance(route, APIRoute)
        and route.include_in_schema
        and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    ]
    if not offered:
        raise AuthError(404, "not_found", "There is nothing at this address")
    refusal = AuthError(405, "validation_failed", "This address does not take that method")
    answer = _refusal(request, refusal)
    answer.headers["allow"] = ", ".join(sorted(offered))
    return answer


def _service(request: Request) -> LocalAuth:
    service: LocalAuth | None = request.state.resources.local_auth
    if service is None:
        raise AuthError(404, "not_found", "Sign in at the Supabase project of this server")
    return service


Body = TypeVar("Body", bound=BaseModel)


async def _parse(request: Request, model: type[Body]) -> Body:
    raw = await _read(request)
    if NUL.search(raw):
        raise AuthError(400, "bad_json", "Text must not contain NUL")
    try:
        return model.model_validate_json(b"{}" if raw.strip() in (b"", b"null") else raw)
    except ValidationError:
        # What the validator says would quote the password.
        raise AuthError(400, "bad_json", "Could not parse request body as JSON") from None


async def _read(request: Request) -> bytes:
    raw = bytearray()
    try:
        async for part in request.stream():
            raw.extend(part)
            if len(raw) > MAX_BODY:
                raise AuthError(413, "request_too_large", "The request is larger than 1 MB")
    except ClientDisconnect:
        raise AuthError(400, "bad_json", "The request ended early") from None
    return bytes(raw)


def _refuse_phone(phone: str | None) -> None:
    if phone:
        raise AuthError(400, "phone_provider_disabled", "Phone logins are disabled")


def _object(data: dict[str, JsonValue] | None) -> dict[str, object] | None:
    return None if data is None else dict(data)


async def _bearer(request: Request) -> str | None:
    """A token that is returned was good; raise TooManyRequests as other routes do."""
    service = _service(request)
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    token = text.strip()
    if scheme.lower() != "bearer" or not token:
        return None
    if service.verifier.remembered(token) is None:
        try:
            await verified(request, service.verifier, token)
        except Unauthorized:
            raise AuthError(403, "bad_jwt", "invalid JWT: unable to verify the token") from None
    return token


def _private(content: dict[str, object]) -> Response:
    return JSONResponse(content, headers={"cache-control": "no-store"})


def _too_often(exc: TooManyRequests) -> AuthError:
    error = AuthError(429, "over_request_rate_limit", "Request rate limit reached")
    error.retry_after = exc.retry_after
    return error


def _refusal(request: Request, error: AuthError) -> Response:
    """Clients believe the newer shape only if their version header comes back."""
    version = request.headers.get(API_VERSION, "")
    dated = version >= DATED_ERRORS
    headers = {"x-sb-error-code": error.code, "cache-control": "no-store"}
    if dated:
        headers[API_VERSION] = DATED_ERRORS
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return JSONResponse(error.body(dated), error.status, headers)
