"""The web service: routes, gate, problem documents. `create_app()` needs a database that `store init` has made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio import to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import compile_path

from api.checkpoints import endpoints as checkpoints
from api.compare import endpoints as compare
from api.context import open_context
from api.datasets import checks
from api.datasets import endpoints as datasets
from api.detectors import endpoints as detectors
from api.health import endpoints as health
from api.http import errors
from api.http import openapi as openapi_document
from api.http.auth_middleware import AuthMiddleware
from api.http.json_body import JsonBodyMiddleware
from api.http.request_log import RequestLogMiddleware
from api.jobs import actions as job_actions
from api.jobs import endpoints as jobs
from api.jobs import stream
from api.keys import endpoints as keys
from api.monitoring import collector
from api.monitoring import endpoints as monitoring
from api.monitoring.middleware import MetricsMiddleware
from api.plans import endpoints as plans
from api.queue import endpoints as queue
from api.recipes import endpoints as recipes
from api.workers import endpoints as workers
from store.artifacts import local_files
from store.settings import Settings

_THREADS = 200
"""For requests. Many more than connections, so that whoever finds none free is told so after the pool's time limit,
instead of waiting unheard for a thread."""
_documents_the_key = Depends(
    HTTPBearer(auto_error=False, description="An API key. Checked by `api.http.auth_middleware`.")
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Raises DatabaseNotReady."""
    context = open_context(settings or Settings())
    registry = collector.registry_of(context)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        local_files.remove_stale(context.settings.uploads_root)
        checks.resume(context.database, context.settings)
        streaming = asyncio.create_task(context.streams.run())
        yield
        streaming.cancel()
        context.close()

    app = _Service(
        title="Feature-Richness distillation",
        version=version("frs"),
        summary="Train a small detector under a large one, with the proof that it helped.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={"default": openapi_document.PROBLEM},
        middleware=[
            Middleware(MetricsMiddleware, registry=registry),
            Middleware(RequestLogMiddleware),
            Middleware(AuthMiddleware, database=context.database, settings=context.settings),
            Middleware(JsonBodyMiddleware),
        ],
        exception_handlers={HTTPException: _answer_problem, RequestValidationError: _answer_problem},
    )
    app.state.context, app.state.registry = context, registry
    for resource in (
        jobs,
        job_actions,
        stream,
        plans,
        compare,
        datasets,
        detectors,
        checkpoints,
        recipes,
        keys,
        queue,
        workers,
        monitoring,
        health,
    ):
        app.include_router(resource.router, dependencies=[_documents_the_key])
    return app


class _Service(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            openapi_document.complete(super().openapi(), self.routes)
        return super().openapi()


async def _answer_problem(request: Request, error: Exception) -> Response:
    response = errors.problem_response(error, request.state.request_id)
    if response.status_code == 405:
        response.headers["Allow"] = _allowed_methods(request)
    return response


def _allowed_methods(request: Request) -> str:
    """Of all routes of this path: the framework names only the first one's."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    here = (methods for path, methods in paths.items() if compile_path(path)[0].match(request.scope["path"]))
    methods = {method.upper() for operations in here for method in operations} or {"GET", "HEAD"}
    return ", ".join(sorted(methods))
