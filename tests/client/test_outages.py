"""A service that is away for a while, behind a proxy or not, does not end what waits for it."""

from collections.abc import Callable
from typing import Any

import pytest
from scripted_server import Answer, answer, serve

from frs_client import NoAnswer
from frs_client.aio import transport as async_transport
from frs_client.sync import transport as sync_transport

STREAM = {"Content-Type": "text/event-stream"}
STARTED: Answer = (200, STREAM, b'id: 3\nevent: phase\ndata: {"phase": "training"}\n\n')
ENDED: Answer = (200, STREAM, b"event: end\ndata: {}\n\n")
AWAY: list[Answer] = [None, None, *((status, {"Content-Type": "text/html"}, b"<html>") for status in (502, 503, 504))]
"""Answers of a proxy, or none: a request whose connection breaks is sent twice at once."""
DATASET = {"id": "ds_1", "name": "a", "uploaded": True, "counts": None, "classes": None, "class_table": None}
DATASET |= {"issue_count": None, "issues": [], "warnings": [], "created_at": "2026-11-30T06:00:00Z"}
DATASET |= {split: {"images": "a", "annotations": "b"} for split in ("train", "val")}
DETECTOR = {"id": "det_1", "name": "a", "error": None, "description": {"architecture": "gfl"}, "weights_file": None}
DETECTOR |= {"classes": None, "job_id": None, "sha256": "0" * 64, "created_at": "2026-11-30T06:00:00Z"}
WAITS: list[tuple[Callable[[Any], Any], dict[str, Any], str, str]] = [
    (lambda client: client.datasets.wait("ds_1"), DATASET, "checking", "ready"),
    (lambda client: client.detectors.wait("det_1"), DETECTOR, "importing", "ready"),
    (lambda client: next(row for row in client.poll("/x", 0) if row["status"] == "b"), {}, "a", "b"),
]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_stream_survives_the_errors_of_a_proxy(status: int, connect: Any, pauses: list[float]) -> None:
    away = (status, {"Content-Type": "text/html"}, b"<html>")
    with serve(STARTED, away, away, ENDED) as server:
        assert [event.id for event in connect(server.url, "frs_key").jobs.stream("job_1")] == [3]
    assert server.header("last-event-id") == ["0", "3", "3", "3"]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_a_service_is_an_error_at_first(status: int, connect: Any, pauses: list[float]) -> None:
    with serve((status, {"Content-Type": "text/html"}, b"<html>")) as server:
        client = connect(server.url, "frs_key")
        for call in (lambda: list(client.jobs.stream("job_1")), lambda: client.datasets.wait("ds_1")):
            with pytest.raises(NoAnswer, match=f"A proxy before the service answered HTTP {status}"):
                call()
    assert not pauses


@pytest.mark.parametrize(("wait", "row", "before", "after"), WAITS, ids=["data set", "detector", "any path"])
def test_a_wait_continues_when_the_service_is_back(
    wait: Callable[[Any], Any], row: dict[str, Any], before: str, after: str, connect: Any, pauses: list[float]
) -> None:
    with serve(answer(row | {"status": before}), *AWAY, answer(row | {"status": after})) as server:
        ended = wait(connect(server.url, "frs_key"))
    assert (ended["status"] if isinstance(ended, dict) else ended.status) == after


def test_a_wait_ends_if_the_service_does_not_return(
    connect: Any, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sync_transport, async_transport):
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.05)
    with serve(answer(DATASET | {"status": "checking"}), AWAY[2]) as server, pytest.raises(NoAnswer, match="HTTP 502"):
        connect(server.url, "frs_key").datasets.wait("ds_1")


def test_a_wait_without_an_answer_ends_after_its_timeout(connect: Any, pauses: list[float]) -> None:
    with serve(answer(DATASET | {"status": "checking"})) as server:
        client = connect(server.url, "frs_key")
        with pytest.raises(TimeoutError, match="ds_1 has not been checked in time"):
            client.datasets.wait("ds_1", timeout=0)
        server.answers[:] = AWAY[2:3]
        with pytest.raises(NoAnswer):
            client.get_again("/jobs/job_1", deadline=0)
