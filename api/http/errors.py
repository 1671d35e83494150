"""Error responses as `application/problem+json` (RFC 9457), without tracebacks, paths, SQL or input values."""

import errno
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.http.validation import FieldError, field_errors
from frs.errors import FrsError
from store.errors import ActionNotAllowed, ArtifactsUnavailable

STATUS_OF_CODE = {
    "storage_full": 507,
    "action_not_allowed": 409,
    "already_created": 409,
    "artifact_not_found": 404,
    "artifact_corrupt": 500,
    "database_not_ready": 503,
    "dataset_not_found": 404,
    "invalid_artifact_key": 404,
    "job_in_use": 409,
    "job_not_found": 404,
    "last_admin_key": 409,
    "sweep_action_not_allowed": 409,
    "sweep_not_found": 404,
    "too_many_webhooks": 409,
}
"""HTTP status by error code; errors that are not listed are 422."""
CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}
_RETRY_AFTER = {"Retry-After": "2"}
_log = logging.getLogger(__name__)


class ProblemDetails(BaseModel):
    """Body of every response with a status of 400 or more."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = "about:blank"
    """Problem type of RFC 9457; `code` identifies the problem."""
    title: str
    """Reason phrase of the HTTP status."""
    status: int
    """HTTP status code."""
    detail: str
    """What is wrong."""
    code: str
    """Stable error code for programs."""
    hint: str
    """What to do next."""
    errors: list[FieldError]
    """The invalid fields of the request, if any."""
    request_id: str
    """Id of the request, also in the header `X-Request-Id` and in the log."""
    allowed_actions: list[str] | None = None
    """Actions that the job allows in its present status; only for the code `action_not_allowed`."""


class ApiError(Exception):
    """An error response, with a status of 400 or more."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        allowed_actions: Sequence[str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.hint = status, code, detail, hint
        self.errors, self.headers, self.allowed_actions = list(errors), dict(headers or {}), allowed_actions


class NotFoundError(ApiError):
    """A resource that does not exist or that the caller may not see (404)."""

    def __init__(self, code: str, detail: str, hint: str) -> None:
        super().__init__(404, code, detail, hint)


class InvalidField(ApiError):
    """A field of the request that refers to a missing or unsuitable resource (422)."""

    def __init__(self, loc: str, code: str, detail: str, hint: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(422, code, detail, hint, errors=errors or [FieldError(loc=loc, code=code, message=detail)])


def problem_response(error: Exception, request_id: str, body_model: type[BaseModel] | None = None) -> Response:
    """Return the problem document of an exception; server errors are logged with their traceback.

    `body_model` is the model of the request's body; its fields are suggested for unknown ones.
    """
    api_error = _to_api_error(error, body_model)
    if api_error.status >= 500:
        _log.error("%s: %s", api_error.code, type(error).__name__, exc_info=error, extra={"request_id": request_id})
    problem = ProblemDetails(
        title=HTTPStatus(api_error.status).phrase,
        status=api_error.status,
        detail=api_error.detail,
        code=api_error.code,
        hint=api_error.hint,
        errors=api_error.errors,
        request_id=request_id,
        allowed_actions=None if api_error.allowed_actions is None else list(api_error.allowed_actions),
    )
    body = problem.model_dump_json(exclude={"allowed_actions"} if problem.allowed_actions is None else None)
    return Response(body, api_error.status, api_error.headers, "application/problem+json")


def _to_api_error(error: Exception, body_model: type[BaseModel] | None) -> ApiError:
    match error:
        case ApiError():
            return error
        case ActionNotAllowed():
            return ApiError(409, error.code, error.message, error.hint, allowed_actions=error.allowed_actions)
        case FrsError():
            return ApiError(STATUS_OF_CODE.get(error.code, 422), error.code, error.message, error.hint)
        case RequestValidationError():
            return _invalid_request(error, body_model)
        case HTTPException():
            return _from_http_exception(error)
        case PoolTimeout():
            return ApiError(
                503,
                "busy",
                "Too many requests at once.",
                "Try again in 2 seconds.",
                headers=_RETRY_AFTER,
            )
        case DBAPIError() | OSError():
            return _from_storage_error(error)
        case _:
            return _internal()


def _invalid_request(error: RequestValidationError, body_model: type[BaseModel] | None) -> ApiError:
    if any(detail["loc"][0] == "path" for detail in error.errors()):
        return NotFoundError("not_found", "There is no resource under this path.", "See /docs for the paths.")
    errors = field_errors(error, body_model)
    first = errors[0]
    detail = f"{first.loc}: {first.message}" if first.loc else first.message
    return ApiError(422, "invalid_request", detail, "See /docs for the fields and their values.", errors=errors)


def _from_http_exception(error: HTTPException) -> ApiError:
    code = CODE_OF_STATUS.get(error.status_code, "bad_request")
    detail = HTTPStatus(error.status_code).description or HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, code, f"{detail}.", "See /docs for the paths.", headers=error.headers)


def _from_storage_error(error: DBAPIError | OSError) -> ApiError:
    if _is_full(error):
        return ApiError(507, "storage_full", "The storage is full.", "Free disk space, then try again.")
    match error:
        case ArtifactsUnavailable():
            detail = "The artifact storage does not respond."
            return ApiError(503, "storage_unavailable", detail, "Try again in 2 seconds.", headers=_RETRY_AFTER)
        case DataError():
            detail = "The database cannot store a value of the request."
            return ApiError(422, "invalid_request", detail, "See /docs for the fields and their values.")
        case IntegrityError():
            hint = "Look at the resources that the request refers to, then try again."
            return ApiError(409, "conflict", "A resource that the request refers to has changed meanwhile.", hint)
        case OperationalError() | InterfaceError():
            hint = "Try again in 2 seconds; see /health/ready."
            return ApiError(503, "database_unavailable", "The database does not respond.", hint, headers=_RETRY_AFTER)
        case _:
            return _internal()


def _is_full(error: DBAPIError | OSError) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return (
        getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(cause, "sqlstate", None) == "53100"
    )


def _internal() -> ApiError:
    hint = "Try again. If the error persists, report it with its request_id, which is also in the log."
    return ApiError(500, "internal_error", "An internal error occurred.", hint)
