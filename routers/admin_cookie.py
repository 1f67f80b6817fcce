"""The cookie that stands for an operator's session, and what a request with it must show."""

from urllib.parse import urlsplit

from fastapi import Request, Response

from core.admin_access import SESSION_SECONDS, Session
from core.errors import Forbidden

# Over https the prefix binds the cookie to this very host; over http no browser would take it.
SECURE_NAME = "__Host-memory_layer_admin"
PLAIN_NAME = "memory_layer_admin"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def give(request: Request, response: Response, session: Session) -> None:
    secure = _over_https(request)
    response.set_cookie(
        SECURE_NAME if secure else PLAIN_NAME,
        session.token,
        max_age=SESSION_SECONDS,
        path="/" if secure else "/admin/api",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def take_away(response: Response) -> None:
    response.delete_cookie(SECURE_NAME, path="/", secure=True, httponly=True, samesite="strict")
    response.delete_cookie(PLAIN_NAME, path="/admin/api", httponly=True, samesite="strict")


def token_of(request: Request) -> str | None:
    return request.cookies.get(SECURE_NAME) or request.cookies.get(PLAIN_NAME)


def require_own_page(request: Request) -> None:
    """Raise Forbidden for a write that another page makes the browser send."""
    if request.method in SAFE:
        return
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc != request.headers.get("host"):
        raise Forbidden("Writes with a session must come from the panel itself.")


def _over_https(request: Request) -> bool:
    """The browser's word: in front of this server a proxy may have ended TLS."""
    origin = request.headers.get("origin", "")
    return request.url.scheme == "https" or origin.startswith("https://")
