"""Files as answers, and files that requests name."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.http import ranges
from api.http.errors import InvalidField
from api.http.openapi import problem
from frs.errors import InvalidSpec
from frs.resolved import inside
from store.artifacts.storage import Artifacts
from store.db.tables import Artifact, Checkpoint
from store.errors import ArtifactCorrupt, ArtifactsUnavailable

BINARY = "application/octet-stream"
_BLOCK = 1 << 18
_log = logging.getLogger(__name__)


async def _part(
    range: Annotated[str | None, Header(description="Such as `bytes=0-1023`.")] = None,
    if_none_match: Annotated[str | None, Header(description="The ETag of what is there already.")] = None,
) -> None:
    """Read by `file_response`."""


RANGE_HEADERS = Depends(_part)
"""Documents the headers that `file_response` heeds."""


def content_response(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: what the body of a 200 is."""
    schema = {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})
    return {200: {"content": {media_type: {"schema": schema}}}}


def range_responses(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: all that `file_response` answers."""
    whole = content_response(media_type)
    return whole | {
        206: whole[200] | {"description": "The part that `Range` named."},
        304: {"description": "The client has this very content."},
        416: problem(416),
    }


def file_response(
    request: Request,
    artifacts: Artifacts,
    kept: Checkpoint | Artifact,
    *,
    filename: str | None = None,
    media_type: str = BINARY,
) -> Response:
    """The file, or the `Range` of it that was asked for; nothing where the client has this very content.

    Raises ArtifactNotFound, ArtifactsUnavailable, ArtifactCorrupt, Refusal for a range that the file has not.
    """
    etag = f'"{kept.sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    part = ranges.requested_range(request.headers, kept.bytes, etag)
    start, stop = part or (0, kept.bytes)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{kept.bytes}"
    if filename:
        headers["Content-Disposition"] = f'attachment; filename="{safe_name(filename)}"'
    content = _opened(artifacts, kept)
    return _Part(content, start, stop, status_code=206 if part else 200, headers=headers, media_type=media_type)


def delete_files(artifacts: Artifacts, *keys: str) -> None:
    """Of files that no row names any more: where they cannot be deleted, some too many harm nobody."""
    for done, key in enumerate(keys):
        try:
            artifacts.delete(key)
        except ArtifactsUnavailable as error:  # each of the others would wait as long
            _log.warning("%d files not deleted: %s", len(keys) - done, error.strerror, extra={"keys": keys[done:]})
            return
        except OSError as error:
            _log.warning("file not deleted: %s", error.strerror, extra={"key": key})


class _Part(StreamingResponse):
    def __init__(self, content: BinaryIO, start: int, stop: int, **told: Any) -> None:
        super().__init__(_read(content, start, stop), **told)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # also where the client has left
            self._content.close()


def _opened(artifacts: Artifacts, kept: Checkpoint | Artifact) -> BinaryIO:
    content = artifacts.open(kept.key)
    size = content.seek(0, os.SEEK_END)
    if size != kept.bytes:
        content.close()
        raise ArtifactCorrupt(f"The file has {size} bytes of {kept.bytes}.")
    return content


def _read(content: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """Less than was promised breaks the answer off, so nobody takes it for the whole."""
    content.seek(start)
    while start < stop:
        block = content.read(min(_BLOCK, stop - start))
        if not block:
            raise ArtifactCorrupt("The file has become shorter while it was read.")
        start += len(block)
        yield block


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
