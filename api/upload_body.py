"""Bodies that are files: written to the uploads folder as they come, counted and hashed on the way."""

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from anyio import fail_after, to_thread
from fastapi import Depends, Header, Request
from starlette.requests import ClientDisconnect

from api.context import ContextDep
from api.http.auth import Submitter
from api.http.errors import ApiError
from store.artifacts.local_files import temporary

IDLE_SECONDS = 60
"""A client that sends nothing for so long is given up."""
_BLOCK = 1 << 20

Sha256 = Annotated[
    str | None,
    Header(alias="X-Content-SHA256", pattern="^[0-9a-f]{64}$", description="What the body must hash to, in hex."),
]


@dataclass(frozen=True)
class Upload:
    path: Path
    """Gone once the request is answered."""
    sha256: str


def receive_upload(check: Callable[..., Any], media_types: Collection[str]) -> Any:
    """For a parameter of an endpoint: the body as an `Upload`. `check` is a dependency that may refuse before it is read."""

    async def receive(
        request: Request,
        here: ContextDep,
        caller: Submitter,
        checked: Annotated[Any, Depends(check)],
        x_content_sha256: Sha256 = None,
    ) -> AsyncGenerator[Upload]:
        most = here.settings.max_upload_bytes
        _refuse_by_headers(request, media_types, most)
        with temporary(here.settings.uploads_root) as part:
            _refuse_if_no_space(request, part.parent)
            sha256 = await _write(request, part, most)
            if x_content_sha256 not in (None, sha256):
                raise ApiError(422, "hash_differs", "The body does not hash to what was announced.", "Send it again.")
            yield Upload(part, sha256)

    return Depends(receive)


def upload_schema(media_types: Collection[str]) -> dict[str, Any]:
    """For `openapi_extra=`."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(media_types, binary)}}


def _refuse_by_headers(request: Request, media_types: Collection[str], most: int) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in media_types:
        hint = f"Send `Content-Type: {'` or `'.join(media_types)}`."
        raise ApiError(415, "unsupported_media_type", "The body is not said to be a file of a known type.", hint)
    if _announced(request) > most:
        raise _too_large(most)


def _refuse_if_no_space(request: Request, folder: Path) -> None:
    if _announced(request) > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _announced(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdigit() and len(text) < 19 else 0


async def _write(request: Request, part: Path, most: int) -> str:
    """The SHA-256 of what came. Raises ApiError."""
    digest, size = hashlib.sha256(), 0
    with part.open("xb") as file:
        async for block in _blocks(request.stream()):
            size += len(block)
            if size > most:
                raise _too_large(most)
            await to_thread.run_sync(_keep, file, digest, block)
    if not size:
        raise ApiError(400, "body_missing", "The request has no body.", "Send the file as the request's body.")
    return digest.hexdigest()


async def _blocks(stream: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """What comes, in pieces that are worth a thread's time. Raises ApiError where nothing comes any more."""
    block = bytearray()
    try:
        while True:
            with fail_after(IDLE_SECONDS):
                chunk = await anext(stream, None)
            block += chunk or b""
            if len(block) >= _BLOCK or chunk is None:
                yield bytes(block)
                block.clear()
            if chunk is None:
                return
    except TimeoutError as error:
        raise ApiError(408, "upload_stalled", f"Nothing came for {IDLE_SECONDS} s.", "Send the file again.") from error
    except ClientDisconnect as error:
        raise ApiError(400, "upload_broken_off", "The client has gone.", "Send the file again.") from error


def _keep(file: BinaryIO, digest: Any, block: bytes) -> None:
    digest.update(block)
    file.write(block)


def _too_large(most: int) -> ApiError:
    hint = "Leave out what is not needed, or raise FRS_MAX_UPLOAD_BYTES."
    return ApiError(413, "upload_too_large", f"The body has more than {most:,} bytes.", hint)
