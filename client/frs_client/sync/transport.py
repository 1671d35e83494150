# Written by `make client` from aio/transport.py: change that file.
"""Requests to the service, and what makes them dependable: repetition, waiting, resumption, verification."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx2

from frs_client import connection, credentials
from frs_client.answers import GATEWAY_ERRORS, Json, Page, error_of, parse, read_json
from frs_client.errors import ApiError, NoAnswer, ServiceError
from frs_client.files import CHUNK_BYTES, digest
from frs_client.idempotency import idempotency_key
from frs_client.pausing import run, sleep
from frs_client.requests import (
    LONGEST_WAIT_SECONDS,
    TOO_MANY,
    Progress,
    given,
    has_idempotency_key,
    is_repeatable,
    no_progress,
    path_of,
    retry_after,
)
from frs_client.sse import EventParser, StreamEvent
from frs_client.sync import downloading

READ_TIMEOUT_SECONDS = 45.0
"""Read timeout of an event stream. The service sends a keep-alive every 15 s."""
RECONNECT_SECONDS = 120.0
"""Time in which a service that has answered before must answer again, before `events`, `get_again` or `poll` raises."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""First and longest pause between two attempts, in seconds; each pause is twice the one before."""
OPENED = "opened"
UNAUTHORIZED = 401


class _RefusedForNow(httpx2.ReadError):
    """A stream that is not opened now: there are too many, or the service is shutting down or absent behind a proxy."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response = response


class Transport:
    """A connection to the service. Its methods are the calls of the API, as paths and JSON.

    Every method raises ServiceError: ApiError if the service returns an error, NoAnswer if it does not answer.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        data: Path | None = None,
        timeout: float = 60.0,
    ) -> None:
        address, key = credentials.resolve(url, api_key, data)
        self._http = connection.connect(httpx2.Client, address, key, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        """Send a GET request and return the JSON body. Query parameters that are None are omitted."""
        return self._request("GET", path, params=given(query))

    def get_again(self, path: str, *, deadline: float = math.inf, **query: Any) -> Json:
        """Send a GET request, as `get` does, to a service that has answered before and may be restarting.

        Without an answer the request is sent again, for `RECONNECT_SECONDS` and not after `deadline`, on the clock of
        `time.monotonic()`.
        """
        pause, give_up_at = FIRST_PAUSE, min(time.monotonic() + RECONNECT_SECONDS, deadline)
        while True:
            try:
                return self.get(path, **query)
            except NoAnswer:
                if time.monotonic() > give_up_at:
                    raise
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def poll(self, path: str, interval: float, timeout: float = math.inf) -> Iterator[Json]:
        """Yield the answer of a GET request every `interval` seconds, until `timeout` seconds have passed.

        Raises ServiceError if the service does not answer the first request or, later, does not come back within
        `RECONNECT_SECONDS`.
        """
        deadline = time.monotonic() + timeout
        answer = self.get(path)
        while True:
            yield answer
            if time.monotonic() >= deadline:
                return
            sleep(min(interval, max(0.0, deadline - time.monotonic())))
            answer = self.get_again(path, deadline=deadline)

    def post(self, path: str, body: Json | None = None, *, key: str | None = None, **query: Any) -> Json:
        """Send a POST request with a JSON body and return the JSON body of the response.

        If the service supports it, the request has an `Idempotency-Key`, under which it is sent again if the connection
        breaks, and by the next equal call if this one receives no answer; `key` replaces the generated one.
        """
        options: Json = {"json": body, "params": given(query)}
        if not has_idempotency_key(path):
            return self._request("POST", path, **options)
        if key is not None:
            return self._request("POST", path, **options, headers={"Idempotency-Key": key})
        request = [str(self._http.base_url), self._http.headers["Authorization"], path, body]
        with idempotency_key(json.dumps(request, sort_keys=True)) as generated:
            return self._request("POST", path, **options, headers={"Idempotency-Key": generated})

    def patch(self, path: str, body: Json) -> Json:
        """Send a PATCH request with a JSON body and return the JSON body of the response."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str, **query: Any) -> Json:
        """Send a DELETE request and return the JSON body, `{}` if it is empty."""
        return self._request("DELETE", path, params=given(query))

    def each(self, path: str, **query: Any) -> Iterator[Json]:
        """Yield all items of a list; one request per page."""
        cursor: str | None = None
        while True:
            page = parse(Page, self.get(path, **query, cursor=cursor))
            yield from page.data
            cursor = page.next_cursor
            if cursor is None:
                return

    def events(self, job_id: str, since: int = 0, *, deadline: float = math.inf) -> Iterator[StreamEvent]:
        """Yield the job's events after number `since` until the job has ended, without gaps or duplicates.

        Reconnects if the stream breaks. Raises ServiceError if the service does not come back within
        `RECONNECT_SECONDS`, if it does not answer the first request, if the key expires or is revoked, and if there is
        no such job. Raises TimeoutError after `deadline`, on the clock of `time.monotonic()`, at most 15 s late.
        """
        last_id, pause, reconnect_until = since, FIRST_PAUSE, 0.0  # 0: no reconnect before the first connection
        while True:
            try:
                for event in self._stream(job_id, last_id, deadline):
                    pause, reconnect_until = FIRST_PAUSE, math.inf
                    if event.type == "end":
                        return
                    if event.type == "closed":
                        raise ApiError(UNAUTHORIZED, event.data)
                    if event.type != OPENED:
                        last_id = event.id or last_id
                        yield event
            except httpx2.RequestError as error:
                _check(deadline, job_id)
                reconnect_until = min(reconnect_until, time.monotonic() + RECONNECT_SECONDS)
                if time.monotonic() > reconnect_until:
                    if isinstance(error, _RefusedForNow):
                        raise error_of(error.response) from None
                    raise connection.no_answer(error, self._http) from None
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def download(self, path: str, target: Path, sha256: str) -> None:
        """Write the response body, whose SHA-256 is `sha256`, to `target` atomically: the file is complete or absent.

        A download that breaks is resumed, by the next call if need be. Raises ServiceError if the content differs.
        """
        part = target.with_name(f".{target.name}.part")
        for resumed in (part.exists(), False):
            self._receive(path, part, sha256)
            if run(digest, part) == sha256:
                part.replace(target)
                return
            part.unlink()
            if not resumed:
                break
        raise ServiceError(f"{target.name} arrived damaged and was removed.", "Download it again.")

    def upload(self, path: str, file: Path, media_type: str, progress: Progress = no_progress, **query: Any) -> Json:
        """Stream the file as the body of a POST request and return the JSON body of the response.

        There is no read timeout: the service answers once it has processed the file.
        """
        headers = {
            "Content-Type": media_type,
            "Content-Length": str(file.stat().st_size),
            "X-Content-SHA256": run(digest, file),
        }
        return self._request(
            "POST",
            path,
            params=given(query),
            content=lambda: _chunks(file, progress),
            headers=headers,
            timeout=httpx2.Timeout(60.0, read=None),
        )

    def _stream(self, job_id: str, last_id: int, deadline: float) -> Iterator[StreamEvent]:
        path = path_of("jobs", job_id, "stream")
        timeout = httpx2.Timeout(READ_TIMEOUT_SECONDS)
        headers = {"Last-Event-ID": str(last_id)}
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success or "text/event-stream" not in response.headers.get("Content-Type", ""):
                response.read()
                is_refused_for_now = response.status_code in (TOO_MANY, *GATEWAY_ERRORS)
                raise _RefusedForNow(response) if is_refused_for_now else error_of(response)
            yield StreamEvent(OPENED, {}, None)
            parser = EventParser()
            for line in response.iter_lines():
                _check(deadline, job_id)
                if event := parser.feed(line):
                    yield event

    def _receive(self, path: str, part: Path, sha256: str) -> None:
        try:
            downloading.receive(self._http, path, part, etag=f'"{sha256}"')
        except httpx2.HTTPStatusError as error:
            raise error_of(error.response) from None
        except httpx2.RequestError as error:
            raise connection.no_answer(error, self._http) from None

    def _request(self, method: str, path: str, *, is_patient: bool = True, **options: Any) -> Json:
        """Send the request, again after `Retry-After` if it was refused for now, and return the JSON body."""
        waited = 0.0
        while True:
            response = self._send(method, path, **options)
            pause = retry_after(response, is_repeatable=is_repeatable(method, options))
            if not is_patient or pause is None or waited + pause > LONGEST_WAIT_SECONDS:
                return read_json(response)
            waited += pause
            sleep(pause)

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Return the response. A request that may be repeated is sent again if its connection breaks.

        `content` returns the chunks of a body, each time from its start.
        """
        may_repeat = is_repeatable(method, options)
        if "content" in options:
            options["content"] = options["content"]()
        try:
            try:
                return self._http.request(method, path, **options)
            except connection.BROKEN:
                if not may_repeat:
                    raise
                return self._http.request(method, path, **options)
        except httpx2.RequestError as error:
            raise connection.no_answer(error, self._http, is_repeatable=may_repeat) from None


def _chunks(file: Path, progress: Progress) -> Iterator[bytes]:
    total = file.stat().st_size
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            yield chunk
            progress(content.tell(), total)


def _check(deadline: float, job_id: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"Job {job_id} has not ended in time. It continues: call again to go on waiting.")
