"""What a field of someone else's JSON has to be before it is used."""

import math
import unicodedata
from typing import Any, TypeGuard


def is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def is_finite(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 1 << 63)


def is_text(value: Any, length: int) -> bool:
    """Text fit for names of classes and files: not blank, no control characters, no lone surrogates."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= length
        and not value.isspace()
        and (value.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs") for c in value))
    )
