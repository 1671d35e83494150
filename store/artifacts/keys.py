"""Under which keys artifacts may be kept."""

import re

from store.errors import InvalidKey

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_NAME}(/{_NAME})+")


def is_valid(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def check(key: str) -> None:
    """Raises InvalidKey."""
    if not is_valid(key):
        raise InvalidKey("An artifact's key is folders and a name, without dots in front, links or spaces.")
