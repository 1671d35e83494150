"""Files as answers, and files that requests name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Header
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.document import problem
from api.problems import InvalidField, Refusal
from frs.errors import InvalidSpec
from frs.resolved import inside

BINARY = "application/octet-stream"


async def _part(
    range: Annotated[str | None, Header(description="Such as `bytes=0-1023`.")] = None,
    if_none_match: Annotated[str | None, Header(description="The ETag of what is there already.")] = None,
) -> None:
    """Read by `answer`."""


PART = Depends(_part)
"""Documents the headers that `answer` heeds."""


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: what the body of a 200 is."""
    schema = {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})
    return {200: {"content": {media_type: {"schema": schema}}}}


def parts(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: all that `answer` answers."""
    whole = content(media_type)
    return whole | {
        206: whole[200] | {"description": "The part that `Range` named."},
        304: {"description": "The client has this very content."},
        416: problem(416),
    }


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
    return _File(path, headers=headers, media_type=media_type, filename=filename and safe_name(filename))


class _File(FileResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Refusal for a range that the file has not, where the framework answers plain text."""

        async def send_or_refuse(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                raise _no_such_range(message["status"], Headers(raw=message["headers"]))
            await send(message)

        await super().__call__(scope, receive, send_or_refuse)


def _no_such_range(status: int, headers: Headers) -> Refusal:
    size = {"Content-Range": headers["content-range"]} if "content-range" in headers else {}
    hint = "Ask for `bytes=FIRST-LAST` inside the file, or without `Range`."
    return Refusal(status, "invalid_range", "The file has no such range.", hint, headers=size)


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
