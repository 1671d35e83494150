"""Additions to the OpenAPI document: the scope that each operation requires, and the errors that it can return."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, get_args

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from api.http.auth import Admin, MetricsReader, Reader, Submitter
from api.http.auth_middleware import PUBLIC_PATHS
from api.http.errors import ProblemDetails
from store.states import Scope

PROBLEM = {
    "description": "An error: what is wrong, a stable code, and what to do next.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
STATUS_DESCRIPTIONS = {
    400: "The request is malformed, or its host name is not allowed.",
    401: "The API key is missing or unknown, has expired or was revoked.",
    403: "The API key lacks the required scope.",
    404: "The resource does not exist, or it belongs to another owner.",
    408: "The body did not arrive in time.",
    409: "The present state of the resource does not allow the request.",
    413: "The body is too large.",
    415: "The content type of the body is not supported.",
    416: "The range is outside the file.",
    422: "The request is invalid; `errors` lists the fields.",
    429: "A rate limit or a quota is exceeded; `Retry-After`, if present, is the time to wait in seconds.",
    500: "Internal error; the log has the details under the `request_id`.",
    503: "The service, its database or its storage is busy or unavailable; try again.",
    507: "The storage is full.",
}
_SCOPES = {
    get_args(dependency)[1].dependency: scope
    for dependency, scope in [
        (Reader, Scope.READ),
        (Submitter, Scope.SUBMIT),
        (MetricsReader, Scope.METRICS),
        (Admin, Scope.ADMIN),
    ]
}
_SAFE_METHODS = ("get", "head")


def problem_schema(status: int) -> dict[str, Any]:
    """Return an entry for `responses=` of an endpoint with an error status that `complete_schema` does not add."""
    return PROBLEM | {"description": STATUS_DESCRIPTIONS[status]}


def complete_schema(schema: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Add scopes and error responses to the document in place; responses that an endpoint declares are kept."""
    problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["components"]["schemas"] |= problem.pop("$defs") | {"ProblemDetails": problem}
    schema["components"]["responses"] = {_name(status): problem_schema(status) for status in STATUS_DESCRIPTIONS}
    scopes = dict(_scopes(routes))
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete_operation(operation, method, path, scopes.get((method, path)))


def _complete_operation(operation: dict[str, Any], method: str, path: str, scope: Scope | None) -> None:
    responses = operation["responses"]
    responses.pop("default", None)
    for status in _error_statuses(operation, method, path, scope):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{_name(status)}"})
    if path in PUBLIC_PATHS:
        operation["security"] = []
    elif scope:
        requirement = f"Requires a key with the scope `{scope}`."
        operation["description"] = "\n\n".join(filter(None, [operation.get("description"), requirement]))


def _error_statuses(operation: dict[str, Any], method: str, path: str, scope: Scope | None) -> Iterator[int]:
    yield from (400, 500, 503)
    if path not in PUBLIC_PATHS:
        yield from (401, 429)
    if scope:
        yield 403
    if "{" in path:
        yield 404
    if "requestBody" in operation or any(parameter["in"] != "path" for parameter in operation.get("parameters", ())):
        yield 422
    if "application/json" not in operation.get("requestBody", {}).get("content", {"application/json": None}):
        yield 408
    if method not in _SAFE_METHODS:
        yield from (409, 413, 415, 507)


def _scopes(routes: Sequence[BaseRoute]) -> Iterator[tuple[tuple[str, str], Scope]]:
    """Yield the method and path in the document of each protected operation, with its scope."""
    for context in iter_route_contexts(routes):
        for call in _calls(getattr(context, "dependant", None)):
            for method in context.methods or () if call in _SCOPES else ():
                yield (method.lower(), str(context.path_format)), _SCOPES[call]


def _calls(dependant: Any) -> Iterator[Any]:
    """Yield the functions of all dependencies, including nested ones."""
    for dependency in dependant.dependencies if dependant else ():
        yield dependency.call
        yield from _calls(dependency)


def _name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")
