"""The path prefix of a reverse proxy, `FRS_ROOT_PATH`."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RootPathMiddleware:
    """Remove the prefix from request paths, unless the proxy has done so, and add it to the header `Location`."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on."""
        if scope["type"] != "http" or not self.root_path:
            return await self.app(scope, receive, send)
        if scope["path"].startswith(f"{self.root_path}/"):
            scope["path"] = scope["path"].removeprefix(self.root_path)

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("location", "").startswith("/"):
                    headers["location"] = self.root_path + headers["location"]
            await send(message)

        return await self.app(scope, receive, send_with_prefix)
