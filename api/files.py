"""Files as answers, and files that requests name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from api.problems import InvalidField
from frs.errors import InvalidSpec
from frs.resolved import inside

BINARY = "application/octet-stream"


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: what the body of a 200 is."""
    schema = {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})
    return {200: {"content": {media_type: {"schema": schema}}}}


def answer(
    request: Request,
    path: Path,
    sha256: str,
    *,
    filename: str | None = None,
    media_type: str = BINARY,
) -> Response:
    """The file, or the `Range` of it that was asked for; nothing where the client has this very content."""
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type=media_type, filename=filename and safe_name(filename))


def safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "file"


def named_folder(root: Path, relative: str, loc: str) -> Path:
    """Raises InvalidField unless there is such a folder inside `root`, links followed."""
    return _named(root, relative, loc, "folder", Path.is_dir, "files_not_found")


def named_file(root: Path, relative: str, loc: str, *, code: str = "files_not_found") -> Path:
    """Raises InvalidField unless there is such a file inside `root`, links followed."""
    return _named(root, relative, loc, "file", Path.is_file, code)


def _named(root: Path, relative: str, loc: str, what: str, is_there: Callable[[Path], bool], code: str) -> Path:
    try:
        path = inside(root, relative)
        found = is_there(path)
    except (InvalidSpec, OSError, RuntimeError):  # outside, a name too long, links in a circle
        found = False
    if not found:
        detail = f"`{loc}` names no {what} below the folder that the service looks in."
        raise InvalidField(loc, code, detail, f"Put the {what} there, or correct its path, relative to that folder.")
    return path
