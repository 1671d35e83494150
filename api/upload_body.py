"""Request bodies that are files: streamed to the uploads folder, with their size and SHA-256 computed on the way."""

import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from anyio import fail_after, to_thread
from fastapi import Depends, Header, Request
from starlette.requests import ClientDisconnect

from api import disk_quota
from api.context import ContextDep
from api.http.auth import Submitter
from api.http.errors import ApiError
from store.artifacts import free_space
from store.artifacts.local_files import temporary_path
from store.settings import Settings

IDLE_SECONDS = 60
"""An upload is aborted when the client sends nothing for this long."""
WRITE_SECONDS = 60.0
"""A slow client's bytes are written at least this often: a file that does not change counts as abandoned in the end."""
_BLOCK = 1 << 20
"""Bytes that are written to the file at a time, unless the client is slow."""

Sha256 = Annotated[
    str | None,
    Header(alias="X-Content-SHA256", pattern="^[0-9a-f]{64}$", description="Expected SHA-256 of the body, in hex."),
]


@dataclass(frozen=True)
class Upload:
    """A received file."""

    path: Path
    """Temporary file; it is deleted after the response."""
    sha256: str
    """SHA-256 of the content, lower-case hex."""


def receive_upload(check: Callable[..., Any], media_types: Collection[str], limit: int | None = None) -> Any:
    """Return the annotation of an endpoint parameter that receives the body as an `Upload`.

    `check` is a dependency that runs before the body is read, so that it can reject the request early; its result may
    have `replaced_bytes`, the size of what the upload replaces. `limit` is the maximum size in bytes of files that are
    not kept.
    """

    async def receive(
        request: Request,
        context: ContextDep,
        caller: Submitter,
        checked: Annotated[Any, Depends(check)],
        x_content_sha256: Sha256 = None,
    ) -> AsyncGenerator[Upload]:
        max_bytes = min(context.settings.max_upload_bytes, limit or context.settings.max_upload_bytes)
        check_quota = partial(disk_quota.check_upload, replaced=getattr(checked, "replaced_bytes", 0))
        _check_headers(request, media_types, max_bytes)
        with temporary_path(context.settings.uploads_root) as path:
            _check_free_space(request, context.settings)
            if limit is None:  # smaller bodies are not kept
                await to_thread.run_sync(check_quota, context, caller, _content_length(request))
            sha256 = await _write(request, path, context.settings, max_bytes)
            if limit is None and not _content_length(request):
                await to_thread.run_sync(check_quota, context, caller, path.stat().st_size)
            if x_content_sha256 not in (None, sha256):
                detail = "The SHA-256 of the body differs from the header `X-Content-SHA256`."
                raise ApiError(422, "hash_differs", detail, "Send the file again.")
            yield Upload(path, sha256)

    return Depends(receive)


def upload_schema(media_types: Collection[str]) -> dict[str, Any]:
    """Return the `openapi_extra=` of an endpoint whose body is a file of one of these types."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(media_types, binary)}}


def _check_headers(request: Request, media_types: Collection[str], max_bytes: int) -> None:
    """Raise ApiError, 415 for another content type, 413 for a `Content-Length` over the limit."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in media_types:
        hint = f"Send `Content-Type: {'` or `'.join(media_types)}`."
        raise ApiError(415, "unsupported_media_type", "The `Content-Type` of the body is not supported here.", hint)
    if _content_length(request) > max_bytes:
        raise _too_large(max_bytes)


def _check_free_space(request: Request, settings: Settings) -> None:
    """Raise OSError, ENOSPC, if too little space would be free after storing the body."""
    for folder in filter(None, (settings.uploads_root, settings.artifacts_root)):
        free_space.check_available(settings, folder, _content_length(request))


def _content_length(request: Request) -> int:
    """Return the `Content-Length`; 0 if it is absent or invalid."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdigit() and len(text) < 19 else 0


async def _write(request: Request, path: Path, settings: Settings, max_bytes: int) -> str:
    """Write the body to `path` and return its SHA-256.

    Raises ApiError, or OSError, ENOSPC, before too little space is free.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        async for block in _blocks(request.stream()):
            size += len(block)
            if size > max_bytes:
                raise _too_large(max_bytes)
            await to_thread.run_sync(_write_block, file, digest, block, settings)
    if not size:
        raise ApiError(400, "body_missing", "The request has no body.", "Send the file as the request body.")
    return digest.hexdigest()


async def _blocks(stream: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yield the body in blocks of at least 1 MiB, so that each use of a thread is worthwhile; smaller if it is slow.

    Raises ApiError if the client stalls or disconnects.
    """
    block, write_at = bytearray(), time.monotonic() + WRITE_SECONDS
    try:
        while True:
            with fail_after(IDLE_SECONDS):
                chunk = await anext(stream, None)
            block += chunk or b""
            if len(block) >= _BLOCK or chunk is None or time.monotonic() >= write_at:
                yield bytes(block)
                block.clear()
                write_at = time.monotonic() + WRITE_SECONDS
            if chunk is None:
                return
    except TimeoutError as error:
        detail = f"The client sent nothing for {IDLE_SECONDS} s."
        raise ApiError(408, "upload_stalled", detail, "Send the file again.") from error
    except ClientDisconnect as error:
        detail = "The client disconnected before the end of the body."
        raise ApiError(400, "upload_broken_off", detail, "Send the file again.") from error


def _write_block(file: BinaryIO, digest: Any, block: bytes, settings: Settings) -> None:
    """Write the block. Raises OSError, ENOSPC, before too little space is free."""
    free_space.check_available(settings, Path(file.name).parent, len(block))
    digest.update(block)
    file.write(block)
    file.flush()


def _too_large(max_bytes: int) -> ApiError:
    hint = "Send a smaller file; the limit of an upload is the setting FRS_MAX_UPLOAD_BYTES."
    return ApiError(413, "upload_too_large", f"The body has more than {max_bytes:,} bytes.", hint)
