"""The base class of every part of a spec."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Spec(BaseModel):
    """Base class of every part of a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _reject_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject true and false for a number, which pydantic would convert to 1 and 0.

        Numeric text stays valid: YAML reads `1e-3` as text.
        """
        if any(isinstance(item, bool) for item in (value if isinstance(value, list) else [value])):
            types = list(_leaf_types(cls.model_fields[info.field_name or ""].annotation))
            if (int in types or float in types) and bool not in types:
                raise ValueError("must be a number, not true or false")
        return value


def _leaf_types(annotation: Any) -> Iterator[Any]:
    arguments = get_args(annotation)
    for argument in arguments:
        yield from _leaf_types(argument)
    if not arguments:
        yield annotation
