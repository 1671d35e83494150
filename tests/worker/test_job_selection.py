"""A worker takes the jobs whose required files are on its disks and skips the others."""

import errno
import hashlib
import shutil
from unittest.mock import Mock

import pytest
from sqlalchemy import event, select, update
from waiting import until
from worker_harness import dispatching, split_columns, until_polled

from frs.spec import JobSpec
from store.db.tables import Attempt, Dataset, Detector, Job, Worker, WorkerRequest
from store.jobs import lifecycle
from store.requests import worker_requests
from store.scheduling.queue import CPU_ONLY, RESERVATION_SECONDS, GpuCapacity
from store.states import RequestKind
from worker.dispatch import file_availability, file_checks, job_selector
from worker.dispatch.file_availability import FileAvailability
from worker.dispatch.file_checks import FileChecks
from worker.dispatch.job_selector import JobSelector

GFL = {"architecture": "gfl"}


@pytest.fixture
def elsewhere(harness, tmp_path):
    """Empty data folders of another host."""
    roots = {name: tmp_path / "elsewhere" / name for name in ("datasets_root", "models_root", "uploads_root")}
    for root in roots.values():
        root.mkdir(parents=True)
    return roots


@pytest.fixture
def frequent_checks(monkeypatch):
    monkeypatch.setattr(file_availability, "RECHECK_SECONDS", 0.3)
    monkeypatch.setattr(file_availability, "RENEW_SECONDS", 0.1)


def code_of(harness, job_id):
    reason = harness.waiting_reason(job_id)
    return reason and reason.code


def missing_of_jobs(harness):
    """Return each worker's entries for queued jobs, without the ImageNet weights that it reports before any job."""
    return [[entry for entry in missing if entry["owner"]] for missing in harness.rows(select(Worker.missing))]


def store_hashes(harness):
    hashes = dict.fromkeys(("train", "val"), hashlib.sha256(b"{}").hexdigest())
    harness.do(lambda session: session.execute(update(Dataset).values(hashes=hashes)))


def test_a_worker_skips_a_job_whose_data_set_it_lacks(harness, elsewhere):
    job_id = harness.submit(steps=3)
    with dispatching(harness, **elsewhere):
        until(lambda: code_of(harness, job_id) == "dataset_not_on_worker")
        until_polled(harness)
        job = harness.job(job_id)
        assert (job.status, job.attempt, job.last_event, job.started_at) == ("queued", 0, 1, None)
        reason = harness.waiting_reason(job_id)
        assert "lacks the folder shapes/train of data set shapes" in reason.message
        assert "FRS_DATASETS_ROOT" in reason.hint
        with dispatching(harness):
            harness.until_status(job_id, "succeeded")
    assert harness.statuses(job_id) == ["queued", "running", "succeeded"]
    assert len(harness.rows(select(Attempt))) == 1


def test_a_worker_with_too_little_disk_space_starts_no_attempt(harness, frequent_checks, monkeypatch):
    free = {"mib": 5}
    lacking = "has {mib} MiB of free disk space; a job requires 9 MiB to start."
    monkeypatch.setattr(
        file_checks, "describe_lack_of_space", lambda _: lacking.format(**free) if free["mib"] < 9 else None
    )
    job_id = harness.submit(steps=3)
    with dispatching(harness):
        until(lambda: code_of(harness, job_id) == "waiting_for_storage")
        reason = harness.waiting_reason(job_id)
        assert "has 5 MiB of free disk space; a job requires 9 MiB to start." in reason.message
        assert harness.job(job_id).attempt == 0
        free["mib"] = 10
        harness.until_status(job_id, "succeeded")
    assert len(harness.rows(select(Attempt))) == 1
    assert harness.statuses(job_id) == ["queued", "running", "succeeded"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"), (RuntimeError("unexpected"), "RuntimeError")],
)
def test_a_check_that_fails_is_reported_and_repeated(harness, frequent_checks, monkeypatch, error, reason):
    real, failing = file_checks.describe_lack_of_space, {"fails": True}

    def describe(settings):
        if failing["fails"]:
            raise error
        return real(settings)

    monkeypatch.setattr(file_checks, "describe_lack_of_space", describe)
    job_id = harness.submit(steps=3)
    with dispatching(harness):
        until(lambda: code_of(harness, job_id) == "waiting_for_storage")
        assert f"cannot read its free disk space: {reason}." in harness.waiting_reason(job_id).message
        failing["fails"] = False
        harness.until_status(job_id, "succeeded")


def test_files_added_later_are_detected(harness, elsewhere, frequent_checks):
    job_id = harness.submit(steps=3)
    with dispatching(harness, **elsewhere):
        until(lambda: code_of(harness, job_id) == "dataset_not_on_worker")
        shutil.copytree(harness.settings.datasets_root, elsewhere["datasets_root"], dirs_exist_ok=True)
        harness.until_status(job_id, "succeeded")
        until(lambda: missing_of_jobs(harness) == [[]])


def test_a_data_set_with_other_content_than_registered_is_missing(harness, elsewhere, frequent_checks):
    store_hashes(harness)
    root = elsewhere["datasets_root"]
    shutil.copytree(harness.settings.datasets_root, root, dirs_exist_ok=True)
    (root / "shapes" / "val.json").write_text("[]")
    job_id = harness.submit(steps=3)
    with dispatching(harness, **elsewhere):
        until(lambda: code_of(harness, job_id) == "dataset_not_on_worker")
        assert "has other content in shapes/val.json of data set shapes" in harness.waiting_reason(job_id).message
        (root / "shapes" / "val.json").write_text("{}")
        harness.until_status(job_id, "succeeded")


def test_a_data_set_without_hashes_only_has_to_exist(harness):
    (harness.settings.datasets_root / "shapes" / "val.json").write_text("[]")
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")


def test_a_worker_takes_the_next_job_when_it_lacks_the_files_of_the_first(harness, elsewhere):
    mine = elsewhere["datasets_root"] / "mine"
    shutil.copytree(harness.settings.datasets_root / "shapes", mine)
    paths = split_columns("mine/{}", "mine/{}.json")
    harness.do(lambda session: session.add(Dataset(id="ds_mine", name="mine", **paths)))
    others = [harness.submit(steps=3) for _ in range(20)]
    spec = JobSpec.model_validate({"kind": "train", "dataset": "mine", "student": GFL, "metadata": {"steps": "3"}})
    job_id = harness.do(lifecycle.add, spec, dataset_id="ds_mine").id
    with dispatching(harness, **elsewhere):
        harness.until_status(job_id, "succeeded")
    assert {harness.job(other).attempt for other in others} == {0}


@pytest.mark.parametrize("student", [{**GFL, "init": {"weights": "w.pth"}}, {**GFL, "init": {"detector": "mine"}}])
def test_a_worker_skips_a_job_whose_weights_it_lacks(harness, elsewhere, frequent_checks, student):
    (harness.settings.models_root / "w.pth").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    row = {"id": "det_mine", "name": "mine", "description": {**GFL}, "weights_file": "w.pth", "sha256": sha256}
    harness.do(lambda session: session.add(Detector(**row)))
    job_id = harness.submit({"student": student}, steps=3)
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")
        assert "lacks w.pth" in harness.waiting_reason(job_id).message
        (elsewhere["models_root"] / "w.pth").write_bytes(b"weights")
        harness.until_status(job_id, "succeeded")


@pytest.fixture
def no_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


RESNET18 = {**GFL, "backbone": {"depth": 18}, "init": "imagenet"}


def test_a_worker_skips_a_job_whose_imagenet_weights_it_lacks(harness, elsewhere, frequent_checks, no_caches):
    job_id = harness.submit({"student": RESNET18}, steps=3)
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")
        message = harness.waiting_reason(job_id).message
        assert "lacks the ImageNet weights resnet18-f37072fd.pth. Download it with `frs models pull" in message
        (elsewhere["models_root"] / "resnet18-f37072fd.pth").touch()
        harness.until_status(job_id, "succeeded")


def test_a_worker_reports_the_imagenet_weights_that_it_lacks_before_a_job_requires_them(
    harness, frequent_checks, no_caches
):
    def reported():
        keys = {entry["key"] for missing in harness.rows(select(Worker.missing)) for entry in missing}
        return [name for name in ("resnet18", "resnet34") if f"imagenet/torchvision://{name}" in keys]

    with dispatching(harness):
        until(lambda: reported() == ["resnet18", "resnet34"])
        (harness.settings.models_root / "resnet18-f37072fd.pth").touch()
        until(lambda: reported() == ["resnet34"])


def test_a_file_with_another_sha256_is_not_the_registered_detector(harness, elsewhere):
    (elsewhere["models_root"] / "w.pth").write_bytes(b"others")
    row = {"id": "det_mine", "name": "mine", "description": {**GFL}, "weights_file": "w.pth", "sha256": "abc"}
    harness.do(lambda session: session.add(Detector(**row)))
    job_id = harness.submit({"kind": "evaluate", "student": {"detector": "mine"}})
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")
    assert harness.job(job_id).attempt == 0


def test_a_busy_worker_reports_missing_requirements(harness, elsewhere):
    harness.submit(steps=10_000, seconds=0.01)
    with dispatching(harness, models_root=elsewhere["models_root"]):
        until(lambda: harness.trainers())
        job_id = harness.submit({"student": {**GFL, "init": {"weights": "w.pth"}}})
        until(lambda: code_of(harness, job_id) == "weights_not_on_worker")


def test_a_worker_skips_a_probe_whose_data_set_it_lacks(harness, elsewhere):
    spec = {"kind": "train", "dataset": "shapes", "student": GFL}
    request = {"spec": JobSpec.model_validate(spec).model_dump(mode="json"), "dataset_id": "ds_shapes"}
    worker_request_id = harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id

    def probe():
        return harness.rows(select(WorkerRequest).where(WorkerRequest.id == worker_request_id))[0]

    with dispatching(harness, **elsewhere):
        until(lambda: missing_of_jobs(harness) not in ([], [[]]))
        assert (probe().status, probe().attempt) == ("queued", 0)
        with dispatching(harness):
            until(lambda: probe().status == "succeeded")


def selector_of(harness, **changes):
    """Return the selector of a worker; `changes` of the settings make it another host."""
    return JobSelector(harness.database, FileAvailability(harness.settings.model_copy(update=changes)))


def until_selected(selector, job_ids, capacity=CPU_ONLY):
    """Wait until the files are checked and exactly these jobs are selected."""
    until(lambda: selector.select_jobs(capacity) == job_ids)


def test_no_gpu_is_reserved_for_a_job_whose_files_are_missing(harness, elsewhere):
    shutil.copytree(harness.settings.datasets_root, elsewhere["datasets_root"], dirs_exist_ok=True)
    large = harness.submit({"student": {**GFL, "init": {"weights": "w.pth"}}})
    values = {"devices": 4, "created_at": Job.created_at - 2 * RESERVATION_SECONDS}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == large).values(values)))
    small = harness.submit({"resources": {"devices": 1}})
    until_selected(selector_of(harness, **elsewhere), [small], GpuCapacity(gpus=4, free=1))
    (harness.settings.models_root / "w.pth").write_bytes(b"weights")
    selector = selector_of(harness)
    until_selected(selector, [large, small], GpuCapacity(gpus=4, free=4))
    assert selector.select_jobs(GpuCapacity(gpus=4, free=1)) == [], "reserved for the large job"


def test_a_selection_takes_one_query_if_nothing_is_missing(harness):
    job_ids = [harness.submit() for _ in range(20)]
    selector, statements = selector_of(harness), []
    until_selected(selector, job_ids[:8])
    event.listen(harness.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert len(selector.select_jobs(CPU_ONLY)) == 8
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "SELECT"]


def test_a_missing_data_set_is_reported_as_long_as_jobs_need_it_and_its_jobs_are_skipped(
    harness, elsewhere, monkeypatch
):
    """A skipped data set hides its jobs from the selection, which must not end the reason that they show."""
    clock = Mock(monotonic=Mock(return_value=1e6))
    for module in (file_availability, job_selector):
        monkeypatch.setattr(module, "time", clock)
    harness.submit()
    availability = FileAvailability(harness.settings.model_copy(update=elsewhere))
    selector = JobSelector(harness.database, availability)
    until(lambda: selector.select_jobs(CPU_ONLY) == [] and availability.report())
    for _ in range(round(2 * file_availability.REPORT_SECONDS / job_selector.FORGET_SECONDS)):
        clock.monotonic.return_value += job_selector.FORGET_SECONDS
        assert selector.select_jobs(CPU_ONLY) == []
        assert [issue["key"] for issue in availability.report()] == ["ds_shapes"]
        assert selector.exclusions().datasets == {"ds_shapes"}


def test_a_missing_requirement_of_no_queued_job_is_no_longer_reported(harness, elsewhere, monkeypatch):
    job_id = harness.submit()
    availability = FileAvailability(harness.settings.model_copy(update=elsewhere))
    selector = JobSelector(harness.database, availability)
    until(lambda: selector.select_jobs(CPU_ONLY) == [] and len(availability.report()) == 1)
    harness.cancel(job_id)
    monkeypatch.setattr(file_availability, "REPORT_SECONDS", 0.0)
    assert availability.report() == []


def test_a_large_file_is_hashed_once_for_each_version(harness, frequent_checks, monkeypatch):
    checked, find_issue = [], FileChecks.find_issue
    monkeypatch.setattr(FileChecks, "find_issue", lambda *called: (checked.append(called), find_issue(*called))[1])
    store_hashes(harness)
    hashed, digest = [], file_checks.digest
    monkeypatch.setattr(file_checks, "digest", lambda path: (hashed.append(path.name), digest(path))[1])
    job_id = harness.submit()
    selector = selector_of(harness)
    until_selected(selector, [job_id])
    until(lambda: len(checked) > 4)
    until_selected(selector, [job_id])
    assert hashed == ["train.json", "val.json"]
    (harness.settings.datasets_root / "shapes" / "val.json").write_text("{} ")
    until(lambda: hashed == ["train.json", "val.json", "val.json"])
    until_selected(selector, [])


def test_a_long_queue_of_skipped_jobs_is_searched_to_its_end(harness):
    for _ in range(50):
        harness.submit({"student": {**GFL, "init": {"weights": "w.pth"}}})
    job_id = harness.submit()
    until_selected(selector_of(harness), [job_id])
