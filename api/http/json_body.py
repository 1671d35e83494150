"""JSON request bodies: at most 1 MiB of strict JSON, except for uploads.

NaN, infinities, lone surrogates and U+0000 are rejected.
"""

import codecs
import json
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import ApiError

MAX_BYTES = 1 << 20
"""Maximum size of a JSON body."""
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
STREAMED = frozenset(
    {
        ("POST", "/datasets/upload"),
        ("POST", "/detectors/upload"),
        ("POST", "/jobs/{job_id}/predict"),
        ("POST", "/detectors/{detector}/predict"),
    }
)
"""Method and path of the routes whose bodies are files; `api.upload_body` limits their size."""
_STREAMED_PATTERNS = [(method, compile_path(path)[0]) for method, path in sorted(STREAMED)]
_METHODS_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")


class JsonBodyMiddleware:
    """Read the body of a request and reject it unless it is strict JSON, before the endpoint parses it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the body and pass the request on. Raises ApiError."""
        if scope["type"] != "http" or scope["method"] not in _METHODS_WITH_BODY or _is_streamed(scope):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        _check_encoding(headers)
        body = await _read(headers, receive)
        if body is None:
            return None
        body = body.removeprefix(codecs.BOM_UTF8)  # written by PowerShell and Windows editors
        if body:
            _check_content_type(headers)
            parse(body)
        return await self.app(scope, _replay(body, receive), send)


def parse(body: bytes) -> Any:
    """Return the parsed body. Raises ApiError, 400, unless it is strict JSON."""
    try:
        content = json.loads(body.decode())
        text = json.dumps(content, allow_nan=False, ensure_ascii=False)
        text.encode()
        if _NUL.search(text):
            raise ValueError("PostgreSQL cannot store U+0000")
    except (ValueError, RecursionError) as error:
        hint = "Send UTF-8 JSON without NaN, infinities, lone surrogates, U+0000 or deep nesting."
        raise ApiError(400, "invalid_json", "The body is not strict JSON.", hint) from error
    return content


async def _read(headers: Headers, receive: Receive) -> bytes | None:
    """Return the body; None if the client has disconnected. Raises ApiError, 413, if the body is too large."""
    content_length = headers.get("content-length", "0")
    if content_length.isdigit() and (len(content_length) > 9 or int(content_length) > MAX_BYTES):
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
    return any(scope["method"] == method and path.match(scope["path"]) for method, path in _STREAMED_PATTERNS)


def _check_encoding(headers: Headers) -> None:
    if (encoding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
        text = f"The body has the `Content-Encoding` {encoding[:20]!r}, which is not decoded."
        raise ApiError(415, "unsupported_media_type", text, "Send the JSON uncompressed, without `Content-Encoding`.")


def _check_content_type(headers: Headers) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        hint = "Send `Content-Type: application/json`."
        raise ApiError(415, "unsupported_media_type", "The `Content-Type` of the body is not JSON.", hint)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that yields the body first, then the messages of `receive`."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _too_large() -> ApiError:
    return ApiError(413, "body_too_large", f"The body has more than {MAX_BYTES >> 20} MiB.", "Send a smaller body.")
