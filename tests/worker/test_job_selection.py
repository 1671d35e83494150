"""Workers whose disks are their own take the jobs that they have everything for."""

import hashlib
import shutil
import time

import pytest
from sqlalchemy import event, select, update
from worker_harness import dispatching, until

from frs.spec import JobSpec
from store.db.tables import Attempt, Dataset, Detector, Job, Worker, WorkerRequest
from store.jobs import lifecycle
from store.requests import worker_requests
from store.scheduling.queue import CPU_ONLY, RESERVATION_SECONDS, GpuCapacity
from store.states import RequestKind
from worker.dispatch import availability, file_checks
from worker.dispatch.availability import Availability
from worker.dispatch.job_selector import JobSelector

GFL = {"architecture": "gfl"}


@pytest.fixture
def elsewhere(harness, tmp_path):
    """Roots of another host, which has nothing yet."""
    roots = {name: tmp_path / "elsewhere" / name for name in ("datasets_root", "models_root", "uploads_root")}
    for root in roots.values():
        root.mkdir(parents=True)
    return roots


@pytest.fixture
def looks_often(monkeypatch):
    monkeypatch.setattr(availability, "RECHECK_SECONDS", 0.3)


def code_of(harness, job_id):
    reason = harness.waiting(job_id)
    return reason and reason.code


def remember_hashes(harness):
    hashes = dict.fromkeys(("train", "val"), hashlib.sha256(b"{}").hexdigest())
    harness.do(lambda session: session.execute(update(Dataset).values(hashes=hashes)))


def test_a_job_is_left_to_the_worker_that_has_its_data(harness, elsewhere):
    job_id = harness.submit(steps=3)
    with dispatching(harness, **elsewhere):
        until(lambda: code_of(harness, job_id) == "dataset_not_on_worker")
        time.sleep(0.5)
        job = harness.job(job_id)
        assert (job.status, job.attempt, job.last_event, job.started_at) == ("queued", 0, 1, None)
        said = harness.waiting(job_id)
        assert "lacks the folder shapes/train of data set shapes" in said.message and "FRS_DATASETS_ROOT" in said.hint
        with dispatching(harness):
            harness.until_status(job_id, "succeeded")
    assert harness.statuses(job_id) == ["queued", "running", "succeeded"]
    assert len(harness.rows(select(Attempt))) == 1


def test_files_put_in_place_later_are_noticed(harness, elsewhere, looks_often):
    job_id = harness.submit(steps=3)
    with dispatching(harness, **elsewhere):
        until(lambda: code_of(harness, job_id) == "dataset_not_on_worker")
        shutil.copytree(harness.settings.datasets_root, elsewhere["datasets_root"], dirs_exist_ok=True)
        harness.until_status(job_id, "succeeded")
        until(lambda: harness.rows(select(Worker.missing)) == [[]])


def test_another_content_is_not_the_data_set_that_was_registered(harness, elsewhere, looks_often):
    remember_hashes(harness)
    root = elsewhere["datasets_root"]
    shutil.copytree(harness.settings.datasets_root, root, dirs_exist_ok=True)
    (root / "shapes" / "val.json").write_text("[]")
    job_id = harness.submit(steps=3)
    with dispatching(harness, **elsewhere):
        until(lambda: code_of(harness, job_id) == "dataset_not_on_worker")
        assert "has another content in shapes/val.json of data set shapes" in harness.waiting(job_id).message
        (root / "shapes" / "val.json").write_text("{}")
        harness.until_status(job_id, "succeeded")


def test_a_data_set_from_before_hashes_were_kept_only_has_to_be_there(harness):
    (harness.settings.datasets_root / "shapes" / "val.json").write_text("[]")
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")


def test_who_lacks_the_first_takes_the_next_in_line(harness, elsewhere):
    mine = elsewhere["datasets_root"] / "mine"
    shutil.copytree(harness.settings.datasets_root / "shapes", mine)
    paths = {f"{half}_images": f"mine/{half}" for half in ("train", "val")}
    paths |= {f"{half}_annotations": f"mine/{half}.json" for half in ("train", "val")}
    harness.do(lambda session: session.add(Dataset(id="ds_mine", name="mine", **paths)))
    others = [harness.submit(steps=3) for _ in range(20)]
    spec = JobSpec.model_validate({"kind": "train", "dataset": "mine", "student": GFL, "metadata": {"steps": "3"}})
    job_id = harness.do(lifecycle.add, spec, dataset_id="ds_mine").id
    with dispatching(harness, **elsewhere):
        harness.until_status(job_id, "succeeded")
    assert {harness.job(other).attempt for other in others} == {0}


@pytest.mark.parametrize("student", [{**GFL, "init": {"weights": "w.pth"}}, {**GFL, "init": {"detector": "mine"}}])
def test_weights_are_looked_for_too(harness, elsewhere, looks_often, student):
    (harness.settings.models_root / "w.pth").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    row = {"id": "det_mine", "name": "mine", "description": {**GFL}, "weights_file": "w.pth", "sha256": sha256}
    harness.do(lambda session: session.add(Detector(**row)))
    job_id = harness.submit({"student": student}, steps=3)
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")
        assert "lacks w.pth" in harness.waiting(job_id).message
        (elsewhere["models_root"] / "w.pth").write_bytes(b"weights")
        harness.until_status(job_id, "succeeded")


def test_a_registered_detector_has_to_be_the_very_file(harness, elsewhere):
    (elsewhere["models_root"] / "w.pth").write_bytes(b"others")
    row = {"id": "det_mine", "name": "mine", "description": {**GFL}, "weights_file": "w.pth", "sha256": "abc"}
    harness.do(lambda session: session.add(Detector(**row)))
    job_id = harness.submit({"kind": "evaluate", "student": {"detector": "mine"}})
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")
    assert harness.job(job_id).attempt == 0


def test_a_busy_worker_says_what_it_will_lack(harness, elsewhere):
    harness.submit(steps=10_000, seconds=0.01)
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: harness.trainers())
        job_id = harness.submit({"student": {**GFL, "init": {"weights": "w.pth"}}})
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")


def test_a_probe_is_left_to_others_too(harness, elsewhere):
    spec = {"kind": "train", "dataset": "shapes", "student": GFL}
    request = {"spec": JobSpec.model_validate(spec).model_dump(mode="json"), "dataset_id": "ds_shapes"}
    worker_request_id = harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id

    def probe():
        return harness.rows(select(WorkerRequest).where(WorkerRequest.id == worker_request_id))[0]

    with dispatching(harness, **elsewhere):
        until(lambda: harness.rows(select(Worker.missing)) not in ([], [[]]))
        assert (probe().status, probe().attempt) == ("queued", 0)
        with dispatching(harness):
            until(lambda: probe().status == "succeeded")


class RetryingSelector:
    """A selector by one who waits until all that is asked of its stock is known."""

    def __init__(self, harness, **changes):
        self.stock = Availability(harness.settings.model_copy(update=changes))
        self.selector = JobSelector(harness.database, self.stock)

    def jobs(self, capacity=CPU_ONLY):
        while True:
            until(self.knows_all)
            found = self.selector.jobs(capacity)
            if self.knows_all() and not self.selector._put_off:
                return found

    def knows_all(self):
        self.stock._take_in()
        return not any(look.is_under_way for look in self.stock._looks.values())


def test_no_gpu_is_kept_for_a_job_whose_data_is_not_here(harness, elsewhere):
    shutil.copytree(harness.settings.datasets_root, elsewhere["datasets_root"], dirs_exist_ok=True)
    large = harness.submit({"student": {**GFL, "init": {"weights": "w.pth"}}})
    waited = {"devices": 4, "created_at": Job.created_at - 2 * RESERVATION_SECONDS}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == large).values(waited)))
    small = harness.submit({"resources": {"devices": 1}})
    assert RetryingSelector(harness, **elsewhere).jobs(GpuCapacity(gpus=4, free=1)) == [small]
    (harness.settings.models_root / "w.pth").write_bytes(b"weights")
    assert RetryingSelector(harness).jobs(GpuCapacity(gpus=4, free=1)) == [], "kept for the large one"
    assert RetryingSelector(harness).jobs(GpuCapacity(gpus=4, free=4)) == [large, small]


def test_where_nothing_is_lacking_a_look_takes_one_query(harness):
    for _ in range(20):
        harness.submit()
    chosen, statements = RetryingSelector(harness), []
    chosen.jobs()
    event.listen(harness.database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    assert len(chosen.jobs()) == 8
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "SELECT"]


def test_to_tell_of_a_lack_is_not_to_ask_for_it(harness, elsewhere, looks_often):
    """Else a data set would be left out of the line, unasked for, until it is forgotten and then told of no more."""
    harness.submit()
    chosen = RetryingSelector(harness, **elsewhere)
    for _ in range(3):
        until(
            lambda: chosen.jobs() == [] and chosen.selector.exclusions.datasets == {"ds_shapes"}
        )  # for a moment: it may pass
        for _ in range(4):
            time.sleep(0.1)
            assert [told["key"] for told in chosen.stock.told()] == ["ds_shapes"]
        assert chosen.selector.exclusions.datasets == chosen.selector.exclusions.jobs == frozenset()


def test_a_lack_that_nobody_asks_about_any_more_is_told_no_more(harness, elsewhere, monkeypatch):
    job_id = harness.submit()
    chosen = RetryingSelector(harness, **elsewhere)
    chosen.jobs()
    assert len(chosen.stock.told()) == 1
    harness.cancel(job_id)
    monkeypatch.setattr(availability, "REPORT_SECONDS", 0.0)
    assert chosen.stock.told() == []


def test_a_large_file_is_hashed_once_for_each_version(harness, looks_often, monkeypatch):
    remember_hashes(harness)
    hashed, digest = [], file_checks.digest
    monkeypatch.setattr(file_checks, "digest", lambda path: (hashed.append(path.name), digest(path))[1])
    harness.submit()
    chosen = RetryingSelector(harness)
    for _ in range(3):
        assert len(chosen.jobs()) == 1
        time.sleep(0.35)
    assert hashed == ["train.json", "val.json"]
    (harness.settings.datasets_root / "shapes" / "val.json").write_text("{} ")
    assert chosen.jobs() == []
    assert hashed == ["train.json", "val.json", "val.json"]


def test_a_line_of_many_jobs_that_lack_their_weights_is_walked_to_its_end(harness):
    for _ in range(50):
        harness.submit({"student": {**GFL, "init": {"weights": "w.pth"}}})
    job_id = harness.submit()
    assert RetryingSelector(harness).jobs() == [job_id]
