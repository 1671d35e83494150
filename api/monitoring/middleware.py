"""Request metrics by route. Requests without a route, or without a valid key, share the label `none`."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_ROUTE = "none"
"""Value of the label `route` for requests that reach no route."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Values of the label `method`; other methods are counted as `other`."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Upper bounds of the histogram buckets, in seconds."""


class MetricsMiddleware:
    """Count requests and measure the time until the response begins."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("route", "method")
        self.count = Counter("frs_http_requests", "Requests answered.", (*labels, "status"), registry=registry)
        documentation = "Seconds from the head of the request to the head of the response."
        self.seconds = Histogram("frs_http_request_seconds", documentation, labels, buckets=SECONDS, registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on and record its metrics."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began = time.perf_counter()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._record(scope, message["status"], time.perf_counter() - began)
            await send(message)

        return await self.app(scope, receive, send_and_count)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        labels = (_route(scope), scope["method"] if scope["method"] in METHODS else "other")
        self.count.labels(*labels, str(status)).inc()
        self.seconds.labels(*labels).observe(seconds)


def _route(scope: Scope) -> str:
    path: str = getattr(scope.get("route"), "path_format", NO_ROUTE)
    return path
