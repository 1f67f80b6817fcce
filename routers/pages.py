"""The files of the pages: served as they are, revalidated by ETag, under a strict CSP; and what
they may know of this server before anybody signs in."""

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from core.config import ROOT, VERSION, Settings
from core.errors import NotFound
from routers.answers import Answer
from routers.deps import AppResources

router = APIRouter(tags=["pages"])
FOLDER = ROOT / "admin"

# Python's own table of types reads the machine's; a script of another type is not run at all.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # No inline script or style, nothing from elsewhere, and no text becomes markup.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Names carry no version: ask each time, and hear 304.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


class SignIn(BaseModel):
    kind: Literal["local", "supabase"]
    url: str = Field(description="What `/auth/v1` follows; empty for this very server.")
    key: str | None = Field(description="What Supabase wants as `apikey`; it is public.")
    can_sign_in: bool = Field(description="False where only a personal token can be used.")
    can_sign_up: bool


class About(BaseModel):
    version: str
    auth: SignIn
    can_ask: bool = Field(description="Whether the server has a model provider of its own.")
    import_max_mb: int


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    """Only these names are answered: none that was sent ever becomes a path."""
    found = (path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(FOLDER).as_posix(): path for path in found}


@lru_cache(maxsize=200)
def _read(path: Path, changed: int) -> tuple[bytes, bytes, str]:
    """Return the content, the same compressed, and its ETag; once for each change."""
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    return content, gzip.compress(content, mtime=0), etag


async def send(request: Request, name: str, more: dict[str, str] | None = None) -> Response:
    """Answer with a file below `admin/`; raises NotFound for any other."""
    path = _files().get(name)
    if path is None:
        raise NotFound()
    # Both are in memory or on a local disk: a hop to a thread would take longer.
    content, compressed, etag = _read(path, path.stat().st_mtime_ns)
    headers = HEADERS | {"ETag": etag} | (more or {})
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = compressed, "gzip"
    return Response(content, headers=headers, media_type=TYPES[path.suffix])


@router.get("/", include_in_schema=False)
async def own_page(request: Request, resources: AppResources) -> Response:
    """The page of a person's own; where there is a Supabase project, it signs in there itself."""
    url = urlsplit(resources.settings.supabase_url or "")
    policy = HEADERS["Content-Security-Policy"]
    if url.netloc:
        allowed = f"connect-src 'self' {url.scheme}://{url.netloc}"
        policy = policy.replace("connect-src 'self'", allowed)
    return await send(request, "web/index.html", {"Content-Security-Policy": policy})


@router.get("/about")
async def about(resources: AppResources) -> Answer[About]:
    """What this server is and how people sign in to it; public."""
    settings = resources.settings
    return Answer(
        data=About(
            version=VERSION,
            auth=_sign_in(settings),
            can_ask=bool(resources.providers.states),
            import_max_mb=settings.import_max_mb,
        )
    )


def _sign_in(settings: Settings) -> SignIn:
    if settings.supabase_url is None:
        can_sign_up = not settings.auth_disable_signup
        return SignIn(kind="local", url="", key=None, can_sign_in=True, can_sign_up=can_sign_up)
    key = settings.supabase_publishable_key
    return SignIn(
        kind="supabase",
        url=settings.supabase_url.rstrip("/"),
        key=key.get_secret_value() if key else None,
        can_sign_in=key is not None,
        # Whether it is allowed is the project's to say.
        can_sign_up=True,
    )


@router.get("/admin", include_in_schema=False)
async def panel(request: Request) -> Response:
    return await send(request, "index.html")


@router.get("/assets/{name:path}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    return await send(request, name)
