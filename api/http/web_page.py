"""The page: `web/index.html` at `/`, and its static files below `/web`. It is a client of the public API alone."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

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
    return HTMLResponse((_FILES / "index.html").read_text(), headers=_HEADERS)


class _WebFiles(StaticFiles):
    """Files that are sent as a whole: Starlette answers a malformed `Range` with plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def static_files() -> ASGIApp:
    """Return the application that serves the files below `PREFIX`, compressed."""
    return GZipMiddleware(_WebFiles(directory=_FILES))
