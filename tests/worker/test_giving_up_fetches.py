"""What takes long to fetch outlasts neither a requested_action, nor the grace, nor the lease."""

import hashlib

import pytest
from sqlalchemy import select, update
from test_worker_requests import add_probe, add_upload
from worker_harness import STUB, dispatching, in_background, until

from store.artifacts.folder import ArtifactFolder
from store.artifacts.local_files import Abandoned
from store.db.tables import Attempt, Dataset, Job, WorkerRequest
from store.jobs import actions
from store.requests import worker_requests
from worker.attempt import work_folder
from worker.attempt.worker_request import RequestRun

STEPS = 20


@pytest.fixture
def fetches(monkeypatch):
    """Keys of all that were begun; none ends before it is given up."""
    begun = []

    def fetch(folder, key, sha256, target, give_up=lambda: False, size=None):
        begun.append(key)
        until(give_up)
        raise Abandoned

    monkeypatch.setattr(ArtifactFolder, "fetch", fetch)
    return begun


def needs_an_archive(harness):
    harness.do(lambda session: session.execute(update(Dataset).values(upload_key=f"uploads/{'a' * 64}.zip")))
    return harness.submit()


def needs_a_checkpoint(harness):
    return harness.run(steps=STEPS, crash_at=13).id


def needs_weights(harness):
    return harness.submit({"kind": "distill", "teacher": {"job": harness.run(steps=STEPS).id}})


@pytest.mark.parametrize("needy", [needs_an_archive, needs_a_checkpoint, needs_weights])
@pytest.mark.parametrize(("action", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_wish_is_heeded_while_files_are_fetched(harness, needy, action, status, request):
    job_id = needy(harness)
    fetches = request.getfixturevalue("fetches")
    with dispatching(harness):
        until(lambda: fetches)
        harness.do(getattr(actions, action), job_id)
        harness.until_status(job_id, status, 10)


@pytest.mark.parametrize("needy", [needs_an_archive, needs_a_checkpoint, needs_weights])
def test_a_worker_that_stops_gives_the_job_back_and_counts_no_attempt(harness, needy, request):
    job_id = needy(harness)
    fetches = request.getfixturevalue("fetches")
    with dispatching(harness, grace_seconds=20) as running:
        until(lambda: fetches)
        running.stop()
        harness.until_status(job_id, "queued", 10)
    ends = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id).order_by(Attempt.number))
    assert ends[-1] == "released"


@pytest.mark.parametrize("kind", ["probe", "import"])
def test_a_worker_request_is_given_back_while_files_are_fetched(harness, fetches, kind):
    if kind == "probe":
        needs_an_archive(harness)
        add_probe(harness)
    else:
        add_upload(harness, "weights")
    lease = harness.do(worker_requests.claim, "tests", 60)
    running = RequestRun(harness.database, harness.settings, lease, STUB)
    thread = in_background(running)
    until(lambda: fetches)
    running.release()
    thread.join(10)
    assert not thread.is_alive()
    [worker_request] = harness.rows(select(WorkerRequest))
    assert (worker_request.status, worker_request.attempt) == ("queued", 0)


def test_who_lost_the_lease_meanwhile_deletes_nothing_of_its_successors(harness, monkeypatch):
    job_id = harness.submit()
    supervisor = harness.supervisor()
    key = f"{job_id}/checkpoints/of_the_successor.pth"

    def takes_long(*_):
        harness.do(lambda session: session.execute(update(Job).values(attempt=2)))
        (harness.settings.work_root / "file").write_text("put")
        harness.artifacts.put(harness.settings.work_root / "file", key, hashlib.sha256(b"put").hexdigest())
        until(lambda: supervisor.heartbeat.lost)

    monkeypatch.setattr(work_folder, "check_space", takes_long)
    supervisor.run()
    with harness.artifacts.open(key) as file:
        assert file.read() == b"put"
    assert (harness.job(job_id).status, harness.job(job_id).attempt) == ("running", 2)
