"""What a job needs on a worker's disks, and what is said of a job that no worker has it for."""

import pytest
from sqlalchemy import update

from frs.spec import JobSpec
from store.db.tables import Dataset, Detector
from store.jobs import lifecycle
from store.scheduling import worker_registry
from store.scheduling.requirements import Requirement, requirements_of
from store.scheduling.waiting import waiting_reason
from store.states import WAITING_HINTS, WaitingReason

GFL = {"architecture": "gfl"}
GPU = {"index": 0, "name": "A GPU"}


def submit(harness, **spec) -> str:
    whole = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": GFL, **spec})
    return harness.do(lifecycle.add, whole, dataset_id="ds_shapes").id


def needs(harness, **spec) -> dict[str, Requirement]:
    job = harness.job(submit(harness, **spec))
    with harness.database.read() as session:
        return {need.key: need for need in requirements_of(session, job)}


def add(harness, row):
    harness.do(lambda session: session.add(row))


def check_in(harness, host, *, gpus=(), missing=()):
    entries = [{"key": key, "owner": "admin", "message": message} for key, message in missing]
    harness.do(worker_registry.register, host, host=host, version="1", concurrency=1, gpus=list(gpus), missing=entries)


def waits(harness, job_id):
    with harness.database.read() as session:
        reason = waiting_reason(session, harness.job(job_id))
    return (reason.code, reason.message)


def test_a_job_needs_both_halves_of_its_data_set_as_they_were_checked(harness):
    harness.do(lambda session: session.execute(update(Dataset).values(hashes={"train": "abc"}, val_annotations="y")))
    [need] = needs(harness).values()
    assert need.files == (("x", "abc"), ("y", None)) and need.folders == ("x", "x")
    assert (need.key, need.code) == ("ds_shapes", WaitingReason.DATASET)


def test_an_uploaded_data_set_is_fetched_from_the_artifacts(harness):
    harness.do(lambda session: session.execute(update(Dataset).values(upload_key="uploads/a.zip")))
    assert needs(harness) == {}


def test_of_a_set_without_boxes_the_training_half_is_needed(harness):
    paths = {f"{half}_{what}": f"more/{half}" for half in ("train", "val") for what in ("images", "annotations")}
    add(harness, Dataset(id="ds_more", name="more", hashes={"train": "abc", "val": "def"}, **paths))
    need = needs(harness, kind="distill", teacher=GFL, unlabelled="more")["ds_more/train"]
    assert (need.files, need.folders) == ((("more/train", "abc"),), ("more/train",))


def test_weights_are_needed_where_they_are_files(harness):
    add(harness, Detector(id="det_file", name="file", description={}, weights_file="t.pth", sha256="abc"))
    add(harness, Detector(id="det_kept", name="kept", description={}, weights_key="k/k", sha256="abc"))
    spec = {"kind": "distill", "student": {**GFL, "init": {"weights": "s.pth"}}}
    found = needs(harness, **spec, teacher={"detector": "file"})
    assert found["det_file"].files == (("t.pth", "abc"),)
    assert found["weights/s.pth"].files == (("s.pth", None),)
    assert "det_file" in needs(harness, **spec, teacher={**GFL, "init": {"detector": "det_file"}})
    assert needs(harness, kind="evaluate", student={"detector": "kept"}).keys() == {"ds_shapes"}


def test_a_job_that_one_worker_has_everything_for_waits_for_that_worker(harness):
    job_id = submit(harness)
    check_in(harness, "one", missing=[("ds_shapes", "lacks it.")])
    check_in(harness, "two", missing=[("ds_other", "lacks another.")])
    assert waits(harness, job_id) == ("waiting_for_worker", "The next free worker takes it.")


def test_a_job_that_no_worker_has_the_data_for_says_who_lacks_what(harness):
    job_id = submit(harness)
    for host in ("one", "two"):
        check_in(harness, host, missing=[("ds_other", "lacks another."), ("ds_shapes", "lacks x of data set shapes.")])
    code, message = waits(harness, job_id)
    assert code == "dataset_not_on_worker"
    assert message == "one lacks x of data set shapes. two lacks x of data set shapes."
    check_in(harness, "two")
    assert waits(harness, job_id)[0] == "waiting_for_worker", "nothing has to be taken back"


def test_many_workers_of_one_host_are_named_once_and_many_hosts_not_all(harness):
    job_id = submit(harness)
    for host in ("one", "two", "three", "four", "five"):
        check_in(harness, host, missing=[("ds_shapes", "lacks it.")])
    harness.do(worker_registry.register, "twin", host="one", version="1", concurrency=1, gpus=[], missing=[
        {"key": "ds_shapes", "owner": "admin", "message": "lacks it."}
    ])  # fmt: skip
    assert waits(harness, job_id)[1].endswith("And 2 more workers.")
    assert waits(harness, job_id)[1].count("one lacks") == 1


def test_a_worker_that_is_too_small_is_of_no_account(harness):
    job_id = submit(harness, resources={"devices": 1})
    check_in(harness, "small")
    check_in(harness, "large", gpus=[GPU], missing=[("ds_shapes", "lacks it.")])
    assert waits(harness, job_id) == ("dataset_not_on_worker", "large lacks it.")


def test_a_worker_of_the_version_before_says_nothing_and_may_have_it(harness):
    job_id = submit(harness)
    check_in(harness, "new", missing=[("ds_shapes", "lacks it.")])
    check_in(harness, "old")
    harness.do(
        lambda session: session.execute(
            update(worker_registry.Worker).where(worker_registry.Worker.id == "old").values(missing=None)
        )
    )
    assert waits(harness, job_id)[0] == "waiting_for_worker"


@pytest.mark.parametrize("code", ["dataset_not_on_worker", "weights_not_on_worker"])
def test_each_reason_has_a_next_step(code):
    assert "below" in WAITING_HINTS[WaitingReason(code)]


def test_of_another_versions_job_a_reader_is_needed(harness):
    job = harness.job(submit(harness))
    for spec, place in (({**job.spec, "novelty": 1}, "novelty"), ({}, "dataset"), ([], "model_type")):
        job.spec = spec
        with harness.database.read() as session:
            [need] = requirements_of(session, job)
        assert (need.key, need.code, need.what) == (f"spec/{job.id}", WaitingReason.SPEC, place)
