"""The files of the pages: served as they are, revalidated by ETag, under a strict CSP."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from core.config import ROOT
from core.errors import NotFound

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
}


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    """Only these names are answered: none that was sent ever becomes a path."""
    found = (path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(FOLDER).as_posix(): path for path in found}


@lru_cache(maxsize=200)
def _read(path: Path, changed: int) -> tuple[bytes, str]:
    """Return the content and its ETag; once for each change."""
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:24]}"'


async def send(request: Request, name: str) -> Response:
    """Answer with a file below `admin/`; raises NotFound for any other."""
    path = _files().get(name)
    if path is None:
        raise NotFound()
    # Both are in memory or on a local disk: a hop to a thread would take longer.
    content, etag = _read(path, path.stat().st_mtime_ns)
    headers = HEADERS | {"ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[path.suffix])


@router.get("/admin", include_in_schema=False)
async def panel(request: Request) -> Response:
    return await send(request, "index.html")


@router.get("/assets/{name:path}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    return await send(request, name)
