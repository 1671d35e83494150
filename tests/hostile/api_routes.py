"""All routes of the app, read from its router, so that new routes are tested automatically."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from api.http import auth_middleware
from api.http.auth import Admin, MetricsReader, Reader, Submitter

SCOPES: dict[Any, str] = {
    get_args(scope)[1].dependency: name
    for scope, name in [(Reader, "read"), (Submitter, "submit"), (MetricsReader, "metrics"), (Admin, "admin")]
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    scopes: tuple[str, ...]
    """The scopes it declares: one, or none for a public route."""
    queries: tuple[str, ...]

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)(?::\w+)?}", self.path)

    def filled(self, value: Callable[[str], str]) -> str:
        return re.sub(r"{(\w+)(?::\w+)?}", lambda match: value(match[1]), self.path)


def walk(app: FastAPI) -> Iterator[Route]:
    """Yield every route and method of the app except HEAD."""
    for context in iter_route_contexts(app.routes):
        dependant = getattr(context, "dependant", None)
        calls = list(_calls(dependant)) if dependant else []
        scopes = tuple(dict.fromkeys(SCOPES[call] for call in calls if call in SCOPES))  # a scope may be declared twice
        queries = tuple(query.alias for query in dependant.query_params) if dependant else ()
        for method in sorted((context.methods or set()) - {"HEAD"}):
            yield Route(method, context.path, scopes, queries)


def closed(app: FastAPI) -> list[Route]:
    """Return the routes that need an API key."""
    return [route for route in walk(app) if route.path not in auth_middleware.PUBLIC_PATHS]


def _calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)
