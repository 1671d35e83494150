"""File responses with ranges and ETags, and paths of files that requests refer to."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.http import ranges
from api.http.errors import InvalidField
from api.http.openapi import problem_schema
from frs.errors import InvalidSpec
from frs.resolved import inside
from store.artifacts.storage import Artifacts
from store.db.tables import Artifact, Checkpoint
from store.errors import ArtifactCorrupt

BINARY = "application/octet-stream"
"""Media type of a file without a more specific one."""
_BLOCK = 1 << 18


async def _range_headers(
    range: Annotated[str | None, Header(description="Byte range, such as `bytes=0-1023`.")] = None,
    if_none_match: Annotated[str | None, Header(description="ETag of the copy that the client has.")] = None,
) -> None:
    """Declare the headers; `file_response` reads them from the request."""


RANGE_HEADERS = Depends(_range_headers)
"""Endpoint dependency: documents the request headers that `file_response` evaluates."""


def content_response(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of an endpoint whose 200 has this media type."""
    schema = {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})
    return {200: {"content": {media_type: {"schema": schema}}}}


def range_responses(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of an endpoint that answers with `file_response`."""
    full = content_response(media_type)
    return full | {
        206: full[200] | {"description": "The part of the file that `Range` requests."},
        304: {"description": "The client's copy is current."},
        416: problem_schema(416),
    }


def file_response(
    request: Request,
    artifacts: Artifacts,
    file: Checkpoint | Artifact,
    *,
    filename: str | None = None,
    media_type: str = BINARY,
) -> Response:
    """Return the file, the part that `Range` requests, or a 304 if `If-None-Match` has the file's ETag.

    The ETag is the SHA-256 of the content. Raises ArtifactNotFound, ArtifactsUnavailable, ArtifactCorrupt, and ApiError
    for an invalid range.
    """
    etag = f'"{file.sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    byte_range = ranges.requested_range(request.headers, file.bytes, etag)
    start, stop = byte_range or (0, file.bytes)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    if byte_range:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    if filename:
        headers["Content-Disposition"] = _attachment(filename)
    content = _open(artifacts, file)
    status = 206 if byte_range else 200
    return _FileResponse(content, start, stop, status_code=status, headers=headers, media_type=media_type)


def _attachment(filename: str) -> str:
    """Return the header `Content-Disposition` (RFC 6266); a name beyond ASCII is added in the form of RFC 8187."""
    header = f'attachment; filename="{safe_filename(filename)}"'
    return header if filename.isascii() else f"{header}; filename*=UTF-8''{quote(filename, safe='')}"


def safe_filename(name: str) -> str:
    """Return the name with every run of characters outside `A-Za-z0-9_.-` replaced by `_`.

    Leading and trailing dots and underscores are removed; an empty result becomes `file`.
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "file"


def resolve_folder(root: Path, relative: str, loc: str) -> Path:
    """Return the folder `relative` inside `root`.

    Raises InvalidField for the field `loc` if there is no such folder inside `root` after links are followed.
    """
    return _resolve(root, relative, loc, "folder", Path.is_dir, "files_not_found")


def resolve_file(root: Path, relative: str, loc: str, *, code: str = "files_not_found") -> Path:
    """Return the file `relative` inside `root`.

    Raises InvalidField for the field `loc` if there is no such file inside `root` after links are followed.
    """
    return _resolve(root, relative, loc, "file", Path.is_file, code)


class _FileResponse(StreamingResponse):
    def __init__(self, content: BinaryIO, start: int, stop: int, **options: Any) -> None:
        super().__init__(_read(content, start, stop), **options)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # also after the client has disconnected
            self._content.close()


def _open(artifacts: Artifacts, file: Checkpoint | Artifact) -> BinaryIO:
    content = artifacts.open(file.key)
    size = content.seek(0, os.SEEK_END)
    if size != file.bytes:
        content.close()
        raise ArtifactCorrupt(f"The file has {size} bytes instead of {file.bytes}.")
    return content


def _read(content: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes from `start` to `stop`.

    Raises ArtifactCorrupt if the file ends early; the broken response then shows that it is incomplete.
    """
    content.seek(start)
    while start < stop:
        block = content.read(min(_BLOCK, stop - start))
        if not block:
            raise ArtifactCorrupt("The file became shorter while it was read.")
        start += len(block)
        yield block


def _resolve(root: Path, relative: str, loc: str, kind: str, exists: Callable[[Path], bool], code: str) -> Path:
    try:
        path = inside(root, relative)
        is_valid = exists(path)
    except (InvalidSpec, OSError, RuntimeError):  # a path outside, a name that is too long, a cycle of links
        is_valid = False
    if not is_valid:
        detail = f"`{loc}` names no {kind} below the folder that the service reads."
        raise InvalidField(loc, code, detail, f"Put the {kind} there, or correct its path, relative to that folder.")
    return path
