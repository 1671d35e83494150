"""Requirements of a job on a worker's disks, and the waiting reason if no worker meets them."""

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
    job_spec = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": GFL, **spec})
    return harness.do(lifecycle.add, job_spec, dataset_id="ds_shapes").id


def requirements(harness, **spec) -> dict[str, Requirement]:
    job = harness.job(submit(harness, **spec))
    with harness.database.read() as session:
        return {item.key: item for item in requirements_of(session, job)}


def add(harness, row):
    harness.do(lambda session: session.add(row))


def register(harness, host, *, gpus=(), missing=()):
    entries = [{"key": key, "owner": "admin", "message": message} for key, message in missing]
    harness.do(worker_registry.register, host, host=host, version="1", concurrency=1, gpus=list(gpus), missing=entries)


def reason_of(harness, job_id):
    with harness.database.read() as session:
        reason = waiting_reason(session, harness.job(job_id))
    return (reason.code, reason.message)


def test_a_job_requires_both_splits_of_its_data_set_as_checked(harness):
    harness.do(lambda session: session.execute(update(Dataset).values(hashes={"train": "abc"}, val_annotations="y")))
    [requirement] = requirements(harness).values()
    assert requirement.files == (("x", "abc"), ("y", None)) and requirement.folders == ("x", "x")
    assert (requirement.key, requirement.reason) == ("ds_shapes", WaitingReason.DATASET)


def test_an_uploaded_data_set_is_not_required_on_the_disk(harness):
    harness.do(lambda session: session.execute(update(Dataset).values(upload_key="uploads/a.zip")))
    assert requirements(harness) == {}


def test_only_the_training_split_of_an_unlabelled_data_set_is_required(harness):
    paths = {f"{split}_{kind}": f"more/{split}" for split in ("train", "val") for kind in ("images", "annotations")}
    add(harness, Dataset(id="ds_more", name="more", hashes={"train": "abc", "val": "def"}, **paths))
    requirement = requirements(harness, kind="distill", teacher=GFL, unlabelled="more")["ds_more/train"]
    assert (requirement.files, requirement.folders) == ((("more/train", "abc"),), ("more/train",))


def test_weights_are_required_if_they_are_files_in_the_models_folder(harness):
    add(harness, Detector(id="det_file", name="file", description={}, weights_file="t.pth", sha256="abc"))
    add(harness, Detector(id="det_kept", name="kept", description={}, weights_key="k/k", sha256="abc"))
    spec = {"kind": "distill", "student": {**GFL, "init": {"weights": "s.pth"}}}
    required = requirements(harness, **spec, teacher={"detector": "file"})
    assert required["det_file"].files == (("t.pth", "abc"),)
    assert required["weights/s.pth"].files == (("s.pth", None),)
    backbone = requirements(harness, kind="train", student={**GFL, "init": {"backbone": "own.pth"}})
    assert backbone["weights/own.pth"].files == (("own.pth", None),)
    assert "det_file" in requirements(harness, **spec, teacher={**GFL, "init": {"detector": "det_file"}})
    assert requirements(harness, kind="evaluate", student={"detector": "kept"}).keys() == {"ds_shapes"}


def test_the_imagenet_weights_of_each_detector_are_required(harness):
    student = {**GFL, "backbone": {"depth": 18}, "init": "imagenet"}
    required = requirements(harness, kind="distill", student=student, teacher={**GFL, "init": "imagenet"})
    sources = ["imagenet/torchvision://resnet18", "imagenet/torchvision://resnet50"]
    assert [key for key in required if key.startswith("imagenet/")] == sources
    assert [file.file for file in required[sources[0]].published] == ["resnet18-f37072fd.pth"]
    assert not any("imagenet" in key for key in requirements(harness, student=GFL))


def test_a_job_waits_for_the_worker_that_meets_its_requirements(harness):
    job_id = submit(harness)
    register(harness, "one", missing=[("ds_shapes", "lacks it.")])
    register(harness, "two", missing=[("ds_other", "lacks another.")])
    message = "A worker claims the job once it has free capacity and no job precedes it in the queue."
    assert reason_of(harness, job_id) == ("waiting_for_worker", message)


def test_the_waiting_reason_names_the_missing_files_of_each_worker(harness):
    job_id = submit(harness)
    for host in ("one", "two"):
        register(harness, host, missing=[("ds_other", "lacks another."), ("ds_shapes", "lacks x of data set shapes.")])
    code, message = reason_of(harness, job_id)
    assert code == "dataset_not_on_worker"
    assert message == "one lacks x of data set shapes. two lacks x of data set shapes."
    register(harness, "two")
    assert reason_of(harness, job_id)[0] == "waiting_for_worker", "a worker that meets the requirements ends the reason"


def test_a_message_names_each_host_once_and_at_most_three(harness):
    job_id = submit(harness)
    for host in ("one", "two", "three", "four", "five"):
        register(harness, host, missing=[("ds_shapes", "lacks it.")])
    harness.do(worker_registry.register, "second worker", host="one", version="1", concurrency=1, gpus=[], missing=[
        {"key": "ds_shapes", "owner": "admin", "message": "lacks it."}
    ])  # fmt: skip
    assert reason_of(harness, job_id)[1].endswith("And 2 more workers.")
    assert reason_of(harness, job_id)[1].count("one lacks") == 1


def test_a_worker_with_too_few_gpus_is_ignored(harness):
    job_id = submit(harness, resources={"devices": 1})
    register(harness, "small")
    register(harness, "large", gpus=[GPU], missing=[("ds_shapes", "lacks it.")])
    assert reason_of(harness, job_id) == ("dataset_not_on_worker", "large lacks it.")


def test_a_worker_of_the_previous_version_may_meet_the_requirements(harness):
    job_id = submit(harness)
    register(harness, "new", missing=[("ds_shapes", "lacks it.")])
    register(harness, "old")
    harness.do(
        lambda session: session.execute(
            update(worker_registry.Worker).where(worker_registry.Worker.id == "old").values(missing=None)
        )
    )
    assert reason_of(harness, job_id)[0] == "waiting_for_worker"


@pytest.mark.parametrize("code", ["dataset_not_on_worker", "weights_not_on_worker"])
def test_the_hint_names_the_folder_for_missing_files(code):
    assert "below" in WAITING_HINTS[WaitingReason(code)]


def test_a_job_of_another_version_requires_a_worker_that_reads_its_spec(harness):
    job = harness.job(submit(harness))
    for spec, field in (({**job.spec, "novelty": 1}, "novelty"), ({}, "dataset"), ([], "model_type")):
        job.spec = spec
        with harness.database.read() as session:
            [requirement] = requirements_of(session, job)
        assert (requirement.key, requirement.reason) == (f"spec/{job.id}", WaitingReason.SPEC)
        assert requirement.label == field
