"""Images of a data set with their boxes, as a page shows them."""

import json

import pytest


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
