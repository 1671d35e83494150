import hashlib
import shutil

import pytest
from sqlalchemy import select
from worker_harness import split_columns

from frs.detector_spec import InitFromDetector
from frs.errors import DatasetNotFound, FrsError, InvalidSpec, WeightsNotFound
from frs.spec import JobSpec
from store.db import api_keys
from store.db.tables import Dataset, Detector
from store.jobs import lifecycle
from store.states import Scope
from worker.attempt.inputs import AttemptInputs
from worker.attempt.resolve import resolve_job

GFL = {"architecture": "gfl", "init": "random"}


def resolve(harness, **spec):
    return resolve_row(harness, harness.job(harness.submit(spec)))


def resolve_row(harness, job):
    """Return the resolved spec of the job, with its artifacts fetched."""
    inputs = AttemptInputs(harness.settings.work_root / job.id)
    with harness.database.read() as session:
        spec = resolve_job(session, harness.settings, job, inputs)
    inputs.fetch(harness.artifacts, lambda: False)
    return spec


def weights(harness, name="teacher.pth"):
    path = harness.settings.models_root / name
    path.write_bytes(b"weights")
    return path, hashlib.sha256(b"weights").hexdigest()


def register(harness, **where):
    row = {"id": "det_teacher", "name": "teacher", "description": {"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}}
    harness.do(lambda session: session.add(Detector(**row, sha256="abc", **where)))


def test_a_data_set_resolves_to_paths_below_its_root(harness):
    spec = resolve(harness)
    root = harness.settings.datasets_root / "shapes"
    assert (spec.train.images, spec.val.annotations) == (root / "train", root / "val.json")
    assert spec.models == harness.settings.models_root


def test_an_uploaded_data_set_resolves_to_paths_below_its_unpacked_folder(harness):
    root = harness.settings.uploads_root / "abc-val10"
    shutil.copytree(harness.settings.datasets_root / "shapes", root)

    def upload(session):
        dataset = session.scalars(select(Dataset)).one()
        dataset.upload_key = "uploads/abc-val10.tar.gz"
        dataset.train_images, dataset.train_annotations = "train", "train.json"
        dataset.val_images, dataset.val_annotations = "val", "val.json"

    harness.do(upload)
    spec = resolve(harness)
    assert (spec.train.images, spec.val.annotations) == (root / "train", root / "val.json")


@pytest.mark.parametrize("status", ["importing", "refused"])
def test_a_detector_that_is_not_ready_is_not_resolved(harness, status):
    register(harness, weights_key="uploads/abc.bin", status=status)
    with pytest.raises(WeightsNotFound, match=status):
        resolve(harness, kind="evaluate", student={"detector": "teacher"})


@pytest.mark.parametrize("name", ["teacher", "det_teacher"])
def test_a_registered_detector_resolves_to_its_description_and_file(harness, name):
    path, _ = weights(harness)
    register(harness, weights_file="teacher.pth")
    spec = resolve(harness, kind="distill", teacher={"detector": name}, student=GFL)
    assert (spec.teacher.weights, spec.teacher.sha256) == (path, "abc")
    assert spec.teacher.description.config == "mmdet::gfl/gfl_r50_fpn_1x_coco.py"
    assert spec.teacher.description.init == InitFromDetector(detector="teacher"), "no ImageNet file is required"


def test_the_class_names_of_a_registered_detector_are_resolved_for_a_file_without_any(harness):
    weights(harness)
    register(harness, weights_file="teacher.pth", classes=["cat", "dog"])
    spec = resolve(harness, kind="distill", method="pkd", teacher={"detector": "teacher"}, student=GFL)
    assert spec.teacher.classes == ("cat", "dog")


def test_the_weights_of_a_registered_detector_may_be_an_artifact(harness):
    path, sha256 = weights(harness)
    harness.artifacts.put(path, "detectors/teacher.pth", sha256)
    register(harness, weights_key="detectors/teacher.pth")
    spec = resolve(harness, kind="evaluate", student={"detector": "teacher"})
    assert spec.student.weights.samefile(harness.artifacts.path("detectors/teacher.pth")), "a link, not a copy"
    assert spec.student.weights.is_relative_to(harness.settings.work_root)


def test_a_job_resolves_to_its_last_student(harness):
    first = harness.run(steps=5)
    spec = resolve(harness, kind="distill", teacher={"job": first.id}, student=GFL)
    assert spec.teacher.weights.read_text().startswith('{"weight"')
    assert spec.teacher.sha256 == hashlib.sha256(spec.teacher.weights.read_bytes()).hexdigest()
    assert spec.teacher.description.architecture == "gfl"


def test_a_description_may_be_initialised_from_the_student_of_a_job(harness):
    first = harness.run(steps=5)
    student = resolve(harness, kind="quantize", student={**GFL, "neck_channels": 32, "init": {"job": first.id}}).student
    assert student.weights.read_text().startswith('{"weight"')
    assert student.description.neck_channels == 32


def test_a_description_may_be_initialised_from_a_file_or_a_detector(harness):
    path, _ = weights(harness)
    register(harness, weights_file="teacher.pth")
    from_file = resolve(harness, student={**GFL, "init": {"weights": "teacher.pth"}}).student
    from_detector = resolve(harness, student={**GFL, "init": {"detector": "teacher"}}).student
    assert (from_file.weights, from_file.sha256) == (path, None)
    assert (from_detector.weights, from_detector.sha256) == (path, "abc")
    assert from_detector.description.architecture == "gfl"


@pytest.mark.parametrize("init", ["random", "imagenet"])
def test_random_and_imagenet_need_no_file(harness, init):
    assert resolve(harness, student={**GFL, "init": init}).student.weights is None


@pytest.mark.parametrize(
    "student",
    [
        {"detector": "nobody"},
        {"job": "job_" + "0" * 26},
        {**GFL, "init": {"weights": "missing.pth"}},
        {**GFL, "init": {"detector": "nobody"}},
    ],
)
def test_missing_weights_raise_weights_not_found(harness, student):
    with pytest.raises(WeightsNotFound):
        resolve(harness, kind="evaluate", student=student)


def test_a_deleted_artifact_raises_weights_not_found(harness):
    register(harness, weights_key="detectors/teacher.pth")
    with pytest.raises(WeightsNotFound):
        resolve(harness, kind="evaluate", student={"detector": "teacher"})


def test_a_link_out_of_the_data_sets_root_is_invalid(harness, tmp_path):
    images = harness.settings.datasets_root / "shapes" / "train"
    images.rmdir()
    images.symlink_to(tmp_path)
    with pytest.raises(InvalidSpec):
        resolve(harness)


def test_missing_images_raise_dataset_not_found(harness):
    (harness.settings.datasets_root / "shapes" / "train").rmdir()
    with pytest.raises(DatasetNotFound) as error:
        resolve(harness)
    assert isinstance(error.value, FrsError) and str(harness.settings.data) not in error.value.message


def posted_by(harness, owner, *scopes):
    """Return the columns of a job that the owner has posted with a key of these scopes."""
    key = harness.do(api_keys.add, owner, f"token of {owner}", owner=owner, scopes=scopes or [Scope.SUBMIT])
    return {"owner": owner, "key_id": key.id}


def resolve_for(harness, columns, **spec):
    spec = JobSpec.model_validate({"kind": "evaluate", "dataset": "shapes", **spec})
    job = harness.do(lifecycle.add, spec, dataset_id="ds_shapes", **columns)
    return resolve_row(harness, job)


@pytest.mark.parametrize("name", ["teacher", "det_teacher"])
def test_another_owners_detector_is_not_found(harness, name):
    weights(harness)
    register(harness, weights_file="teacher.pth", owner="alice")
    student = {"detector": name}
    with pytest.raises(WeightsNotFound):
        resolve_for(harness, posted_by(harness, "bob"), student=student)
    assert resolve_for(harness, posted_by(harness, "alice"), student=student).student.sha256 == "abc"
    assert resolve_for(harness, posted_by(harness, "boss", Scope.ADMIN), student=student).student.sha256 == "abc"


@pytest.mark.parametrize("name", ["more", "ds_more"])
def test_another_owners_data_set_is_not_found(harness, name):
    paths = split_columns("shapes/{}", "shapes/{}.json")
    harness.do(lambda session: session.add(Dataset(id="ds_more", name="more", owner="alice", **paths)))
    spec = {"kind": "distill", "student": GFL, "teacher": GFL, "unlabelled": name}
    with pytest.raises(DatasetNotFound):
        resolve_for(harness, posted_by(harness, "bob"), **spec)
    assert resolve_for(harness, posted_by(harness, "alice"), **spec).unlabelled is not None
