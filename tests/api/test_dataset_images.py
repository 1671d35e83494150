"""Images of a data set with their boxes, as a page shows them."""

import json
import shutil

import pytest
from test_api_uploads import send, zip_folder
from waiting import until

from api.datasets import checks, unpacked
from store.db.tables import Dataset


@pytest.fixture
def uploaded(service):
    """An uploaded data set that another replica has received: its archive is stored, its folder is not here."""
    dataset = send(service, zip_folder(service.settings.datasets_root / "shapes")).json()
    assert dataset["status"] == "ready"
    for folder in service.settings.uploads_root.glob("[0-9a-f]*"):
        shutil.rmtree(folder)
    return dataset


def altered(service, change):
    """Register a copy of the data set with `change(folder, document)` applied to it."""
    service.copy_dataset_altered("altered", change)
    return service.register("altered")


def test_images_come_in_pages_with_their_boxes(service, shapes):
    first = service.get("/datasets/shapes/images?limit=2")
    second = service.get(f"/datasets/shapes/images?limit=2&cursor={first['next_cursor']}")
    images = first["data"] + second["data"]
    assert (len(images), second["next_cursor"]) == (3, None)
    document = json.loads((service.settings.datasets_root / "shapes/annotations/instances_val.json").read_text())
    assert [image["file_name"] for image in images] == [image["file_name"] for image in document["images"]]
    names = {category["id"]: category["name"] for category in document["categories"]}
    expected = [
        {"bbox": box["bbox"], "category": names[box["category_id"]], "crowd": False}
        for box in document["annotations"]
        if box["image_id"] == images[0]["id"]
    ]
    assert images[0]["objects"] == expected and expected


def test_the_training_split_is_another_list(service, shapes):
    assert len(service.get("/datasets/shapes/images?split=train")["data"]) == 6


def test_the_content_is_the_file(service, shapes):
    image = service.get("/datasets/shapes/images")["data"][0]
    response = service.client.get(f"/datasets/shapes/images/{image['id']}/content")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.content == (service.settings.datasets_root / "shapes/val" / image["file_name"]).read_bytes()


@pytest.mark.parametrize("image_id", [-3, 0, 2**53 - 1, 1 - 2**53])
def test_an_image_is_found_by_every_id_that_a_file_may_have(service, image_id):
    def change(folder, document):
        previous, document["images"][0]["id"] = document["images"][0]["id"], image_id
        for box in document["annotations"]:
            if box["image_id"] == previous:
                box["image_id"] = image_id

    altered(service, change)
    assert service.get("/datasets/altered/images?split=train")["data"][0]["id"] == image_id
    assert service.client.get(f"/datasets/altered/images/{image_id}/content?split=train").status_code == 200


@pytest.mark.parametrize("case", ["unknown id", "deleted file", "link to a file outside"])
def test_an_image_without_a_file_is_a_404(service, tmp_path, case):
    secret = tmp_path / "secret"
    secret.write_text("not for readers")

    def change(folder, document):
        file = folder / "train" / document["images"][0]["file_name"]
        if case != "unknown id":
            file.unlink()
        if case == "link to a file outside":
            file.symlink_to(secret)

    altered(service, change)
    image_id = 99 if case == "unknown id" else service.get("/datasets/altered/images?split=train")["data"][0]["id"]
    response = service.client.get(f"/datasets/altered/images/{image_id}/content?split=train")
    assert (response.status_code, response.json()["code"]) == (404, "image_not_found")


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.webp", "image/webp"),
        ("a.JPG", "image/jpeg"),
        ("a.html", "application/octet-stream"),
        ("a.svg", "application/octet-stream"),
    ],
)
def test_the_type_follows_from_the_suffix_and_is_that_of_a_picture(service, name, media_type):
    def change(folder, document):
        image = document["images"][0]
        (folder / "train" / image["file_name"]).rename(folder / "train" / name)
        image["file_name"] = name

    altered(service, change)
    image = service.get("/datasets/altered/images?split=train")["data"][0]
    response = service.client.get(f"/datasets/altered/images/{image['id']}/content?split=train")
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)


def test_annotations_that_cannot_be_read_are_a_409(service, shapes):
    (service.settings.datasets_root / "shapes/annotations/instances_val.json").write_text("{")
    response = service.client.get("/datasets/shapes/images")
    assert (response.status_code, response.json()["code"]) == (409, "annotations_unreadable")
    assert "instances_val.json" in response.json()["detail"]


def test_changed_annotations_are_read_again(service, shapes):
    path = service.settings.datasets_root / "shapes/annotations/instances_val.json"
    assert service.get("/datasets/shapes/images")["data"][0]["objects"]
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"annotations": []}))
    assert service.get("/datasets/shapes/images")["data"][0]["objects"] == []


def test_images_of_an_upload_that_another_replica_received_are_shown(service, shapes, uploaded):
    expected = service.get("/datasets/shapes/images")["data"]
    assert service.get("/datasets/mine/images")["data"] == expected
    image = service.client.get(f"/datasets/mine/images/{expected[0]['id']}/content")
    assert image.content == (service.settings.datasets_root / "shapes/val" / expected[0]["file_name"]).read_bytes()


def test_a_request_does_not_wait_long_for_an_archive_to_be_unpacked(service, uploaded, monkeypatch):
    monkeypatch.setattr(unpacked, "WAIT_SECONDS", 0)
    response = service.client.get("/datasets/mine/images")
    service.assert_problem(response, 503, "busy")
    assert response.headers["retry-after"] == "5"
    until(lambda: service.client.get("/datasets/mine/images").status_code == 200)


def test_an_upload_without_its_archive_is_a_409(service, uploaded):
    shutil.rmtree(service.settings.artifacts_root / "datasets")
    response = service.client.get("/datasets/mine/images")
    problem = service.assert_problem(response, 409, "annotations_unreadable")
    assert "archive" in problem["detail"]


@pytest.mark.parametrize("has_archive", [True, False])
def test_a_replica_repeats_the_check_of_an_upload_that_it_did_not_receive(service, uploaded, has_archive):
    def forget_check(session):
        row = session.get_one(Dataset, uploaded["id"])
        row.status, row.check_result, row.classes = "checking", None, None

    service.transact(forget_check)
    if not has_archive:
        shutil.rmtree(service.settings.artifacts_root / "datasets")
    checks.resume(service.client.app.state.context)
    until(lambda: service.get("/datasets/mine")["status"] != "checking")
    assert service.get("/datasets/mine")["status"] == ("ready" if has_archive else "has_problems")
    assert not has_archive or service.get("/datasets/mine") == uploaded
