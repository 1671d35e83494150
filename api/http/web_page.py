"""The page: `web/index.html` at `/`, and its static files below `/web`. It is a client of the public API alone."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

PREFIX = "/web"
_FILES = Path(str(files("web")))
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: no inline script or style, no other host."""
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
router = APIRouter(include_in_schema=False)


@router.get("/")
async def get_page() -> Response:
    """Return the page."""
    return FileResponse(_FILES / "index.html", headers=_HEADERS, media_type="text/html")


class _WebFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def static_files() -> ASGIApp:
    """Return the application that serves the files below `PREFIX`, compressed."""
    return GZipMiddleware(_WebFiles(directory=_FILES))
