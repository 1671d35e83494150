"""Workers unpack uploaded data sets."""

import hashlib
import io
import sys
import zipfile

import pytest
from sqlalchemy import delete, select, update
from waiting import until
from worker_harness import STUB, dispatching, split_columns

from frs.dataset.shapes.drawing import draw_dataset
from frs.spec import JobSpec
from store.artifacts import unpacking
from store.db.tables import Attempt, Dataset, Job, WorkerRequest
from store.jobs import actions
from store.requests import worker_requests
from store.states import RequestKind
from worker.attempt.worker_request import RequestRun
from worker.dispatch import dispatcher

LOGGING = (
    "import runpy, sys; open({log!r}, 'a').write('x');"
    " runpy.run_module('frs.dataset.upload.convert', run_name='__main__')"
)


@pytest.fixture
def uploaded(harness, tmp_path):
    """Make the data set an upload whose archive is in the artifacts; return the name of its unpacked folder."""
    folder = tmp_path / "drawn"
    draw_dataset(folder, train=3, val=2, size=32)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
    source = tmp_path / "archive"
    source.write_bytes(stream.getvalue())
    harness.artifacts.put(source, f"uploads/{sha256}.zip", sha256)
    paths = split_columns("{}", "annotations/instances_{}.json")
    row = {**paths, "upload_key": f"uploads/{sha256}.zip"}
    harness.do(lambda session: session.execute(update(Dataset).values(row)))
    return sha256


@pytest.fixture
def conversions(tmp_path, monkeypatch):
    """Return a function that counts the conversions of archives."""
    log = tmp_path / "conversions"
    log.touch()
    monkeypatch.setattr(unpacking, "COMMAND", (sys.executable, "-c", LOGGING.format(log=str(log))))
    return lambda: len(log.read_text())


@pytest.fixture
def slow_conversion(monkeypatch):
    monkeypatch.setattr(unpacking, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))


def unpacked(root):
    return sorted(path.name for path in root.iterdir() if path.name not in (".lock", ".unpacking"))


def test_concurrent_jobs_unpack_their_data_set_once_per_host(harness, uploaded, conversions, tmp_path):
    for number, name in enumerate(("one", "two"), 1):
        job_ids = [harness.submit(steps=3) for _ in range(3)]
        with dispatching(harness, uploads_root=tmp_path / name, concurrency=3):
            for job_id in job_ids:
                harness.until_status(job_id, "succeeded")
        assert unpacked(tmp_path / name) == [uploaded]
        assert conversions() == number
    assert unpacked(harness.settings.uploads_root) == []
    assert len(harness.rows(select(Attempt))) == 6


def test_the_lease_is_renewed_while_an_archive_is_unpacked(harness, uploaded, slow_conversion):
    job_id = harness.submit()
    with dispatching(harness, lease_seconds=1.5, fence_seconds=1.2):
        harness.until_status(job_id, "running")
        before = harness.job(job_id).lease_expires_at
        until(lambda: (harness.job(job_id).lease_expires_at or 0) > before + 2)
        assert (harness.job(job_id).attempt, harness.trainers()) == (1, [])


@pytest.mark.parametrize(("action", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_requested_action_takes_effect_while_an_archive_is_unpacked(
    harness, uploaded, slow_conversion, action, status
):
    job_id = harness.submit()
    with dispatching(harness):
        harness.until_status(job_id, "running")
        harness.do(getattr(actions, action), job_id)
        harness.until_status(job_id, status, 10)
    assert unpacked(harness.settings.uploads_root) == []


def test_a_stopping_worker_requeues_a_job_that_unpacks(harness, uploaded, slow_conversion):
    job_id = harness.submit()
    with dispatching(harness, grace_seconds=20) as worker:
        harness.until_status(job_id, "running")
        worker.stop()
        harness.until_status(job_id, "queued", 10)
    assert harness.rows(select(Attempt.end)) == ["released"]


def test_a_job_with_a_deleted_archive_fails_as_bad_dataset(harness, uploaded):
    harness.artifacts.delete(f"uploads/{uploaded}.zip")
    job = harness.run()
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", "bad_dataset", "dataset_not_found")


def add_probe(harness):
    spec = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
    request = {"spec": spec.model_dump(mode="json"), "dataset_id": "ds_shapes"}
    harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin")
    lease = harness.do(worker_requests.claim, "tests", 60)
    return RequestRun(harness.database, harness.settings, lease, STUB)


def test_a_probe_unpacks_its_data_set(harness, uploaded):
    add_probe(harness).run()
    assert harness.rows(select(WorkerRequest.status)) == ["succeeded"]
    assert unpacked(harness.settings.uploads_root) == [uploaded]


def test_a_probe_released_while_it_unpacks_counts_no_attempt(harness, uploaded, slow_conversion):
    run = add_probe(harness)
    run.release()
    run.run()
    [probe] = harness.rows(select(WorkerRequest))
    assert (probe.status, probe.attempt) == ("queued", 0)


def test_the_unpacked_files_of_a_deleted_data_set_are_removed(harness, uploaded, monkeypatch):
    monkeypatch.setattr(dispatcher, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(unpacking, "SETTLED_SECONDS", -1)
    job_id = harness.submit(steps=3)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
        assert unpacked(harness.settings.uploads_root) == [uploaded]
        harness.do(lambda session: session.execute(delete(Job)))
        harness.do(lambda session: session.execute(delete(Dataset)))
        until(lambda: unpacked(harness.settings.uploads_root) == [])
