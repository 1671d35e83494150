"""The part of a file that a request asks for. Of several ranges at once none is heeded: the answer is the whole file."""

from starlette.datastructures import Headers

from api.http.errors import ApiError

_HINT = "Ask for `bytes=FIRST-LAST` inside the file, or without `Range`."


def requested_range(headers: Headers, size: int, etag: str) -> tuple[int, int] | None:
    """From its first byte to behind its last; None: the whole. Raises ApiError for a range that the file has not."""
    wanted = headers.get("range")
    if wanted is None or headers.get("if-range", etag) != etag:
        return None
    unit, _, ranges = wanted.partition("=")
    if unit.strip().lower() != "bytes" or "-" not in ranges:
        raise _malformed()
    return None if "," in ranges else _part(ranges, size)


def _part(text: str, size: int) -> tuple[int, int]:
    first, _, last = (word.strip() for word in text.partition("-"))
    if not all(word.isascii() and word.isdecimal() and len(word) < 20 for word in (first, last) if word):
        raise _malformed()
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        raise _malformed()
    if start >= size:
        raise ApiError(
            416, "invalid_range", "The file has no such range.", _HINT, headers={"Content-Range": f"bytes */{size}"}
        )
    if start >= stop:
        raise _malformed()
    return start, stop


def _malformed() -> ApiError:
    return ApiError(400, "invalid_range", "The file has no such range.", _HINT)
