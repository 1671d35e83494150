"""The message of a field that a spec does not have: the nearest field, or all fields at its place."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

_MAX_LENGTH = 100


def describe_unknown_field(root: type[BaseModel], path: Sequence[str | int]) -> str:
    """Return the message for the unknown field at the end of `path`, the `loc` of pydantic's error in `root`."""
    models = [root]
    for name in path[:-1]:
        owners = [model for model in models if name in model.model_fields]
        nested = [inner for model in owners for inner in _models(model.model_fields[str(name)].annotation)]
        tagged = [model for model in models if model.__name__ == name]
        models = nested or owners or tagged or models  # the tag of a union is a field or the name of its member
    fields = list(dict.fromkeys(field for model in models for field in model.model_fields))
    nearest = _nearest(str(path[-1]), fields)
    return f"Unknown field: did you mean `{nearest}`?" if nearest else f"Unknown field: not one of {', '.join(fields)}."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _nearest(name: str, fields: Sequence[str]) -> str | None:
    """Return the most similar field, regardless of case, hyphens and underscores; None if all differ too much."""
    by_plain_name = {_plain(field): field for field in fields}
    matches = difflib.get_close_matches(_plain(name[:_MAX_LENGTH]), by_plain_name, n=1)
    return by_plain_name[matches[0]] if matches else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
