# Written by `make client` from aio/downloading.py: change that file.
"""Receive a file that may be large over a connection that may break: resumable."""

from collections.abc import Callable
from pathlib import Path

import httpx2

from frs_client.pausing import sleep
from frs_client.requests import LONGEST_WAIT_SECONDS, retry_after

TRIES, PAUSE_SECONDS = 5, 1.0
"""Consecutive tries without progress before a download fails, and the pause between two tries."""
RANGE_NOT_SATISFIABLE, PARTIAL = 416, 206
Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received and the total size in bytes, None if unknown."""


def receive(
    http: httpx2.Client,
    url: str,
    part: Path,
    progress: Progress = lambda received, total: None,
    *,
    etag: str = "",
) -> None:
    """Download the URL to `part`, after the bytes that it holds, and resume while the file grows.

    With `etag` a server that now has other content sends it from the start. The content of `part` is not verified. A
    download that is refused for now continues after `Retry-After`, for `LONGEST_WAIT_SECONDS` in total. Raises
    HTTPStatusError, whose response has been read, and TransportError after `TRIES` tries without progress.
    """
    tries_left, waited = TRIES, 0.0
    while True:
        size_before = size_of(part)
        try:
            return _receive_rest(http, url, part, progress, etag)
        except httpx2.HTTPStatusError as error:
            pause = retry_after(error.response, is_repeatable=True)
            if pause is None or waited + pause > LONGEST_WAIT_SECONDS:
                raise
            waited += pause
        except httpx2.TransportError:
            tries_left = TRIES if size_of(part) > size_before else tries_left - 1
            if tries_left == 0 or size_before == size_of(part) == 0:  # nothing received: no network or unknown host
                raise
            pause = PAUSE_SECONDS
        sleep(pause)


def size_of(part: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return part.stat().st_size if part.exists() else 0


def _receive_rest(http: httpx2.Client, url: str, part: Path, progress: Progress, etag: str) -> None:
    offset = size_of(part)
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": etag} if etag else {})
    with http.stream("GET", url, headers=headers) as response:
        if offset and response.status_code == RANGE_NOT_SATISFIABLE:  # complete, or larger than the published file
            return
        if not response.is_success:
            response.read()
        response.raise_for_status()
        offset = offset if response.status_code == PARTIAL else 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        progress(offset, total)
        with part.open("ab" if offset else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                progress(file.tell(), total)
