"""Validation of single fields in untrusted JSON."""

import math
import unicodedata
from collections.abc import Container, Iterable
from typing import Any

Id = int | str
"""Id of an image, box or category in an annotation file."""
_EXACT = 1 << 53
"""Integers below this magnitude survive a conversion to a float."""


def read_id(value: Any) -> Id | None:
    """Return an id: an integer of at most 64 bits, also if written as 3.0, or a text of 1 to 200 characters.

    None for any other value; a bool is not an id.
    """
    if is_text(value, 200):
        return str(value)
    number = int(value) if type(value) is float and value.is_integer() else value
    return number if type(number) is int and -(1 << 63) <= number < 1 << 64 else None


def match_id(value: Id | None, ids: Container[Id | None]) -> Id | None:
    """Return the listed id that a reference means: the same one, otherwise the same number as text or as integer.

    None if neither is listed. Some tools write `"1"` in one place and `1` in another.
    """
    if value is None or value in ids:
        return value
    other: Id | None = str(value) if isinstance(value, int) else int(value) if value.isdecimal() else None
    return other if other is not None and other in ids else None


def number_ids(ids: Iterable[Id | None]) -> dict[Id, int]:
    """Return a number for each id, below 2**53 in magnitude: the id itself if all ids of the file are such numbers.

    Otherwise the position of its first occurrence, from 1.
    """
    positions: dict[Id, int] = {}
    for position, value in enumerate(ids, 1):
        if value is not None:
            positions.setdefault(value, position)
    if all(isinstance(value, int) and abs(value) < _EXACT for value in positions):
        return {value: int(value) for value in positions}
    return positions


def read_size(value: Any) -> int | None:
    """Return a width or height in pixels, from 1 to 2**31 - 1, also if written as 96.0; None for any other value."""
    number = int(value) if type(value) is float and value.is_integer() else value
    return number if type(number) is int and 0 < number < 1 << 31 else None


def is_finite(value: Any) -> bool:
    """Return whether `value` is a finite float, or an integer of less than 2**63 in magnitude."""
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 1 << 63)


def is_text(value: Any, length: int) -> bool:
    """Return whether `value` is a valid class or file name of at most `length` characters.

    Blank text, control characters and lone surrogates are not valid.
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= length
        and not value.isspace()
        and (value.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs") for c in value))
    )
