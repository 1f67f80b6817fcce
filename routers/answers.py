"""The envelope of every answer, and the handlers that put every error into it."""

from typing import Any, Generic, Literal, TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from core import errors
from core.errors import AppError, InvalidInput, Unavailable
from storage.database import DATABASE_AWAY

log = structlog.get_logger()
T = TypeVar("T")


class Answer(BaseModel, Generic[T]):
    success: Literal[True] = True
    data: T
    error: None = None


class Failure(BaseModel):
    success: Literal[False] = False
    data: None = None
    error: str
    error_code: str
    details: dict[str, Any] = {}


BY_STATUS: dict[int, type[AppError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    408: errors.TooSlow,
    413: errors.TooLarge,
    415: errors.UnsupportedEncoding,
    429: errors.TooManyRequests,
}


def failures(*kinds: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Describe a route's errors for OpenAPI."""
    said: dict[int, list[str]] = {}
    for kind in kinds:
        said.setdefault(kind.status, []).append(f"`{kind.code}`: {kind.message}")
    return {
        status: {"model": Failure, "description": " ".join(texts)} for status, texts in said.items()
    }


# What any route may answer: only the document says so, as each route keeps a copy of its own.
EVERYWHERE = {
    str(status): {
        "description": said["description"],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
    }
    for status, said in failures(
        errors.TooSlow,
        errors.TooLarge,
        errors.UnsupportedEncoding,
        errors.WrongHost,
        errors.AppError,
    ).items()
}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
METERED = (errors.MissingScope, errors.RateLimitExceeded, errors.TooManyRequests)
# What may go wrong where a model is asked.
ASKING = (
    errors.InvalidInput,
    errors.Unauthorized,
    errors.TokensSpent,
    errors.ProviderFailed,
    errors.ProviderTooSlow,
    errors.NoChatProvider,
    errors.Unavailable,
    *METERED,
)


class _FailureResponse(JSONResponse):
    """Tells the edge its code, for the log and the metrics."""

    def __init__(self, error: AppError, content: object, headers: dict[str, str]) -> None:
        super().__init__(content, error.status, headers)
        self._code = error.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["seen"].code = self._code
        await super().__call__(scope, receive, send)


def failure_response(error: AppError) -> JSONResponse:
    body = Failure(error=error.message, error_code=error.code, details=error.details)
    return _FailureResponse(error, body.model_dump(mode="json"), headers_of(error))


def headers_of(error: AppError) -> dict[str, str]:
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


async def _app_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AppError)
    return failure_response(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Name the fields and what is wrong with them; never repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(item["type"] == "too_large" for item in found):
        return failure_response(errors.TooLarge(fields=_fields(found)))
    if any(item["type"] == "json_invalid" for item in found):
        return failure_response(InvalidInput("The body is not valid JSON."))
    if any(item["loc"] == ("body",) for item in found):
        message = "Send a JSON object with Content-Type: application/json."
        return failure_response(InvalidInput(message))
    return failure_response(InvalidInput(fields=_fields(found)))


def _fields(found: Any) -> list[dict[str, str]]:
    return [
        {"path": _printable(".".join(map(str, item["loc"]))), "message": item["msg"]}
        for item in found
    ]


def _printable(text: str) -> str:
    """A field's name can come from the body, and so hold what JSON cannot carry back."""
    return text.encode("utf-8", "replace").decode()[:200]


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = BY_STATUS.get(error.status_code, AppError)
    if error.status_code == 400:
        return failure_response(InvalidInput("The body is not valid JSON."))
    response = failure_response(kind())
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    return response


def _methods_at(request: Request) -> set[str]:
    """Of all routes at this address; Starlette names those of the first one only."""
    routes = (context.original_route for context in iter_route_contexts(request.app.routes))
    return {
        method
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.warning("database_away", id=request.state.seen.id, error=type(error).__name__)
    return failure_response(Unavailable())


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with our 400 for FastAPI's 422, and where a token is needed."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path, operations in document["paths"].items():
            scheme = "admin key" if path.startswith("/admin") else "bearer"
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"] = EVERYWHERE | operation["responses"]
                _describe_failures_as_json(operation["responses"])
                if "401" in operation["responses"]:
                    operation.setdefault("security", [{scheme: []}])
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "admin key": {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
            "admin session": {"type": "apiKey", "in": "cookie", "name": "memory_layer_admin"},
        }
        app.openapi_schema = document
    return app.openapi_schema


def _describe_failures_as_json(responses: dict[str, dict[str, Any]]) -> None:
    """FastAPI gives them the type of what succeeds, as of a zip."""
    for status, response in responses.items():
        if not status.startswith("2") and (content := response.get("content")):
            response["content"] = {"application/json": next(iter(content.values()))}


def install(app: FastAPI) -> None:
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, _database_away)
