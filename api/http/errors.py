"""Everything that goes wrong, as `application/problem+json` (RFC 9457). Never a traceback, a path, SQL or the input."""

import errno
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.http.validation import FieldError, field_errors
from frs.errors import FrsError
from store.errors import ActionNotAllowed, ArtifactsUnavailable

STATUS_OF_CODE = {
    "action_not_allowed": 409,
    "artifact_not_found": 404,
    "artifact_corrupt": 500,
    "database_not_ready": 503,
    "dataset_not_found": 404,
    "invalid_artifact_key": 404,
    "job_in_use": 409,
    "job_not_found": 404,
    "last_admin_key": 409,
}
"""Of errors that are not about the request's content, which is 422."""
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}
_RETRY = {"Retry-After": "2"}
_log = logging.getLogger(__name__)


class ProblemDetails(BaseModel):
    """What every answer from 400 on looks like."""

    type: str = "about:blank"
    title: str
    """The status in words."""
    status: int
    detail: str
    """What happened."""
    code: str
    """Stable: for programs."""
    hint: str
    """What to do next."""
    errors: list[FieldError]
    """Field by field, where the request's content is at fault."""
    request_id: str
    """Also in the header `X-Request-Id` and in the log."""
    allowed_actions: list[str] | None = None
    """What the job can take now, where it could not take this."""


class ApiError(Exception):
    """An answer of 400 or more."""

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
    def __init__(self, code: str, detail: str, hint: str) -> None:
        super().__init__(404, code, detail, hint)


class InvalidField(ApiError):
    """A field that names something that is not there, or that does not fit."""

    def __init__(self, loc: str, code: str, detail: str, hint: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(422, code, detail, hint, errors=errors or [FieldError(loc=loc, code=code, message=detail)])


def problem_response(error: Exception, request_id: str) -> Response:
    """The problem document for any exception; those that are our fault are logged with their traceback."""
    refusal = _to_api_error(error)
    if refusal.status >= 500:
        _log.error("%s: %s", refusal.code, type(error).__name__, exc_info=error, extra={"request_id": request_id})
    problem = ProblemDetails(
        title=HTTPStatus(refusal.status).phrase,
        status=refusal.status,
        detail=refusal.detail,
        code=refusal.code,
        hint=refusal.hint,
        errors=refusal.errors,
        request_id=request_id,
        allowed_actions=None if refusal.allowed_actions is None else list(refusal.allowed_actions),
    )
    body = problem.model_dump_json(exclude={"allowed_actions"} if problem.allowed_actions is None else None)
    return Response(body, refusal.status, refusal.headers, "application/problem+json")


def _to_api_error(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case ActionNotAllowed():
            return ApiError(409, error.code, error.message, error.hint, allowed_actions=error.allowed_actions)
        case FrsError():
            return ApiError(STATUS_OF_CODE.get(error.code, 422), error.code, error.message, error.hint)
        case RequestValidationError():
            return _invalid_request(error)
        case HTTPException():
            return _of_the_framework(error)
        case PoolTimeout():
            return ApiError(503, "busy", "Too many requests at once.", "Try again in 2 seconds.", headers=_RETRY)
        case DBAPIError() | OSError():
            return _of_storage(error)
        case _:
            return _internal()


def _invalid_request(error: RequestValidationError) -> ApiError:
    if any(fault["loc"][0] == "path" for fault in error.errors()):
        return NotFoundError("not_found", "There is nothing under this path.", "See /docs for the paths.")
    faults = field_errors(error)
    first = faults[0]
    detail = f"{first.loc}: {first.message}" if first.loc else first.message
    return ApiError(422, "invalid_request", detail, "See /docs for the fields and what they take.", errors=faults)


def _of_the_framework(error: HTTPException) -> ApiError:
    code = _CODE_OF_STATUS.get(error.status_code, "bad_request")
    detail = HTTPStatus(error.status_code).description or HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, code, f"{detail}.", "See /docs for the paths.", headers=error.headers)


def _of_storage(error: DBAPIError | OSError) -> ApiError:
    if _is_full(error):
        return ApiError(507, "storage_full", "There is no space left to store this.", "Free space, then try again.")
    match error:
        case ArtifactsUnavailable():
            detail = "The store of artifacts does not answer."
            return ApiError(503, "storage_unavailable", detail, "Try again in 2 seconds.", headers=_RETRY)
        case DataError():
            return ApiError(422, "invalid_request", "A value cannot be stored.", "See /docs for what fields take.")
        case IntegrityError():
            hint = "Look at what the request refers to, then try again."
            return ApiError(409, "conflict", "What the request refers to has changed meanwhile.", hint)
        case OperationalError() | InterfaceError():
            hint = "Try again in 2 seconds; see /health/ready."
            return ApiError(503, "database_unavailable", "The database does not answer.", hint, headers=_RETRY)
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
    hint = "Try again; if it stays, report it with the request_id, under which the log says more."
    return ApiError(500, "internal_error", "This should not have happened.", hint)
