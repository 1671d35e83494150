"""The OpenAPI document, completed: what each operation needs of a key, and every problem it can answer."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, get_args

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from api.http.auth import Admin, Reader, Submitter
from api.http.auth_middleware import PUBLIC_PATHS
from api.http.errors import ProblemDetails
from store.db.api_keys import Scope

PROBLEM = {
    "description": "A problem: what happened, under a stable code, and what to do next.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
STATUS_DESCRIPTIONS = {
    400: "The request cannot be read, or the host name is not this service's.",
    401: "No key, or one that is unknown, has expired or was revoked.",
    403: "The key has not the scope that this needs.",
    404: "There is nothing under this path, or it is somebody else's.",
    408: "The body did not come in time.",
    409: "What is there does not allow it now.",
    413: "The body is too large.",
    415: "The body is not of a type that this takes.",
    416: "The file has no such range.",
    422: "The request does not fit; `errors` says where.",
    429: "Too often or too many; `Retry-After` says when it may be tried again.",
    500: "A fault of the service; the log says more under the `request_id`.",
    503: "The service or its database is busy or not there; try again.",
    507: "There is no space left to store this.",
}
_SCOPES = {
    get_args(dependency)[1].dependency: scope
    for dependency, scope in [(Reader, Scope.READ), (Submitter, Scope.SUBMIT), (Admin, Scope.ADMIN)]
}
_READING = ("get", "head")


def problem(status: int) -> dict[str, Any]:
    """For `responses=` of an endpoint that can answer more than `complete` knows of."""
    return PROBLEM | {"description": STATUS_DESCRIPTIONS[status]}


def complete(schema: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """In place; what an endpoint declares itself stays."""
    shape = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["components"]["schemas"] |= shape.pop("$defs") | {"ProblemDetails": shape}
    schema["components"]["responses"] = {_name(status): problem(status) for status in STATUS_DESCRIPTIONS}
    scopes = dict(_scopes(routes))
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method, path, scopes.get((method, path)))


def _complete(operation: dict[str, Any], method: str, path: str, scope: Scope | None) -> None:
    answers = operation["responses"]
    answers.pop("default", None)
    for status in _problems(operation, method, path, scope):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/{_name(status)}"})
    if path in PUBLIC_PATHS:
        operation["security"] = []
    elif scope:
        needed = f"Needs a key with the scope `{scope}`."
        operation["description"] = "\n\n".join(filter(None, [operation.get("description"), needed]))


def _problems(operation: dict[str, Any], method: str, path: str, scope: Scope | None) -> Iterator[int]:
    yield from (400, 500, 503)
    if path not in PUBLIC_PATHS:
        yield from (401, 429)
    if scope and scope is not Scope.READ:
        yield 403
    if "{" in path:
        yield 404
    if "requestBody" in operation or any(it["in"] != "path" for it in operation.get("parameters", ())):
        yield 422
    if "application/json" not in operation.get("requestBody", {}).get("content", {"application/json": None}):
        yield 408
    if method not in _READING:
        yield from (409, 413, 415, 507)


def _scopes(routes: Sequence[BaseRoute]) -> Iterator[tuple[tuple[str, str], Scope]]:
    """By method and path of the document."""
    for context in iter_route_contexts(routes):
        for call in _calls(getattr(context, "dependant", None)):
            for method in context.methods or () if call in _SCOPES else ():
                yield (method.lower(), str(context.path_format)), _SCOPES[call]


def _calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies if dependant else ():
        yield dependency.call
        yield from _calls(dependency)


def _name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")
