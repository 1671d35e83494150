"""What a request's body may be: at most 1 MiB of strict JSON, uploads apart. NaN, infinities, lone surrogates and U+0000 are none."""

import json
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import ApiError

MAX_BYTES = 1 << 20
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
STREAMED = frozenset({("POST", "/datasets/upload"), ("POST", "/detectors/upload")})
"""The routes whose bodies are files. They count for themselves, see `api.upload_body`."""
_WITH_A_BODY = ("POST", "PUT", "PATCH", "DELETE")


class JsonBodyMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WITH_A_BODY or _is_streamed(scope):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        body = await _read(headers, receive)
        if body is None:
            return None
        if body:
            _refuse_other_types(headers)
            parse(body)
        return await self.app(scope, _again(body, receive), send)


def parse(body: bytes) -> Any:
    """Strict JSON. Raises ApiError, 400."""
    try:
        content = json.loads(body.decode())
        text = json.dumps(content, allow_nan=False, ensure_ascii=False)
        text.encode()
        if _NUL.search(text):
            raise ValueError("PostgreSQL keeps no such text")
    except (ValueError, RecursionError) as error:
        hint = "No NaN, no infinities, no lone surrogates, no U+0000, not nested deeply."
        raise ApiError(400, "invalid_json", "The body is not strict JSON.", hint) from error
    return content


async def _read(headers: Headers, receive: Receive) -> bytes | None:
    """None where the client has gone. Raises ApiError, 413."""
    announced = headers.get("content-length", "0")
    if announced.isdigit() and (len(announced) > 9 or int(announced) > MAX_BYTES):
        raise _too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def _is_streamed(scope: Scope) -> bool:
    return (scope["method"], scope["path"]) in STREAMED


def _refuse_other_types(headers: Headers) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        hint = "Send `Content-Type: application/json`."
        raise ApiError(415, "unsupported_media_type", "The body is not said to be JSON.", hint)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body out once more, then goes on with what `receive` says."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _too_large() -> ApiError:
    return ApiError(413, "body_too_large", f"The body has more than {MAX_BYTES >> 20} MiB.", "Send less at once.")
