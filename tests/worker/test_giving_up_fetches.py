"""A slow fetch is abandoned after a requested action, a release or a lost lease."""

import hashlib

import pytest
from sqlalchemy import select, update
from test_worker_requests import add_probe, add_upload
from waiting import until
from worker_harness import STUB, dispatching, in_background

from store.artifacts.folder import ArtifactFolder
from store.artifacts.local_files import Abandoned
from store.db.tables import Attempt, Dataset, Job, WorkerRequest
from store.jobs import actions
from store.requests import worker_requests
from worker.attempt import work_folder
from worker.attempt.trainer_run import Interruption
from worker.attempt.worker_request import RequestRun

STEPS = 20


@pytest.fixture
def fetches(monkeypatch):
    """Return the list of the keys whose fetch has started; each blocks until it is abandoned."""
    keys = []

    def fetch(folder, key, sha256, target, is_abandoned=lambda: False, size=None):
        keys.append(key)
        until(is_abandoned)
        raise Abandoned

    monkeypatch.setattr(ArtifactFolder, "fetch", fetch)
    return keys


def submit_needing_archive(harness):
    harness.do(lambda session: session.execute(update(Dataset).values(upload_key=f"uploads/{'a' * 64}.zip")))
    return harness.submit()


def submit_needing_checkpoint(harness):
    return harness.run(steps=STEPS, crash_at=13).id


def submit_needing_weights(harness):
    return harness.submit({"kind": "distill", "teacher": {"job": harness.run(steps=STEPS).id}})


@pytest.mark.parametrize("submit", [submit_needing_archive, submit_needing_checkpoint, submit_needing_weights])
@pytest.mark.parametrize(("action", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_requested_action_takes_effect_while_files_are_fetched(harness, submit, action, status, request):
    job_id = submit(harness)
    fetches = request.getfixturevalue("fetches")
    with dispatching(harness):
        until(lambda: fetches)
        harness.do(getattr(actions, action), job_id)
        harness.until_status(job_id, status, 10)


@pytest.mark.parametrize("submit", [submit_needing_archive, submit_needing_checkpoint, submit_needing_weights])
def test_a_stopping_worker_requeues_a_job_that_fetches_files(harness, submit, request):
    job_id = submit(harness)
    fetches = request.getfixturevalue("fetches")
    with dispatching(harness, grace_seconds=20) as worker:
        until(lambda: fetches)
        worker.stop()
        harness.until_status(job_id, "queued", 10)
    ends = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id).order_by(Attempt.number))
    assert ends[-1] == "released"


@pytest.mark.parametrize("kind", ["probe", "import"])
def test_a_released_worker_request_is_requeued_while_files_are_fetched(harness, fetches, kind):
    if kind == "probe":
        submit_needing_archive(harness)
        add_probe(harness)
    else:
        add_upload(harness, "weights")
    lease = harness.do(worker_requests.claim, "tests", 60)
    run = RequestRun(harness.database, harness.settings, lease, STUB)
    thread = in_background(run)
    until(lambda: fetches)
    run.release()
    thread.join(10)
    assert not thread.is_alive()
    [worker_request] = harness.rows(select(WorkerRequest))
    assert (worker_request.status, worker_request.attempt) == ("queued", 0)


def test_an_attempt_without_its_lease_deletes_no_artifact_of_its_successor(harness, monkeypatch):
    job_id = harness.submit()
    supervisor = harness.supervisor()
    key = f"{job_id}/checkpoints/of_the_successor.pth"

    def lose_lease(*_):
        harness.do(lambda session: session.execute(update(Job).values(attempt=2)))
        (harness.settings.work_root / "file").write_text("put")
        harness.artifacts.put(harness.settings.work_root / "file", key, hashlib.sha256(b"put").hexdigest())
        until(lambda: supervisor.interruption is Interruption.LEASE_LOST)

    monkeypatch.setattr(work_folder, "check_space", lose_lease)
    supervisor.run()
    with harness.artifacts.open(key) as file:
        assert file.read() == b"put"
    assert (harness.job(job_id).status, harness.job(job_id).attempt) == ("running", 2)
