"""Which uploads are still needed, and what becomes of a detector that a worker has read."""

from pathlib import Path

import pytest

from frs.events import ErrorInfo
from store.artifacts import uploads
from store.db.tables import Checkpoint, Dataset, Detector
from store.settings import Settings
from store.states import DetectorStatus

PROBLEM = ErrorInfo(code="weights_unreadable", message="It holds code.")


def add_detector(harness, name, key="uploads/a.bin", status=DetectorStatus.IMPORTING, **values):
    row = {"id": f"det_{name}", "name": name, "description": {}, "sha256": "a" * 64, "weights_key": key}
    harness.do(lambda session: session.add(Detector(**row, status=status, **values)))
    return f"det_{name}"


def detector(harness, detector_id):
    with harness.database.read() as session:
        return session.get_one(Detector, detector_id)


def used(harness, key):
    with harness.database.read() as session:
        return uploads.is_referenced(session, key)


def test_an_accepted_detector_has_its_new_weights_and_frees_the_upload(harness):
    detector_id = add_detector(harness, "one", classes=["told"])
    assert harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, None) == ["uploads/a.bin"]
    row = detector(harness, detector_id)
    assert (row.status, row.weights_key, row.sha256) == (DetectorStatus.READY, "uploads/b.safetensors", "b" * 64)
    assert row.classes == ["told"]


def test_what_the_file_says_of_its_classes_counts_more(harness):
    detector_id = add_detector(harness, "one", classes=["told"])
    harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, ["cat", "dog"])
    assert detector(harness, detector_id).classes == ["cat", "dog"]


def test_a_refused_detector_keeps_the_reason_alone(harness):
    detector_id = add_detector(harness, "one")
    assert harness.do(uploads.refuse_import, detector_id, PROBLEM) == ["uploads/a.bin"]
    row = detector(harness, detector_id)
    assert (row.status, row.error["code"]) == (DetectorStatus.REFUSED, "weights_unreadable")


def test_an_upload_that_another_detector_waits_for_is_kept(harness):
    one, two = add_detector(harness, "one"), add_detector(harness, "two")
    assert harness.do(uploads.refuse_import, one, PROBLEM) == []
    assert harness.do(uploads.accept_import, two, "uploads/b.safetensors", "b" * 64, None) == ["uploads/a.bin"]


@pytest.mark.parametrize("status", [DetectorStatus.READY, DetectorStatus.REFUSED])
def test_the_second_answer_changes_nothing(harness, status):
    detector_id = add_detector(harness, "one", "uploads/b.safetensors", status)
    assert harness.do(uploads.accept_import, detector_id, "uploads/c.safetensors", "c" * 64, None) == [
        "uploads/c.safetensors"
    ]
    assert harness.do(uploads.refuse_import, detector_id, PROBLEM) == []
    assert detector(harness, detector_id).status == status
    assert detector(harness, detector_id).weights_key == "uploads/b.safetensors"


def test_the_same_weights_accepted_twice_are_not_deleted(harness):
    for name in ("one", "two"):
        detector_id = add_detector(harness, name)
        keys = harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, None)
        assert "uploads/b.safetensors" not in keys
    assert harness.do(uploads.accept_import, detector_id, "uploads/b.safetensors", "b" * 64, None) == []


def test_weights_of_a_detector_that_is_gone_are_nobodys(harness):
    assert harness.do(uploads.accept_import, "det_gone", "uploads/b.safetensors", "b" * 64, None) == [
        "uploads/b.safetensors"
    ]
    assert harness.do(uploads.refuse_import, "det_gone", PROBLEM) == []


def test_a_key_is_used_while_any_row_has_it(harness):
    job_id = harness.submit()
    sides = {"train_images": "", "train_annotations": "", "val_images": "", "val_annotations": ""}
    rows = [
        Dataset(name="mine", upload_key="uploads/a.zip", **sides),
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
    assert (used(harness, "uploads/a.zip"), used(harness, "jobs/a"), used(harness, "uploads/b.zip")) == (
        True,
        True,
        False,
    )


def test_an_uploaded_set_lies_in_a_folder_of_its_own(tmp_path: Path):
    settings = Settings(data=tmp_path)
    assert uploads.root_of(settings, Dataset(upload_key=None)) == settings.datasets_root
    for key in ("uploads/abc.zip", "uploads/abc.tar.gz"):
        assert uploads.root_of(settings, Dataset(upload_key=key)) == tmp_path / "uploads" / "abc"
