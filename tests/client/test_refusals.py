"""A request that is refused for now is sent again after `Retry-After`, unless the service may have carried it out."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Answer, answer, serve

from frs_client import ApiError, NoAnswer, ServiceError

VERSION = answer({"frs": "0.1.0", "python": "3.11.7"})
SPEC = {"dataset": "shapes"}


def refused(status: int, code: str = "rate_limited", **headers: str) -> Answer:
    body = {"code": code, "detail": "Not now.", "hint": "Wait.", "errors": [], "request_id": "r1"}
    return answer(body, status, **headers)


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_is_sent_again_after_the_named_time(status: int, connect: Any, pauses: list[float]) -> None:
    with serve(refused(status, Retry_After="7"), refused(status, Retry_After="0"), VERSION) as server:
        assert connect(server.url, "frs_key").version().frs == "0.1.0"
    assert pauses == [7, 1]


def test_a_refused_submit_is_sent_again_under_its_key(connect: Any, pauses: list[float]) -> None:
    with serve(refused(503, Retry_After="2"), answer({"id": "job_1"}, 201)) as server:
        connect(server.url, "frs_key").post("/jobs", SPEC)
    assert len(set(server.header("idempotency-key"))) == 1 and len(server.requests) == 2
    assert pauses == [2]


def test_all_waiting_together_takes_a_minute_at_most(connect: Any, pauses: list[float]) -> None:
    with serve(refused(429, Retry_After="25")) as server, pytest.raises(ApiError) as error:
        connect(server.url, "frs_key").version()
    assert pauses == [25, 25]
    assert (error.value.code, error.value.hint, error.value.request_id) == ("rate_limited", "Wait.", "r1")


@pytest.mark.parametrize("value", ["", "61", "-1", "soon", "1e3", "٣", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_long_or_unreadable_time_is_not_waited_for(value: str, connect: Any, pauses: list[float]) -> None:
    with serve(refused(429, Retry_After=value.encode().decode("latin-1"))) as server, pytest.raises(ApiError):
        connect(server.url, "frs_key").version()
    assert not pauses


def test_a_call_that_may_have_been_carried_out_is_not_repeated(connect: Any, pauses: list[float]) -> None:
    with serve(refused(503, Retry_After="1")) as server:
        client = connect(server.url, "frs_key")
        for call in (lambda: client.jobs.cancel("job_1"), lambda: client.datasets.delete("x"), client.health):
            with pytest.raises(ApiError):
                call()
    assert len(server.requests) == 3
    assert not pauses


def test_an_upload_that_was_not_carried_out_is_sent_again(connect: Any, pauses: list[float], tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    with serve(refused(429, Retry_After="3"), refused(503, Retry_After="3")) as server, pytest.raises(ApiError):
        connect(server.url, "frs_key").upload("/detectors/upload", tmp_path / "a.pth", "application/octet-stream")
    assert server.bodies == [b"weights", b"weights"], "and it may have been carried out with status 503"
    assert pauses == [3]


def test_a_stream_that_is_refused_at_first_is_the_error_of_the_service(connect: Any) -> None:
    with serve(refused(429, "too_many_streams", Retry_After="2")) as server, pytest.raises(ApiError) as error:
        list(connect(server.url, "frs_key").jobs.stream("job_1"))
    assert error.value.code == "too_many_streams"


def test_a_stream_is_opened_again_after_a_refusal(connect: Any, pauses: list[float]) -> None:
    events = (200, {"Content-Type": "text/event-stream"}, b'id: 3\nevent: phase\ndata: {"phase": "training"}\n\n')
    end = (200, {"Content-Type": "text/event-stream"}, b"event: end\ndata: {}\n\n")
    with serve(events, refused(503, "too_many_streams"), end) as server:
        assert [event.id for event in connect(server.url, "frs_key").jobs.stream("job_1")] == [3]
    assert server.header("last-event-id") == ["0", "3", "3"]
    assert len(pauses) == 2


def test_a_sign_in_page_in_place_of_a_stream_is_an_error(connect: Any, pauses: list[float]) -> None:
    page = (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
    with serve(page) as server, pytest.raises(ServiceError, match="HTTP 200 with text/html"):
        list(connect(server.url, "frs_key").jobs.stream("job_1"))
    assert not pauses


@pytest.mark.parametrize("body", [[], "text", {}, {"data": None}, {"data": [1]}])
def test_a_list_in_another_form_is_an_error(body: Any, connect: Any) -> None:
    reply = (200, {"Content-Type": "application/json"}, json.dumps(body).encode())
    with serve(reply) as server, pytest.raises(ServiceError) as error:
        list(connect(server.url, "frs_key").jobs.list())
    assert not isinstance(error.value, ApiError | NoAnswer)


def test_a_stream_that_ends_with_its_key_is_the_error_of_the_service(connect: Any) -> None:
    closed = b'event: closed\ndata: {"code": "key_expired", "detail": "This API key has expired."}\n\n'
    reply = (200, {"Content-Type": "text/event-stream"}, closed)
    with serve(reply) as server, pytest.raises(ApiError) as error:
        list(connect(server.url, "frs_key").jobs.stream("job_1"))
    assert (error.value.code, error.value.status) == ("key_expired", 401)
