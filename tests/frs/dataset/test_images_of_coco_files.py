"""The images that a COCO file lists are found in the right folder; masks of the same names are not taken for them."""

import json
from pathlib import Path

import pytest
from layout_writers import annotations
from PIL import Image

from frs.dataset.check import check_split
from frs.dataset.upload.layouts import convert
from frs.errors import BadDataset


def draw(folder: Path, *names: str, mode: str = "RGB") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((96, 64)).convert(mode).save(path)


def write_coco(path: Path, *names: str) -> None:
    document = {
        "images": [{"id": n, "file_name": name, "width": 96, "height": 64} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 30, 20]} for n, _ in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def issues(folder: Path, val_fraction: float | None = 0.5) -> dict[str, int]:
    """Convert; return the numbers of issues of both splits by code, except that a split has no boxes."""
    target = folder.with_name("converted")
    convert(folder, target, val_fraction)
    counts: dict[str, int] = {}
    for split in ("train", "val"):
        report = check_split(target / split, target / f"annotations/instances_{split}.json")
        counts |= {code: n for code, n in report.issue_counts.items() if code != "boxes_missing"}
    return counts


@pytest.mark.parametrize("masks", ["annotations", "annotations_masks", "gt", "masks", "data/gt", "images_depth"])
@pytest.mark.parametrize("images", ["images", "data/images", "JPEGImages", "my set/Images"])
def test_a_folder_of_masks_is_not_taken_for_the_images(tmp_path, images, masks):
    draw(tmp_path / "in" / images, "1.png", "2.png")
    draw(tmp_path / "in" / masks, "1.png", "2.png", mode="L")
    write_coco(tmp_path / "in/annotations/instances.json", "1.png", "2.png")
    assert issues(tmp_path / "in") == {}
    for path in (tmp_path / "converted").rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"


def test_images_beside_their_annotation_file_are_used(tmp_path):
    draw(tmp_path / "in/photos", "1.png", "2.png")
    draw(tmp_path / "in/depth", "1.png", "2.png", mode="L")
    write_coco(tmp_path / "in/photos/result.json", "1.png", "2.png")
    assert issues(tmp_path / "in") == {}
    with Image.open(next((tmp_path / "converted/train").glob("*.png"))) as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("folder", [".", "photos"])
def test_a_folder_of_masks_within_that_of_the_images_is_not_used(tmp_path, folder):
    draw(tmp_path / "in" / folder, "x.png", "y.png")
    draw(tmp_path / "in" / folder / "depth", "x.png", "y.png", mode="L")
    write_coco(tmp_path / "in/annotations/instances.json", "x.png", "y.png")
    assert issues(tmp_path / "in") == {}
    with Image.open(next((tmp_path / "converted/train").glob("*.png"))) as image:
        assert image.mode == "RGB"


def test_equally_likely_folders_of_images_are_refused_by_name(tmp_path):
    for folder in ("depth", "photos"):
        draw(tmp_path / "in" / folder, "1.png", "2.png")
    write_coco(tmp_path / "in/annotations/instances.json", "1.png", "2.png")
    with pytest.raises(BadDataset) as error:
        convert(tmp_path / "in", tmp_path / "converted", 0.5)
    assert error.value.message == "The images of annotations/instances.json are both in depth and in photos."
    assert "images" in error.value.hint


@pytest.mark.parametrize(
    ("files", "listed"),
    [
        (("d1/a.jpg", "d1/c.jpg", "d2/b.jpg"), ("/data/d1/a.jpg", "/data/d2/b.jpg", "c.jpg")),
        (("b1/a.jpg", "b1/c.jpg", "b2/b.jpg", "b2/d.jpg"), ("a.jpg", "b.jpg", "c.jpg", "d.jpg")),
        (("images/a.jpg", "images/x/b.jpg"), ("a.jpg", "C:\\x\\b.jpg")),
    ],
)
def test_an_image_that_is_not_below_the_common_folder_is_found_by_its_base_name(tmp_path, files, listed):
    draw(tmp_path / "in", *files)
    write_coco(tmp_path / "in/result.json", *listed)
    assert issues(tmp_path / "in") == {}


@pytest.mark.parametrize(
    "others",
    [
        ("masks/a.jpg", "masks/b.jpg"),  # a folder of other pictures of the same names
        ("test/b.jpg",),
        ("x/b.jpg", "y/b.jpg"),
    ],
)
def test_an_image_that_is_not_packed_is_not_taken_from_elsewhere(tmp_path, others):
    draw(tmp_path / "in", "images/a.jpg", "images/c.jpg", *others)
    write_coco(tmp_path / "in/result.json", "a.jpg", "b.jpg", "c.jpg")
    assert issues(tmp_path / "in") == {"image_missing": 1}


def test_an_image_of_another_folder_is_not_taken_for_one_of_its_name_that_is_not_packed(tmp_path):
    draw(tmp_path / "in", "cam2/a.jpg", "cam2/b.jpg")
    write_coco(tmp_path / "in/result.json", "cam1/a.jpg", "cam2/a.jpg", "cam2/b.jpg")
    assert issues(tmp_path / "in") == {"image_missing": 1}


@pytest.mark.parametrize("listed", [("a.jpg", "A.jpg"), ("a.jpg", "./a.jpg"), ("x\\a.jpg", "x/a.jpg")])
@pytest.mark.parametrize("val_fraction", [0.2, 0.5, 0.8])
def test_an_image_listed_under_two_spellings_stays_in_one_split(tmp_path, listed, val_fraction):
    names = [*listed, *(name.replace("a.", "b.").replace("A.", "B.") for name in listed)]
    draw(tmp_path / "in/images", *{name.replace("\\", "/").lower() for name in names})
    write_coco(tmp_path / "in/result.json", *names)
    assert issues(tmp_path / "in", val_fraction) == {"image_listed_twice": 1}
    assert [len(annotations(tmp_path / "converted", split)["images"]) for split in ("train", "val")] == [2, 2]
