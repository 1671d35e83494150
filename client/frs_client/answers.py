"""Read the service's answers: JSON, typed models, errors, and answers that are not the service's."""

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from frs_client import connection
from frs_client.base import Model
from frs_client.errors import ApiError, NoAnswer, ServiceError

Json = dict[str, Any]
M = TypeVar("M", bound=BaseModel)
GATEWAY_ERRORS = (502, 503, 504)
"""Statuses of a proxy that received no answer from the service."""


class Page(Model):
    """A page of a list."""

    data: list[Json]
    next_cursor: str | None = None


def read_json(response: httpx2.Response) -> Json:
    """Return the JSON body, `{}` if it is empty. Raises ServiceError if the answer is an error or not the service's."""
    if not response.is_success:
        raise error_of(response)
    try:
        body: Json = response.json() if response.content else {}
    except ValueError:
        raise error_of(response) from None
    if not isinstance(body, dict):
        raise error_of(response)
    return body


def parse(model: type[M], body: Json) -> M:
    """Return the body as a model. Raises ServiceError if it does not fit: a service of another version."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ServiceError(
            f"The service's answer is not a {model.__name__} as this version of frs-client knows it: "
            f"{where}: {problem['msg']}.",
            "Install the frs-client of the service's version; `client.version()` returns it.",
        ) from None


def body_of(value: BaseModel | Mapping[str, Any]) -> Json:
    """Return the JSON body for a request: of a model, only the fields that were set; the service knows the defaults."""
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else dict(value)


def error_of(response: httpx2.Response) -> ServiceError:
    """Return the error for an answer whose body has been read: the service's, or that of another program."""
    try:
        return ApiError(response.status_code, response.json())
    except (ValueError, KeyError, TypeError, AttributeError):
        return _foreign_answer(response)


def _foreign_answer(response: httpx2.Response) -> ServiceError:
    """Return the error for an answer that is not the service's: of a proxy, a sign-in page, another program."""
    url, status = connection.printable(response.url), response.status_code
    hint = "Set FRS_URL to the address of the service itself, with the prefix of a proxy before it if there is one."
    if response.has_redirect_location:
        target = connection.printable(response.url.join(response.headers["Location"]))
        return ServiceError(f"{url} redirects to {target} (HTTP {status}).", hint)
    if status in GATEWAY_ERRORS:
        return NoAnswer(f"A proxy before the service answered HTTP {status} for {url}.", "Try again later.")
    media_type = response.headers.get("Content-Type", "no content type")
    return ServiceError(f"{url} answered HTTP {status} with {media_type}: not an answer of the service.", hint)
