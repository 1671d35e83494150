"""Paths and parameters of requests, and which requests may be repeated."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx2

from frs_client.errors import ServiceError

NOT_FOUND, TOO_MANY, NOT_NOW = 404, 429, 503
NOT_IN_PATHS = ("", ".", "..")
"""Texts that no path has as a segment: clients and proxies resolve them."""
PAGE_ROWS = 200
"""Rows of a page, the most that the service returns."""
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
"""A request that is refused for now is repeated after `Retry-After`, for the second of these times in total."""
Progress = Callable[[int, int], None]
"""Called with the number of bytes sent and the total number of bytes."""
_WITH_IDEMPOTENCY_KEY = re.compile(r"/jobs(/[^/]+/exports)?|/sweeps|/webhooks|/api-keys(/[^/]+/rotate)?")
"""Paths of the POST requests for which the service supports `Idempotency-Key`."""


def path_of(*parts: str) -> str:
    """Return the path of a resource; ids and names are quoted. Raises ServiceError for one that no path can contain."""
    for part in parts:
        if part in NOT_IN_PATHS:
            raise ServiceError(f"`{part}` is not an id or a name.", "Give those of something that a list shows.")
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def time_text(moment: datetime | None) -> str | None:
    """Return a time as the service reads it; one without a zone is local."""
    return None if moment is None else moment.astimezone().isoformat()


def given(query: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not None."""
    return {name: value for name, value in query.items() if value is not None}


def no_progress(sent: int, total: int) -> None:
    """Show no progress."""


def has_idempotency_key(path: str) -> bool:
    """Return whether the service carries a repeated POST request to this path out once, by its `Idempotency-Key`."""
    return _WITH_IDEMPOTENCY_KEY.fullmatch(path) is not None


def is_repeatable(method: str, options: dict[str, Any]) -> bool:
    """Return whether the service carries the request out once if it receives it twice."""
    return method == "GET" or "Idempotency-Key" in options.get("headers", {})


def retry_after(response: httpx2.Response, *, is_repeatable: bool) -> float | None:
    """Return the seconds after which to repeat a request that was refused for now; None: do not repeat it.

    A request with status 429 was not carried out; one with status 503 may have been.
    """
    is_refused = response.status_code == TOO_MANY or (response.status_code == NOT_NOW and is_repeatable)
    value = response.headers.get("Retry-After", "")
    if not is_refused or not (value.isascii() and value.isdigit()):
        return None
    return max(float(value), SHORTEST_WAIT_SECONDS)
