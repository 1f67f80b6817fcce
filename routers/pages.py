"""The files of the pages: served as they are, revalidated by ETag, under a strict CSP."""

from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles

from core.config import ROOT
from core.errors import NotFound

router = APIRouter(tags=["pages"])
_files = StaticFiles(directory=ROOT / "admin")

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


async def send(request: Request, name: str) -> Response:
    """Answer with a file below `admin/`; raises NotFound for any other."""
    path = PurePosixPath(name)
    kind = TYPES.get(path.suffix)
    if kind is None or path.is_absolute() or str(path) != name or "\0" in name:
        raise NotFound()
    response = await _files.get_response(name, request.scope)
    if response.status_code == 200:
        response.headers["Content-Type"] = kind
    response.headers.update(HEADERS)
    return response


@router.get("/assets/{name:path}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    return await send(request, name)
