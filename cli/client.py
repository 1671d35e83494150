"""The Python client of the public API: `Client(url, key).get("/jobs")`."""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from cli import connection, downloading
from cli.errors import NoAnswer, ServiceError
from cli.sse import StreamEvent, parse
from cli.unanswered import idempotency_key
from frs.files import digest

DEFAULT_URL = "http://127.0.0.1:8000"
Json = dict[str, Any]
READ_TIMEOUT_SECONDS = 45.0
"""Read timeout of an event stream. The service sends a keep-alive every 15 s."""
RECONNECT_SECONDS = 120.0
"""Time in which a broken stream must reconnect, before `Client.events` raises."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""First and longest pause between two reconnects, in seconds; each pause is twice the one before."""
TOO_MANY, NOT_NOW = 429, 503
OPENED = "opened"
_CHUNK_BYTES = 1 << 18
_WITH_IDEMPOTENCY_KEY = re.compile(r"/jobs(/[^/]+/exports)?")
"""Paths of the POST requests for which the service supports `Idempotency-Key`."""
_GATEWAY_ERRORS = (502, 504)
"""Statuses of a proxy that received no answer from the service."""


class Client:
    """A connection to the service at `url` with the API key `key`.

    Every method raises ServiceError if the service returns an error or does not answer.
    """

    def __init__(self, url: str, key: str, timeout: float = 60.0) -> None:
        self._http = connection.connect(url, key, timeout)

    @classmethod
    def from_environment(cls, data: Path) -> "Client":
        """Return a client for `FRS_URL` and `FRS_API_KEY`, by default those that `frs up` wrote to the data folder.

        Raises ServiceError if there is no API key.
        """
        url, key = os.environ.get("FRS_URL"), os.environ.get("FRS_API_KEY")
        return cls(
            url or _read_optional(data, "url") or DEFAULT_URL,
            key or _read_optional(data, "api-key") or _raise_no_key(data),
        )

    def get(self, path: str, **query: Any) -> Json:
        """Send a GET request and return the JSON body. Query parameters that are None are omitted."""
        return self._request("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Json | None = None) -> Json:
        """Send a POST request with a JSON body and return the JSON body of the response.

        If the service supports it, the request has an `Idempotency-Key`, under which it is sent again if the connection
        breaks, and by the next equal call if this one receives no answer.
        """
        if not _WITH_IDEMPOTENCY_KEY.fullmatch(path):
            return self._request("POST", path, json=body)
        request = [str(self._http.base_url), self._http.headers["Authorization"], path, body]
        with idempotency_key(json.dumps(request, sort_keys=True)) as key:
            return self._request("POST", path, json=body, headers={"Idempotency-Key": key})

    def patch(self, path: str, body: Json) -> Json:
        """Send a PATCH request with a JSON body and return the JSON body of the response."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str, **query: Any) -> Json:
        """Send a DELETE request and return the JSON body, `{}` if it is empty."""
        return self._request("DELETE", path, params=query)

    def each(self, path: str, **query: Any) -> Iterator[Json]:
        """Yield all items of a list; one request per page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **query, cursor=cursor)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def events(self, job_id: str, since: int = 0) -> Iterator[StreamEvent]:
        """Yield the job's events after number `since` until the job has ended, without gaps or duplicates.

        Reconnects if the stream breaks. Raises ServiceError if the service does not come back within
        `RECONNECT_SECONDS`, if it does not answer the first request, if the key expires or is revoked, and if there is
        no such job.
        """
        last_id, pause, deadline = since, FIRST_PAUSE, 0.0  # 0: no reconnect before the first connection
        while True:
            try:
                for event in self._stream(f"/jobs/{job_id}/stream", last_id):
                    pause, deadline = FIRST_PAUSE, math.inf
                    if event.type == "end":
                        return
                    if event.type == "closed":
                        raise ServiceError(f"{event.data['code']}: {event.data['detail']}")
                    if event.type != OPENED:
                        last_id = event.id or last_id
                        yield event
            except httpx2.RequestError as error:
                deadline = min(deadline, time.monotonic() + RECONNECT_SECONDS)
                if time.monotonic() > deadline:
                    raise connection.no_answer(error, self._http) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def download(self, path: str, target: Path, sha256: str) -> None:
        """Write the response body, whose SHA-256 is `sha256`, to `target` atomically: the file is complete or absent.

        A download that breaks is resumed, by the next call if need be. Raises ServiceError if the content differs.
        """
        part = target.with_name(f".{target.name}.part")
        for resumed in (part.exists(), False):
            self._receive(path, part, sha256)
            if digest(part) == sha256:
                part.replace(target)
                return
            part.unlink()
            if not resumed:
                break
        raise ServiceError(f"{target.name} arrived damaged and was removed.", "Download it again.")

    def upload(
        self, path: str, file: Path, media_type: str, progress: Callable[[int], None] = lambda _: None, **query: Any
    ) -> Json:
        """Stream the file as the body of a POST request and return the JSON body of the response.

        `progress` is called with the size in bytes of each chunk sent. There is no read timeout: the service answers
        once it has processed the file.
        """
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        headers = {"Content-Type": media_type, "Content-Length": str(file.stat().st_size), "X-Content-SHA256": sha256}
        params = {name: value for name, value in query.items() if value is not None}
        return self._request(
            "POST",
            path,
            params=params,
            content=_chunks(file, progress),
            headers=headers,
            timeout=httpx2.Timeout(60.0, read=None),
        )

    def _stream(self, path: str, last_id: int) -> Iterator[StreamEvent]:
        timeout = httpx2.Timeout(READ_TIMEOUT_SECONDS)
        with self._http.stream("GET", path, headers={"Last-Event-ID": str(last_id)}, timeout=timeout) as response:
            if response.status_code in (TOO_MANY, NOT_NOW):
                raise httpx2.ReadError(f"HTTP {response.status_code}")
            if not response.is_success:
                response.read()
                raise _service_error(response)
            yield StreamEvent(OPENED, {}, None)
            yield from parse(response.iter_lines())

    def _receive(self, path: str, part: Path, sha256: str) -> None:
        try:
            downloading.receive(self._http, path, part, lambda received, total: None, etag=f'"{sha256}"')
        except httpx2.HTTPStatusError as error:
            raise _service_error(error.response) from None
        except httpx2.RequestError as error:
            raise connection.no_answer(error, self._http) from None

    def _request(self, method: str, path: str, **options: Any) -> Json:
        response = self._send(method, path, **options)
        if not response.is_success:
            raise _service_error(response)
        try:
            body: Json = response.json() if response.content else {}
        except ValueError:
            raise _service_error(response) from None
        return body

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Return the response. A request that may be repeated is sent again if its connection breaks."""
        is_repeatable = method == "GET" or "Idempotency-Key" in options.get("headers", {})
        try:
            try:
                return self._http.request(method, path, **options)
            except connection.BROKEN:
                if not is_repeatable:
                    raise
                return self._http.request(method, path, **options)
        except httpx2.RequestError as error:
            raise connection.no_answer(error, self._http, is_repeatable=is_repeatable) from None


def _chunks(file: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            yield chunk
            progress(len(chunk))


def _service_error(response: httpx2.Response) -> ServiceError:
    try:
        body = response.json()
        fields = [f"{error['loc']}: {error['message']}".removeprefix(": ") for error in body.get("errors") or ()]
        if fields and body["detail"] in fields[0]:  # the detail repeats the first field
            detail, *details = fields
        else:
            detail, details = body["detail"], fields
        return ServiceError(f"{body['code']}: {detail}", body.get("hint") or "", tuple(details))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _foreign_answer(response)


def _foreign_answer(response: httpx2.Response) -> ServiceError:
    """Return the error for an answer that is not the service's: of a proxy, a sign-in page, another program."""
    url, status = connection.printable(response.url), response.status_code
    hint = "Set FRS_URL to the address of the service itself, with the prefix of a proxy before it if there is one."
    if response.has_redirect_location:
        target = connection.printable(response.url.join(response.headers["Location"]))
        return ServiceError(f"{url} redirects to {target} (HTTP {status}).", hint)
    if status in _GATEWAY_ERRORS:
        return NoAnswer(f"A proxy before the service answered HTTP {status} for {url}.", "Try again later.")
    media_type = response.headers.get("Content-Type", "no content type")
    return ServiceError(f"{url} answered HTTP {status} with {media_type}: not an answer of the service.", hint)


def _read_optional(data: Path, name: str) -> str | None:
    try:
        return (data / name).read_text("utf-8-sig", errors="replace").strip()
    except OSError:
        return None


def _raise_no_key(data: Path) -> str:
    raise ServiceError(
        f"No API key: FRS_API_KEY is not set and {data / 'api-key'} does not exist.",
        "Set FRS_API_KEY, or name the data folder of `frs up` with --data or FRS_DATA.",
    )
