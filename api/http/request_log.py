"""Request ids, error responses and the request log."""

import logging
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.errors import problem_response

_log = logging.getLogger(__name__)


class RequestLogMiddleware:
    """Give each request an id, turn exceptions into problem documents, and write one log line per request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on and log it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = f"req_{secrets.token_hex(10)}"
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if status:
                raise  # the response has begun: only a closed connection shows the client that it is incomplete
            await problem_response(error, request_id)(scope, receive, send_with_id)
        finally:
            fields = {"method": scope["method"], "path": scope["path"], "status": status, "request_id": request_id}
            seconds = round(time.perf_counter() - began, 4)
            _log.info(
                "request", extra={**fields, "address": client_address(scope), **_key_of(scope), "seconds": seconds}
            )
        return None


def client_address(scope: Scope) -> str | None:
    """Return the network address of the client; None on a socket without addresses."""
    client = scope.get("client")
    return client[0] if client else None


def _key_of(scope: Scope) -> dict[str, str]:
    """Return the id and owner of the request's key; of an invalid key, the prefix of its token."""
    state = scope["state"]
    if "caller" in state:
        return {"key_id": state["caller"].key_id, "owner": state["caller"].owner}
    return {"key_prefix": state["key_prefix"]} if state.get("key_prefix") else {}
