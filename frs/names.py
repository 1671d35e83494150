"""Names that users choose: printable characters of any script, in Unicode's normal form C."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

MAX_LENGTH, MAX_BYTES = 100, 200
"""Longest name in characters, and in bytes as UTF-8: with the suffixes of its files it is a valid file name."""
_ASCII = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ._@-")
_NOT_FIRST = frozenset(" ._@-")
_JOINERS = "\u200c\u200d"
"""Invisible characters that Persian, Indic scripts and emoji need between two others."""
_PATTERN = r"^[^\u0000-/:-@\[-`{-\u00a0][^\u0000-\u001f!-,/:-?\[-\^`{-\u00a0]*$"


def normalise(name: str) -> str:
    """Return the name in normal form C.

    Raises ValueError for control and invisible characters (bidirectional overrides among them), for ASCII other than
    letters, digits and ` ._@-`, and for a name that is too long or begins with punctuation or a combining mark.
    """
    name = unicodedata.normalize("NFC", name)
    if len(name) > MAX_LENGTH or len(name.encode(errors="surrogatepass")) > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_LENGTH} characters, and at most {MAX_BYTES} bytes in UTF-8")
    if not all(_is_allowed(name, position) for position in range(len(name))):
        raise ValueError("may contain printable characters of any script; of ASCII, letters, digits and ` ._@-`")
    if not name or name[0] in _NOT_FIRST or unicodedata.category(name[0]).startswith("M"):
        raise ValueError("must begin with a letter, a digit or a symbol")
    return name


def add_suffix(name: str, suffix: str) -> str:
    """Return name and suffix, with the name shortened so that the result is not too long."""
    while len(name + suffix) > MAX_LENGTH or len((name + suffix).encode()) > MAX_BYTES:
        name = name[:-1]
    return name + suffix


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LENGTH),
    AfterValidator(normalise),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": _PATTERN}),
]
"""A name of a data set, detector, job or key."""
OwnerName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
"""A name of an owner."""


def _is_allowed(name: str, position: int) -> bool:
    character = name[position]
    if character in _JOINERS:
        return 0 < position < len(name) - 1 and not name[position - 1].isascii()
    return character in _ASCII if character.isascii() else character.isprintable()
