"""pydantic's findings in our words: which field, what is wrong with it, nothing of the input repeated."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

MOST = 50
"""Faults told in one answer."""
_AN_OBJECT = ("model_type", "model_attributes_type", "dict_type")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class FieldError(BaseModel):
    loc: str
    """Dotted path of the field, such as `teacher.backbone.depth`; empty for the request as a whole."""
    code: str
    message: str


def field_errors(error: RequestValidationError) -> list[FieldError]:
    """Each once, the most telling first."""
    first = error.errors()[: 4 * MOST]
    faults = {(fault.loc, fault.message): fault for fault in (_fault(found, error.body) for found in first)}
    return sorted(_without_echoes(list(faults.values())), key=lambda fault: fault.code == "missing")[:MOST]


def _without_echoes(faults: Sequence[FieldError]) -> list[FieldError]:
    """Of a union, pydantic tells what speaks against each part: what goes deepest is about the part that was meant."""
    deeper = {fault.loc.rpartition(".")[0] for fault in faults if "." in fault.loc}
    known = {fault.loc for fault in faults if fault.code != "extra_forbidden"}
    return [
        fault
        for fault in faults
        if fault.loc not in deeper and not (fault.code == "extra_forbidden" and fault.loc in known)
    ]


def _fault(found: Any, body: Any) -> FieldError:
    where, *path = found["loc"]
    fields = _fields(path, body, is_missing=found["type"] == "missing") if where == "body" else path
    message = "Must be a JSON object." if found["type"] in _AN_OBJECT else found["msg"].removeprefix("Value error, ")
    return FieldError(loc=".".join(map(_shown, fields)), code=found["type"], message=message)


def _fields(path: Sequence[str | int], value: Any, *, is_missing: bool) -> list[str | int]:
    """The keys and indices of `path` that lead through `value`; the others are pydantic's names for parts of a union.

    One that could be either is what lets more of the path lead somewhere.
    """
    if not path:
        return []
    step, rest = path[0], path[1:]
    if is_missing and not rest:
        return [step]
    without = _fields(rest, value, is_missing=is_missing)
    if not _leads(step, value):
        return without
    along = [step, *_fields(rest, value[step], is_missing=is_missing)]
    return along if len(along) > len(without) else without


def _leads(step: str | int, value: Any) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)


def _shown(step: str | int) -> str:
    """A field nobody knows is named by the request; only a plain name is repeated."""
    return str(step) if _PLAIN.fullmatch(str(step)) else "?"
