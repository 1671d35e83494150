"""Whether uploads are still referenced, and the end of a detector's import."""

from pathlib import Path

import pytest

from frs.events import ErrorInfo
from store.artifacts import uploads
from store.db.tables import Checkpoint, Dataset, Detector
from store.settings import Settings
from store.states import DetectorStatus

ERROR = ErrorInfo(code="weights_unreadable", message="The file contains code.")


def add_detector(harness, name, key="uploads/a.bin", status=DetectorStatus.IMPORTING, **values):
    row = {"id": f"det_{name}", "name": name, "description": {}, "sha256": "a" * 64, "weights_key": key}
    harness.do(lambda session: session.add(Detector(**row, status=status, **values)))
    return f"det_{name}"


def detector(harness, detector_id):
    with harness.database.read() as session:
        return session.get_one(Detector, detector_id)


def is_referenced(harness, key):
    with harness.database.read() as session:
        return uploads.is_referenced(session, key)


def test_an_accepted_detector_has_the_imported_weights_and_releases_the_upload(harness):
    detector_id = add_detector(harness, "one", classes=["given"])
    assert harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, 9, None) == [
        "uploads/a.bin"
    ]
    row = detector(harness, detector_id)
    assert (row.status, row.weights_key, row.sha256) == (DetectorStatus.READY, "uploads/b.safetensors", "b" * 64)
    assert row.classes == ["given"]


def test_classes_from_the_file_take_precedence(harness):
    detector_id = add_detector(harness, "one", classes=["given"])
    harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, 9, ["cat", "dog"])
    assert detector(harness, detector_id).classes == ["cat", "dog"]


def test_a_refused_detector_keeps_only_the_error(harness):
    detector_id = add_detector(harness, "one")
    assert harness.do(uploads.refuse_import, detector_id, ERROR) == ["uploads/a.bin"]
    row = detector(harness, detector_id)
    assert (row.status, row.error["code"]) == (DetectorStatus.REFUSED, "weights_unreadable")


def test_an_upload_that_another_import_needs_is_kept(harness):
    one, two = add_detector(harness, "one"), add_detector(harness, "two")
    assert harness.do(uploads.refuse_import, one, ERROR) == []
    assert harness.do(uploads.accept_import, two, "uploads/b.safetensors", "b" * 64, 9, None) == ["uploads/a.bin"]


@pytest.mark.parametrize("status", [DetectorStatus.READY, DetectorStatus.REFUSED])
def test_a_second_result_of_an_import_changes_nothing(harness, status):
    detector_id = add_detector(harness, "one", "uploads/b.safetensors", status)
    assert harness.do(uploads.accept_import, detector_id, "uploads/c.safetensors", "c" * 64, 9, None) == [
        "uploads/c.safetensors"
    ]
    assert harness.do(uploads.refuse_import, detector_id, ERROR) == []
    assert detector(harness, detector_id).status == status
    assert detector(harness, detector_id).weights_key == "uploads/b.safetensors"


def test_the_same_weights_accepted_twice_are_not_deleted(harness):
    for name in ("one", "two"):
        detector_id = add_detector(harness, name)
        keys = harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, 9, None)
        assert "uploads/b.safetensors" not in keys
    assert harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, 9, None) == []


def test_weights_of_a_deleted_detector_are_unreferenced(harness):
    assert harness.do(uploads.accept_import, "det_gone", "uploads/b.safetensors", "b" * 64, 9, None) == [
        "uploads/b.safetensors"
    ]
    assert harness.do(uploads.refuse_import, "det_gone", ERROR) == []


def test_a_key_is_referenced_while_any_row_contains_it(harness):
    job_id = harness.submit()
    paths = {"train_images": "", "train_annotations": "", "val_images": "", "val_annotations": ""}
    rows = [
        Dataset(name="mine", upload_key="uploads/a.zip", **paths),
        Checkpoint(
            job_id=job_id,
            attempt=1,
            kind="student",
            labels=[],
            step=1,
            epoch=1,
            key="jobs/a",
            sha256="",
            bytes=1,
            metrics={},
        ),
    ]
    harness.do(lambda session: session.add_all(rows))
    keys = ("uploads/a.zip", "jobs/a", "uploads/b.zip")
    assert [is_referenced(harness, key) for key in keys] == [True, True, False]


def test_each_uploaded_data_set_has_its_own_folder(tmp_path: Path):
    settings = Settings(data=tmp_path)
    assert uploads.dataset_root(settings, Dataset(upload_key=None)) == settings.datasets_root
    for key in ("uploads/abc.zip", "uploads/abc.tar.gz"):
        assert uploads.dataset_root(settings, Dataset(upload_key=key)) == tmp_path / "uploads" / "abc"
