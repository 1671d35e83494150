"""`HEAD` for every path that has `GET`: the same status and headers, without the body."""

from asyncio import Event

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Pass a `HEAD` request on as `GET` and disconnect once the response has begun, so that streams end as well."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a HEAD request; pass others on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)
        asgi = scope.get("asgi", {}) | {"spec_version": "2.3"}  # responses that are streamed watch for disconnects
        get_scope = {**scope, "method": "GET", "asgi": asgi}
        request: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
        has_begun = Event()

        async def receive_until_begun() -> Message:
            if request:
                return request.pop()
            await has_begun.wait()
            return {"type": "http.disconnect"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["route"] = get_scope.get("route")  # the label of the request's metrics
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                has_begun.set()

        return await self.app(get_scope, receive_until_begun, send_head)
