"""The Python client of the public API: `Client(url, key).get("/jobs")`."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from cli.sse import StreamEvent, parse

DEFAULT_URL = "http://127.0.0.1:8000"
Json = dict[str, Any]
READ_TIMEOUT_SECONDS = 45.0
"""A stream says something every 15 s; one silent for so long is dead."""
RECONNECT_SECONDS = 120.0
"""So long a stream that broke off waits for the service to come back."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
TOO_MANY, NOT_NOW = 429, 503
OPENED = "opened"
_PIECE = 1 << 18


class ServiceError(Exception):
    """What the service answered, or why it could not be asked, in words for the person at the terminal."""

    def __init__(self, message: str, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.hint, self.details = message, hint, details


class Client:
    def __init__(self, url: str, key: str, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)

    @classmethod
    def here(cls, data: Path) -> "Client":
        """`FRS_URL` and `FRS_API_KEY`, or what `frs up` left in the data folder. Raises ServiceError."""
        url, key = os.environ.get("FRS_URL"), os.environ.get("FRS_API_KEY")
        return cls(url or _left(data, "url") or DEFAULT_URL, key or _left(data, "api-key") or _no_key(data))

    def get(self, path: str, **query: Any) -> Json:
        return self._json("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Json | None = None) -> Json:
        return self._json("POST", path, json=body)

    def patch(self, path: str, body: Json) -> Json:
        return self._json("PATCH", path, json=body)

    def delete(self, path: str, **query: Any) -> Json:
        return self._json("DELETE", path, params=query)

    def each(self, path: str, **query: Any) -> Iterator[Json]:
        """All items of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **query, cursor=cursor)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def events(self, job_id: str, since: int = 0) -> Iterator[StreamEvent]:
        """What happens to a job, after number `since`, until it has ended: nothing is missing, nothing comes twice.

        It comes back by itself where the service goes away for a while. Raises ServiceError where that takes too
        long, where the key is no longer good, and where there is no such job.
        """
        seen, pause, until = since, FIRST_PAUSE, 0.0  # a service that was never there is not waited for
        while True:
            try:
                for event in self._stream(f"/jobs/{job_id}/stream", seen):
                    pause, until = FIRST_PAUSE, math.inf
                    if event.type == "end":
                        return
                    if event.type == "closed":
                        raise ServiceError(f"{event.data['code']}: {event.data['detail']}")
                    if event.type != OPENED:
                        seen = event.id or seen
                        yield event
            except httpx2.RequestError as error:
                until = min(until, time.monotonic() + RECONNECT_SECONDS)
                if time.monotonic() > until:
                    raise self._unreachable(error) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def download(self, path: str, target: Path) -> None:
        """Writes the answer to `target`, which is whole or absent."""
        part = target.with_name(f".{target.name}.part")
        try:
            with self._http.stream("GET", path) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                with part.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
        except httpx2.RequestError as error:
            part.unlink(missing_ok=True)
            raise self._unreachable(error) from None
        part.replace(target)

    def _stream(self, path: str, seen: int) -> Iterator[StreamEvent]:
        silence = httpx2.Timeout(READ_TIMEOUT_SECONDS)
        with self._http.stream("GET", path, headers={"Last-Event-ID": str(seen)}, timeout=silence) as answer:
            if answer.status_code in (TOO_MANY, NOT_NOW):
                raise httpx2.ReadError(f"It answers {answer.status_code}")
            if answer.is_error:
                answer.read()
                raise _refused(answer)
            yield StreamEvent(OPENED, {}, None)
            yield from parse(answer.iter_lines())

    def upload(
        self, path: str, file: Path, media_type: str, progress: Callable[[int], None] = lambda _: None, **query: Any
    ) -> Json:
        """Sends the file as it is read. `progress(bytes)` after every piece; the answer may take its time."""
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        headers = {"Content-Type": media_type, "Content-Length": str(file.stat().st_size), "X-Content-SHA256": sha256}
        params = {name: value for name, value in query.items() if value is not None}
        patient = httpx2.Timeout(60.0, read=None)
        return self._json(
            "POST", path, params=params, content=_pieces(file, progress), headers=headers, timeout=patient
        )

    def _json(self, method: str, path: str, **request: Any) -> Json:
        try:
            answer = self._http.request(method, path, **request)
        except httpx2.RequestError as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise _refused(answer)
        body: Json = answer.json() if answer.content else {}
        return body

    def _unreachable(self, error: Exception) -> ServiceError:
        why = str(error) or type(error).__name__
        return ServiceError(f"No service answers at {self.url}: {why}.", "Start one with `frs up`, or set FRS_URL.")


def _pieces(file: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            yield piece
            progress(len(piece))


def _refused(answer: httpx2.Response) -> ServiceError:
    try:
        problem = answer.json()
        details = tuple(f"{error['loc']}: {error['message']}" for error in problem.get("errors") or ())
        return ServiceError(f"{problem['code']}: {problem['detail']}", problem.get("hint") or "", details)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServiceError(f"The service answered {answer.status_code}, which is no problem it describes.")


def _left(data: Path, name: str) -> str | None:
    try:
        return (data / name).read_text().strip()
    except OSError:
        return None


def _no_key(data: Path) -> str:
    raise ServiceError(
        f"No API key: neither FRS_API_KEY is set nor is there a {data / 'api-key'}.",
        "Name the data folder of `frs up` with --data or FRS_DATA.",
    )
