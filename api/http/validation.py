"""Validation errors of pydantic as `FieldError`: field, code and message, without the input."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict

from frs.unknown_fields import describe_unknown_field

MAX_ERRORS = 50
"""Maximum number of errors in one response."""
_OBJECT_TYPES = ("model_type", "model_attributes_type", "dict_type")
_MAX_PATH = 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class FieldError(BaseModel):
    """One invalid field of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    loc: str
    """Dotted path of the field, such as `teacher.backbone.depth`; empty for the request as a whole."""
    code: str
    """Stable code for programs."""
    message: str
    """What is wrong with the field."""


def field_errors(error: RequestValidationError, model: type[BaseModel] | None) -> list[FieldError]:
    """Return the errors without duplicates, at most 50; missing fields come last. `model` is that of the body."""
    details = error.errors()[: 4 * MAX_ERRORS]
    unique = {
        (item.loc, item.message): item for item in (_field_error(detail, error.body, model) for detail in details)
    }
    return sorted(_without_union_noise(list(unique.values())), key=lambda item: item.code == "missing")[:MAX_ERRORS]


def _without_union_noise(errors: Sequence[FieldError]) -> list[FieldError]:
    """Drop the errors of union members that the client did not mean.

    Pydantic reports errors for every member of a union. The error with the deepest path belongs to the intended member.
    """
    parents = {error.loc.rpartition(".")[0] for error in errors if "." in error.loc}
    specific = {error.loc for error in errors if error.code != "extra_forbidden"}
    return [
        error
        for error in errors
        if error.loc not in parents and not (error.code == "extra_forbidden" and error.loc in specific)
    ]


def _field_error(detail: Any, body: Any, model: type[BaseModel] | None) -> FieldError:
    source, *path = detail["loc"]
    fields = _field_path(path, body, is_missing=detail["type"] == "missing") if source == "body" else path
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] in _OBJECT_TYPES:
        message = "Must be a JSON object."
    elif detail["type"] == "string_too_short" and detail["input"] == "":
        message = "Must not be empty."
    elif detail["type"] == "extra_forbidden" and model:
        message = describe_unknown_field(model, path)
    return FieldError(loc=".".join(map(_safe_name, fields)), code=detail["type"], message=message)


def _field_path(path: Sequence[str | int], value: Any, *, is_missing: bool) -> list[str | int]:
    """Return the keys and indices of `path` that exist in `value`, without pydantic's names of union members.

    An element that could be either is treated as the one that lets more of the path exist in `value`. Paths longer than
    any field's are returned as they are: the time doubles with each element.
    """
    if not path or len(path) > _MAX_PATH:
        return list(path)
    name, remainder = path[0], path[1:]
    if is_missing and not remainder:
        return [name]
    without_name = _field_path(remainder, value, is_missing=is_missing)
    if not _contains(value, name):
        return without_name
    with_name = [name, *_field_path(remainder, value[name], is_missing=is_missing)]
    return with_name if len(with_name) > len(without_name) else without_name


def _contains(value: Any, name: str | int) -> bool:
    if isinstance(value, dict):
        return name in value
    return isinstance(value, list) and isinstance(name, int) and 0 <= name < len(value)


def _safe_name(name: str | int) -> str:
    """Return the name, or `?` if it is not a plain one: the name of an unknown field comes from the request."""
    return str(name) if _PLAIN_NAME.fullmatch(str(name)) else "?"
