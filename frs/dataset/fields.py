"""Validation of single fields in untrusted JSON."""

import math
import unicodedata
from typing import Any, TypeGuard


def is_id(value: Any) -> TypeGuard[int]:
    """Return whether `value` is an integer that fits into 64 bits; a bool is not one."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


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
