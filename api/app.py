"""The FastAPI application: routes, middleware and error handlers.

`create_app()` needs a database that `python -m store init` has initialised.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import compile_path

from api.audit import endpoints as audit
from api.checkpoints import endpoints as checkpoints
from api.clean import endpoints as clean
from api.compare import endpoints as compare
from api.context import open_context
from api.datasets import checks
from api.datasets import endpoints as datasets
from api.detectors import endpoints as detectors
from api.exports import endpoints as exports
from api.health import endpoints as health
from api.http import errors, swagger_page, web_page
from api.http import openapi as openapi_document
from api.http.auth_middleware import AuthMiddleware
from api.http.head_requests import HeadMiddleware
from api.http.json_body import JsonBodyMiddleware
from api.http.request_log import RequestLogMiddleware
from api.http.root_path import RootPathMiddleware
from api.jobs import actions as job_actions
from api.jobs import endpoints as jobs
from api.jobs import stream
from api.keys import endpoints as keys
from api.monitoring import collector
from api.monitoring import endpoints as monitoring
from api.monitoring.middleware import MetricsMiddleware
from api.periodic import clean_uploads_periodically, reap_periodically
from api.plans import endpoints as plans
from api.predictions import endpoints as predictions
from api.queue import endpoints as queue
from api.recipes import endpoints as recipes
from api.sweeps import endpoints as sweeps
from api.usage import endpoints as usage
from api.webhooks import endpoints as webhooks
from api.webhooks import sender
from api.workers import endpoints as workers
from frs import __version__
from store.artifacts import local_files
from store.settings import Settings

_THREADS = 200
"""Size of the thread pool for endpoints.

There are many more threads than database connections. A request without a free connection therefore gets a 503 after
the connection pool's timeout instead of waiting for a thread without a time limit.
"""
_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "FRS-Project",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-Content-SHA256",
)
"""Headers that web pages of other origins may send."""
_RESPONSE_HEADERS = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Retry-After",
    "X-Request-Id",
)
"""Headers that web pages of other origins may read."""
_bearer_scheme = Depends(
    HTTPBearer(auto_error=False, description="An API key or, with `FRS_OIDC_ISSUER`, a token of the sign-in provider.")
)
"""Adds the security scheme to the OpenAPI document; `AuthMiddleware` checks the key."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application, with an open database connection pool.

    Raises DatabaseNotReady if the database cannot be reached, lacks tables or has no API key.
    """
    context = open_context(settings or Settings())
    registry = collector.build_registry(context)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        local_files.remove_stale(context.settings.uploads_root)
        checks.resume(context)
        background = (
            context.streams.run(),
            reap_periodically(context),
            clean_uploads_periodically(context),
            sender.send_periodically(context),
        )
        tasks = [asyncio.create_task(coroutine) for coroutine in background]
        yield
        for task in tasks:
            task.cancel()
        await context.shared_limits.close()
        context.close()

    app = _App(
        title="Feature-Richness distillation",
        version=__version__,
        summary="Distil a large object detector into a small one and measure the gain.",
        description="Every path with `GET` answers `HEAD` as well.",
        lifespan=lifespan,
        servers=[{"url": context.settings.root_path}] if context.settings.root_path else None,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        responses={"default": openapi_document.PROBLEM},
        middleware=[
            Middleware(RootPathMiddleware, root_path=context.settings.root_path),
            *_cross_origin(context.settings),
            Middleware(MetricsMiddleware, registry=registry),
            Middleware(RequestLogMiddleware),
            Middleware(
                AuthMiddleware,
                database=context.database,
                settings=context.settings,
                shared_limits=context.shared_limits,
            ),
            Middleware(JsonBodyMiddleware),
            Middleware(HeadMiddleware),
        ],
        exception_handlers={HTTPException: _handle_error, RequestValidationError: _handle_error},
    )
    app.state.context, app.state.registry = context, registry
    for resource in (
        jobs,
        job_actions,
        stream,
        plans,
        compare,
        exports,
        predictions,
        sweeps,
        datasets,
        detectors,
        checkpoints,
        recipes,
        keys,
        queue,
        workers,
        usage,
        clean,
        monitoring,
        audit,
        webhooks,
        health,
    ):
        app.include_router(resource.router, dependencies=[_bearer_scheme])
    app.include_router(swagger_page.router)
    app.include_router(web_page.router)
    app.mount(web_page.PREFIX, web_page.static_files())
    return app


def _cross_origin(settings: Settings) -> list[Middleware]:
    """Return the middleware that lets web pages of the allowed origins call the API; none by default."""
    if not settings.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
        )
    ]


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the required scopes and the error responses added."""
        if self.openapi_schema is None:
            openapi_document.complete_schema(super().openapi(), self.routes)
        return super().openapi()


async def _handle_error(request: Request, error: Exception) -> Response:
    body = getattr(request.scope.get("route"), "body_field", None)
    model = body.field_info.annotation if body else None
    response = errors.problem_response(error, request.state.request_id, model if isinstance(model, type) else None)
    if response.status_code == 405:
        response.headers["Allow"] = _allowed_methods(request)
    return response


def _allowed_methods(request: Request) -> str:
    """Return the methods of all routes of this path; Starlette lists only those of the first route."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    matches = (operations for path, operations in paths.items() if compile_path(path)[0].match(request.scope["path"]))
    methods = {method.upper() for operations in matches for method in operations} or {"GET"}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))
