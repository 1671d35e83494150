"""WorkerRequests: what a worker does that is no job."""

import hashlib
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import select, update
from worker_house import House, until

from frs.spec import JobSpec
from store.artifacts.folder import ArtifactFolder
from store.db.tables import Detector, WorkerRequest
from store.errors import ArtifactsUnavailable
from store.requests import worker_requests
from store.states import RequestKind
from worker.attempt import worker_request as request_runs
from worker.dispatch.dispatcher import Dispatcher

STUB = (sys.executable, str(Path(__file__).with_name("stub_trainer.py")))


def add_probe(house: House, **requested_actions: str) -> str:
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "metadata": requested_actions}
    request = {"spec": JobSpec.model_validate(spec).model_dump(mode="json"), "dataset_id": "ds_shapes"}
    return house.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id


def add_upload(house: House, content: str) -> tuple[str, str]:
    """Ids of a detector that is being imported and of the worker_request that does it."""
    source = house.settings.work_root / "upload"
    source.write_text(content)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    house.artifacts.put(source, f"uploads/{sha256}", sha256)
    values = {"name": "mine", "description": {}, "weights_key": f"uploads/{sha256}", "sha256": sha256}
    house.do(lambda session: session.add(Detector(id="det_1", status="importing", **values)))
    request = {"detector_id": "det_1", "key": f"uploads/{sha256}", "sha256": sha256}
    return "det_1", house.do(worker_requests.add, RequestKind.IMPORT, request, owner="admin").id


def run_next(house: House, **changes: Any) -> None:
    lease = house.do(worker_requests.claim, "tests", house.settings.lease_seconds)
    request_runs.RequestRun(house.database, house.settings.model_copy(update=changes), lease, STUB).run()


def row(house: House, worker_request_id: str) -> WorkerRequest:
    return house.rows(select(WorkerRequest).where(WorkerRequest.id == worker_request_id))[0]


def detector(house: House) -> Detector:
    return house.rows(select(Detector))[0]


def test_a_probe_leaves_its_forecast(house: House) -> None:
    worker_request_id = add_probe(house)
    run_next(house)
    done = row(house, worker_request_id)
    assert (done.status, done.result, done.error, done.lease_owner) == ("succeeded", {"ok": True}, None, None)
    assert list(house.settings.work_root.iterdir()) == []


def test_a_probe_that_fails_says_why(house: House) -> None:
    worker_request_id = add_probe(house, requested_action="unsupported_detector")
    run_next(house)
    failed = row(house, worker_request_id)
    assert (failed.status, failed.error["code"]) == ("failed", "unsupported_detector")


def test_a_probe_that_takes_too_long_is_killed(house: House) -> None:
    worker_request_id = add_probe(house, requested_action="sleep")
    run_next(house, request_timeout_seconds=1.0)
    assert row(house, worker_request_id).status == "failed" and house.trainers() == []


def test_imported_weights_become_the_detectors(house: House) -> None:
    _, worker_request_id = add_upload(house, "weights")
    run_next(house)
    ready = detector(house)
    assert (row(house, worker_request_id).status, ready.status, ready.classes) == ("succeeded", "ready", ["box"])
    assert house.artifacts.path(ready.weights_key).read_text() == "imported weights"


def test_refused_weights_leave_the_reason_with_the_detector(house: House) -> None:
    add_upload(house, "weights_unreadable")
    run_next(house)
    assert (detector(house).status, detector(house).error["code"]) == ("refused", "weights_unreadable")


def test_a_worker_request_whose_worker_died_is_taken_by_another_and_given_up_in_the_end(house: House) -> None:
    _, worker_request_id = add_upload(house, "weights")
    for _ in range(worker_requests.MAX_ATTEMPTS):
        assert house.do(worker_requests.claim, "dead", 60)
        house.do(lambda session: session.execute(update(WorkerRequest).values(lease_expires_at=1.0)))
    assert house.do(worker_requests.claim, "tests", 60) is None
    assert (row(house, worker_request_id).status, row(house, worker_request_id).error["code"]) == ("failed", "poison")
    assert (detector(house).status, detector(house).error["code"]) == ("refused", "poison")


@pytest.mark.parametrize("requested_action", ["", "die"])
def test_a_dispatcher_does_worker_requests_beside_jobs(house: House, requested_action: str) -> None:
    worker_request_id, job_id = add_probe(house, requested_action=requested_action), house.submit(steps=3)
    dispatcher = Dispatcher(house.settings, house.database, STUB)
    dispatcher.start()
    house.until_status(job_id, "succeeded")
    until(lambda: row(house, worker_request_id).status in ("succeeded", "failed"))
    dispatcher.stop()
    dispatcher.join()
    assert row(house, worker_request_id).status == ("failed" if requested_action else "succeeded")


def test_a_full_disk_costs_no_upload(house: House) -> None:
    _, worker_request_id = add_upload(house, "weights")
    run_next(house, min_free_mb=1 << 40)
    waiting = row(house, worker_request_id)
    assert (waiting.status, waiting.attempt, detector(house).status) == ("running", 0, "importing")
    assert house.do(worker_requests.claim, "another", 60) is None, "not at once"
    house.do(lambda session: session.execute(update(WorkerRequest).values(lease_expires_at=1.0)))
    run_next(house)
    assert (row(house, worker_request_id).status, detector(house).status) == ("succeeded", "ready")


def test_a_store_that_does_not_answer_costs_no_upload(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    _, worker_request_id = add_upload(house, "weights")
    with monkeypatch.context() as away:
        away.setattr(ArtifactFolder, "fetch", Mock(side_effect=ArtifactsUnavailable("s3://bucket answers 503")))
        run_next(house)
    waiting = row(house, worker_request_id)
    assert (waiting.status, waiting.attempt, detector(house).status) == ("running", 0, "importing")
    house.do(lambda session: session.execute(update(WorkerRequest).values(lease_expires_at=1.0)))
    run_next(house)
    assert (row(house, worker_request_id).status, detector(house).status) == ("succeeded", "ready")


def test_an_upload_that_is_gone_is_refused(house: House) -> None:
    _, worker_request_id = add_upload(house, "weights")
    house.artifacts.delete(detector(house).weights_key)
    run_next(house)
    assert (row(house, worker_request_id).status, detector(house).error["code"]) == ("failed", "artifact_not_found")


def test_an_importer_that_is_killed_is_tried_again_and_given_up_in_the_end(house: House) -> None:
    _, worker_request_id = add_upload(house, "die")
    for attempt in range(1, worker_requests.MAX_ATTEMPTS + 1):
        run_next(house)
        assert (row(house, worker_request_id).attempt, detector(house).status) == (attempt, "importing")
    assert house.do(worker_requests.claim, "tests", 60) is None
    assert (detector(house).status, detector(house).error["code"]) == ("refused", "poison")


def test_a_worker_request_is_given_back_when_its_worker_stops(house: House) -> None:
    worker_request_id = add_probe(house, requested_action="sleep")
    dispatcher = Dispatcher(house.settings, house.database, STUB)
    dispatcher.start()
    until(lambda: house.trainers())
    dispatcher.stop()
    dispatcher.join()
    until(lambda: row(house, worker_request_id).status == "queued")
    assert (row(house, worker_request_id).attempt, house.trainers()) == (0, [])
