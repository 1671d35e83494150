"""Errors of the client: what failed, where, and the next step."""

from typing import Any

from frs_client.models import FieldError


class ServiceError(Exception):
    """A request that failed; every error of this package is one.

    `hint` names the next step; `details` has one line per invalid field.
    """

    def __init__(self, message: str, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.hint, self.details = message, hint, details

    def __str__(self) -> str:
        return "\n".join(line for line in (self.message, *self.details, self.hint) if line)


class NoAnswer(ServiceError):
    """A request without an answer of the service, which may or may not have carried it out."""


class ApiError(ServiceError):
    """An error that the service returned (RFC 9457). `docs/errors.md` lists the codes.

    `code` is stable and for programs, `status` the HTTP status, `request_id` the request's id in the service's log.
    """

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        """Read the body of a response.

        Raises ValueError, KeyError, TypeError or AttributeError if it is not the service's.
        """
        self.status: int = status
        self.code: str = body["code"]
        self.detail: str = body["detail"]
        self.errors: tuple[FieldError, ...] = tuple(map(FieldError.model_validate, body.get("errors") or ()))
        self.request_id: str | None = body.get("request_id")
        self.allowed_actions: tuple[str, ...] = tuple(body.get("allowed_actions") or ())
        """Actions that the job allows in its present status; only for the code `action_not_allowed`."""
        fields = [f"{error.loc}: {error.message}".removeprefix(": ") for error in self.errors]
        if fields and self.detail in fields[0]:  # the detail repeats the first field
            detail, *details = fields
        else:
            detail, details = self.detail, fields
        super().__init__(f"{self.code}: {detail}", body.get("hint") or "", tuple(details))
