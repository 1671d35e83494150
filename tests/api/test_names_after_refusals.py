"""After a refusal, the name of a data set is free: corrected files are uploaded or registered under the same name."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest

ZIP = {"Content-Type": "application/zip"}


def zip_folder(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return stream.getvalue()


def empty_a_box(_folder, document):
    document["annotations"][0]["bbox"][2] = 0


def upload(service, name, folder):
    content = zip_folder(service.settings.datasets_root / folder)
    return service.client.post("/datasets/upload", params={"name": name}, content=content, headers=ZIP)


@pytest.mark.parametrize(
    ("remove", "code"),
    [
        ("annotations/instances_train.json", "layout_unknown"),
        ("annotations", "layout_unknown"),
        ("val", "no_validation_split"),
        ("annotations/instances_val.json", "no_validation_split"),
    ],
)
def test_a_name_is_free_after_an_upload_was_refused(service, remove, code):
    service.copy_dataset_altered("broken", lambda _folder, _document: None)
    path = service.settings.datasets_root / "broken" / remove
    content = zip_folder(service.settings.datasets_root / "broken")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    service.assert_problem(upload(service, "mine", "broken"), 422, code)
    response = service.client.post("/datasets/upload", params={"name": "mine"}, content=content, headers=ZIP)
    assert response.status_code == 201


def test_an_upload_replaces_a_data_set_with_issues(service):
    service.copy_dataset_altered("broken", empty_a_box)
    first = upload(service, "mine", "broken").json()
    assert first["status"] == "has_problems"
    second = upload(service, "mine", "shapes").json()
    assert (second["status"], service.get("/datasets/mine")["id"]) == ("ready", second["id"])
    service.assert_problem(service.client.get(f"/datasets/{first['id']}"), 404, "dataset_not_found")


def test_the_same_broken_archive_can_be_uploaded_again(service):
    service.copy_dataset_altered("broken", empty_a_box)
    assert [upload(service, "mine", "broken").status_code for _ in range(2)] == [201, 201]
    assert len(service.get("/datasets")["data"]) == 1


def test_corrected_files_are_registered_under_the_same_name(service):
    service.copy_dataset_altered("broken", empty_a_box)
    assert service.register("broken")["status"] == "has_problems"
    shutil.rmtree(service.settings.datasets_root / "broken")
    shutil.copytree(service.settings.datasets_root / "shapes", service.settings.datasets_root / "broken")
    assert service.register("broken")["status"] == "ready"


def test_a_data_set_stays_if_the_new_files_are_missing(service):
    service.copy_dataset_altered("broken", empty_a_box)
    dataset = service.register("broken")
    shutil.rmtree(service.settings.datasets_root / "broken")
    service.assert_problem(service.client.post("/datasets", json={"name": "broken"}), 422, "files_not_found")
    assert service.get("/datasets/broken")["id"] == dataset["id"]


def test_a_data_set_that_a_job_uses_is_not_replaced(service):
    service.copy_dataset_altered("broken", empty_a_box)
    dataset = upload(service, "mine", "broken").json()
    service.submit(dataset="mine", max_invalid_fraction=0.5)
    service.assert_problem(upload(service, "mine", "shapes"), 409, "name_taken")
    assert service.get("/datasets/mine")["id"] == dataset["id"]


def test_a_ready_data_set_is_not_replaced(service, shapes):
    service.assert_problem(upload(service, "shapes", "shapes"), 409, "name_taken")
    assert service.get("/datasets/shapes") == shapes
