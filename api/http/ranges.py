"""The HTTP `Range` header. Multiple ranges are not supported: the response is then the whole file."""

from starlette.datastructures import Headers

from api.http.errors import ApiError

_HINT = "Request `bytes=FIRST-LAST` within the size of the file, or leave `Range` out."


def requested_range(headers: Headers, size: int, etag: str) -> tuple[int, int] | None:
    """Return the first byte and the byte after the last one; None for the whole file.

    Raises ApiError, 416, if the range is outside the file, and 400 if the header is malformed.
    """
    value = headers.get("range")
    if value is None or headers.get("if-range", etag) != etag:
        return None
    unit, _, ranges = value.partition("=")
    if unit.strip().lower() != "bytes" or "-" not in ranges:
        raise _malformed()
    return None if "," in ranges else _parse(ranges, size)


def _parse(text: str, size: int) -> tuple[int, int]:
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
            416,
            "invalid_range",
            f"The range is outside the file, which has {size} bytes.",
            _HINT,
            headers={"Content-Range": f"bytes */{size}"},
        )
    if start >= stop:
        raise _malformed()
    return start, stop


def _malformed() -> ApiError:
    return ApiError(400, "invalid_range", "The header `Range` is malformed.", _HINT)
