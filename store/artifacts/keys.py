"""Validation of artifact keys."""

import re

from store.errors import InvalidKey

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_NAME}(/{_NAME})+")


def is_valid(key: str) -> bool:
    """Return whether the key is one or more folders and a name, without leading dots, spaces or special characters."""
    return _KEY.fullmatch(key) is not None


def check(key: str) -> None:
    """Raise InvalidKey unless the key is valid."""
    if not is_valid(key):
        raise InvalidKey(
            "An artifact key consists of folders and a name separated by `/`: letters, digits, `_`, `-` and inner dots."
        )
