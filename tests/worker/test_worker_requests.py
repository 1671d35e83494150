"""Worker requests: probes of jobs and imports of weights."""

import hashlib
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from waiting import until
from worker_harness import WorkerHarness

from frs.spec import JobSpec
from store.artifacts.folder import ArtifactFolder
from store.db.tables import Detector, WorkerRequest
from store.errors import ArtifactsUnavailable
from store.requests import worker_requests
from store.states import RequestKind
from worker.attempt import worker_request as request_runs
from worker.dispatch.dispatcher import Dispatcher

STUB = (sys.executable, str(Path(__file__).with_name("stub_trainer.py")))


def add_probe(harness: WorkerHarness, **options: str) -> str:
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "metadata": options}
    request = {"spec": JobSpec.model_validate(spec).model_dump(mode="json"), "dataset_id": "ds_shapes"}
    return harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id


def add_upload(harness: WorkerHarness, content: str, **sent: Any) -> tuple[str, str]:
    """Add an uploaded detector; return its id and the id of the worker request that imports it."""
    source = harness.settings.work_root / "upload"
    source.write_text(content)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    harness.artifacts.put(source, f"uploads/{sha256}", sha256)
    values = {"name": "mine", "description": {}, "weights_key": f"uploads/{sha256}", "sha256": sha256}
    harness.do(lambda session: session.add(Detector(id="det_1", status="importing", **values)))
    request = {"detector_id": "det_1", "key": f"uploads/{sha256}", "sha256": sha256} | sent
    return "det_1", harness.do(worker_requests.add, RequestKind.IMPORT, request, owner="admin").id


def run_next(harness: WorkerHarness, **changes: Any) -> None:
    lease = harness.do(worker_requests.claim, "tests", harness.settings.lease_seconds)
    request_runs.RequestRun(harness.database, harness.settings.model_copy(update=changes), lease, STUB).run()


def request_row(harness: WorkerHarness, request_id: str) -> WorkerRequest:
    return harness.rows(select(WorkerRequest).where(WorkerRequest.id == request_id))[0]


def end_delays(harness: WorkerHarness) -> None:
    harness.do(lambda session: session.execute(update(WorkerRequest).values(not_before=1.0)))


def detector(harness: WorkerHarness) -> Detector:
    return harness.rows(select(Detector))[0]


def test_a_probe_stores_its_result(harness: WorkerHarness) -> None:
    request_id = add_probe(harness)
    run_next(harness)
    probe = request_row(harness, request_id)
    assert (probe.status, probe.result, probe.error, probe.lease_owner) == ("succeeded", {"ok": True}, None, None)
    assert list(harness.settings.work_root.iterdir()) == []


def test_a_failed_probe_stores_its_error(harness: WorkerHarness) -> None:
    request_id = add_probe(harness, outcome="unsupported_detector")
    run_next(harness)
    probe = request_row(harness, request_id)
    assert (probe.status, probe.error["code"]) == ("failed", "unsupported_detector")


def test_a_probe_that_takes_too_long_is_killed(harness: WorkerHarness) -> None:
    request_id = add_probe(harness, outcome="sleep")
    run_next(harness, request_timeout_seconds=1.0)
    assert request_row(harness, request_id).status == "failed" and harness.trainers() == []


def test_imported_weights_belong_to_the_detector(harness: WorkerHarness) -> None:
    _, request_id = add_upload(harness, "weights")
    run_next(harness)
    ready = detector(harness)
    assert (request_row(harness, request_id).status, ready.status, ready.classes) == ("succeeded", "ready", ["box"])
    assert harness.artifacts.path(ready.weights_key).read_text() == "imported weights"
    assert ready.bytes == len("imported weights"), "not the size of the upload"


def test_the_engine_receives_the_description_and_the_classes_of_an_upload(harness: WorkerHarness) -> None:
    add_upload(harness, "weights", description={"architecture": "gfl"}, classes=["größe, klein", "b"])
    run_next(harness)
    assert detector(harness).classes == ["größe, klein", "b"]


def test_the_error_of_refused_weights_is_stored_with_the_detector(harness: WorkerHarness) -> None:
    add_upload(harness, "weights_unreadable")
    run_next(harness)
    assert (detector(harness).status, detector(harness).error["code"]) == ("refused", "weights_unreadable")


def test_a_request_whose_workers_die_fails_after_its_last_attempt(harness: WorkerHarness) -> None:
    _, request_id = add_upload(harness, "weights")
    for _ in range(worker_requests.MAX_ATTEMPTS):
        assert harness.do(worker_requests.claim, "dead", 60)
        harness.do(lambda session: session.execute(update(WorkerRequest).values(lease_expires_at=1.0)))
    assert harness.do(worker_requests.claim, "tests", 60) is None
    assert (request_row(harness, request_id).status, request_row(harness, request_id).error["code"]) == (
        "failed",
        "poison",
    )
    assert (detector(harness).status, detector(harness).error["code"]) == ("refused", "poison")


@pytest.mark.parametrize("outcome", ["", "die"])
def test_a_dispatcher_runs_worker_requests_and_jobs(harness: WorkerHarness, outcome: str) -> None:
    request_id, job_id = add_probe(harness, outcome=outcome), harness.submit(steps=3)
    dispatcher = Dispatcher(harness.settings, harness.database, STUB)
    dispatcher.start()
    harness.until_status(job_id, "succeeded")
    until(lambda: request_row(harness, request_id).status in ("succeeded", "failed"))
    dispatcher.stop()
    dispatcher.join()
    assert request_row(harness, request_id).status == ("failed" if outcome else "succeeded")


def test_a_request_waits_in_the_queue_while_the_disk_is_full(harness: WorkerHarness) -> None:
    request_id = add_probe(harness)
    run_next(harness, min_free_mb=1 << 40)
    waiting = request_row(harness, request_id)
    assert (waiting.status, waiting.attempt, waiting.status_reason_code) == ("queued", 0, "waiting_for_storage")
    assert harness.do(worker_requests.claim, "another", 60) is None, "only after a delay"
    end_delays(harness)
    run_next(harness)
    ended = request_row(harness, request_id)
    assert (ended.status, ended.status_reason_code, ended.not_before) == ("succeeded", None, None)


def test_a_full_disk_does_not_fail_an_import(harness: WorkerHarness) -> None:
    _, request_id = add_upload(harness, "weights")
    run_next(harness, min_free_mb=1 << 40)
    waiting = request_row(harness, request_id)
    assert (waiting.status, waiting.attempt, detector(harness).status) == ("queued", 0, "importing")
    assert detector(harness).error["code"] == "waiting_for_storage"
    end_delays(harness)
    run_next(harness)
    assert (request_row(harness, request_id).status, detector(harness).status) == ("succeeded", "ready")


def test_an_unavailable_artifact_store_does_not_fail_an_import(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, request_id = add_upload(harness, "weights")
    with monkeypatch.context() as outage:
        outage.setattr(ArtifactFolder, "fetch", Mock(side_effect=ArtifactsUnavailable("s3://bucket answers 503")))
        run_next(harness)
    waiting = request_row(harness, request_id)
    assert (waiting.status, waiting.attempt, detector(harness).status) == ("queued", 0, "importing")
    assert detector(harness).error["code"] == "waiting_for_storage"
    assert "s3://bucket answers 503" in detector(harness).error["message"]
    end_delays(harness)
    run_next(harness)
    assert (request_row(harness, request_id).status, detector(harness).status) == ("succeeded", "ready")
    assert detector(harness).error is None


def test_the_import_of_a_deleted_upload_fails(harness: WorkerHarness) -> None:
    _, request_id = add_upload(harness, "weights")
    harness.artifacts.delete(detector(harness).weights_key)
    run_next(harness)
    assert (request_row(harness, request_id).status, detector(harness).error["code"]) == (
        "failed",
        "artifact_not_found",
    )


def test_a_killed_import_is_retried_and_fails_after_its_last_attempt(harness: WorkerHarness) -> None:
    _, request_id = add_upload(harness, "die")
    for attempt in range(1, worker_requests.MAX_ATTEMPTS + 1):
        run_next(harness)
        assert (request_row(harness, request_id).attempt, detector(harness).status) == (attempt, "importing")
    assert harness.do(worker_requests.claim, "tests", 60) is None
    assert (detector(harness).status, detector(harness).error["code"]) == ("refused", "poison")


def test_a_worker_request_is_requeued_when_its_worker_stops(harness: WorkerHarness) -> None:
    request_id = add_probe(harness, outcome="sleep")
    dispatcher = Dispatcher(harness.settings, harness.database, STUB)
    dispatcher.start()
    until(lambda: harness.trainers())
    dispatcher.stop()
    dispatcher.join()
    until(lambda: request_row(harness, request_id).status == "queued")
    assert (request_row(harness, request_id).attempt, harness.trainers()) == (0, [])


def test_a_worker_request_is_returned_after_a_database_outage_longer_than_the_fence(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = add_probe(harness)
    lease = harness.do(worker_requests.claim, "tests", 60)
    settings = harness.settings.model_copy(update={"fence_seconds": 1.0})
    for write in ("renew", "finish", "retry_later"):
        monkeypatch.setattr(worker_requests, write, Mock(side_effect=OperationalError("UPDATE", {}, Exception("gone"))))
    request_runs.RequestRun(harness.database, settings, lease, STUB).run()
    returned = request_row(harness, request_id)
    assert (returned.status, returned.attempt, returned.lease_owner) == ("queued", 0, None)
