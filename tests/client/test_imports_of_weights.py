"""`detectors.wait`: until a worker has imported the weights."""

from typing import Any

import pytest
from scripted_server import answer, serve

from frs_client import ServiceError
from frs_client.aio import detectors as async_detectors
from frs_client.sync import detectors as sync_detectors

DETECTOR = {
    "id": "det_1",
    "name": "a",
    "status": "importing",
    "error": None,
    "description": {"architecture": "gfl"},
    "weights_file": None,
    "classes": None,
    "job_id": None,
    "sha256": "0" * 64,
    "created_at": "2026-11-30T06:00:00Z",
}


def row(status: str, **error: str) -> Any:
    return answer(DETECTOR | {"status": status, "error": {"hint": ""} | error if error else None})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sync_detectors, async_detectors):
        monkeypatch.setattr(module, "IMPORT_POLL_SECONDS", 0)


def test_each_reason_to_wait_is_reported_once(connect: Any) -> None:
    waits = row("importing", code="no_worker", message="No worker runs.")
    reasons: list[str] = []
    with serve(row("importing"), waits, waits, row("ready")) as server:
        detector = connect(server.url, "frs_key").detectors.wait(
            "det_1", report=lambda row: reasons.append(row.error.message)
        )
    assert detector.status == "ready"
    assert reasons == ["No worker runs."]


def test_refused_weights_are_an_error(connect: Any) -> None:
    refused = row("refused", code="weights_unreadable", message="No.")
    with serve(row("importing"), refused) as server, pytest.raises(ServiceError, match=r"weights_unreadable: No\."):
        connect(server.url, "frs_key").detectors.wait("det_1")
