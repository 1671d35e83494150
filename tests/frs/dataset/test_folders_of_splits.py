"""Of nested folders whose names state splits, those that separate the splits decide: no test image is trained on."""

import json
from pathlib import Path, PurePosixPath

import pytest
from layout_writers import all_boxes
from PIL import Image

from frs.dataset.upload.layouts import convert
from frs.dataset.upload.split_names import SplitFolders
from frs.errors import BadDataset

GREY = {"train": 10, "valid": 100, "val": 100, "test": 200}
VOC = (
    "<annotation><filename>{}</filename><object><name>cat</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax>"
    "<ymax>30</ymax></bndbox></object></annotation>"
)


def draw(path: Path, grey: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64), (grey, grey, grey)).save(path)
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_coco(path: Path) -> None:
    """Write an annotation file that lists 0.png and 1.png."""
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 96, "height": 64} for n in (0, 1)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 30, 20]} for n in (0, 1)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    write(path, json.dumps(document))


def write_label(image: Path, label_format: str) -> None:
    if label_format == "yolo":
        write(image.with_suffix(".txt"), "0 0.5 0.5 0.25 0.25\n")
    else:
        write(image.with_suffix(".xml"), VOC.format(image.name))


def greys(folder: Path, val_fraction: float | None = None) -> dict[str, set[int]]:
    """Convert, and return the grey values of the images of both splits."""
    target = folder.with_name("converted")
    convert(folder, target, val_fraction)
    values: dict[str, set[int]] = {"train": set(), "val": set()}
    for split in values:
        for name in all_boxes(target, split):
            with Image.open(target / split / name) as image:
                pixel = image.getpixel((0, 0))
            assert isinstance(pixel, tuple)
            values[split].add(round(pixel[0], -1))
    return values


@pytest.mark.parametrize(
    ("folders", "roles"),
    [
        ("images/train images/val", "train val"),
        ("plates_val/train plates_val/valid plates_val/test", "train val test"),
        ("plates_val/train plates_val/valid docs", "train val None"),
        ("plates_test/images/train plates_test/images/test", "train test"),
        ("train/drive_01 train/test_drive_02 val/drive_03 val/train_station", "train train val val"),
        ("train/bus train/train valid/bus valid/train", "train train val val"),
        ("train_set/valid train_set/invalid test_set/valid", "train train test"),
        ("train/drive_01 train/test_drive_02", "train train"),
        ("train_data/images train_data/test", "train test"),
        ("images images/val images/test", "None val test"),
        ("train train/val", "train val"),
        ("street_test/train", "train"),
        ("trainval test", "None test"),
        (".", "None"),
    ],
)
def test_the_folders_that_separate_the_splits_decide(folders, roles):
    paths = [PurePosixPath(path) for path in folders.split()]
    splits = SplitFolders(paths)
    assert [str(splits.find_role(path)) for path in paths] == roles.split()


def test_a_folder_that_holds_several_splits_states_none():
    splits = SplitFolders([PurePosixPath(f"plates_val/images/{name}") for name in ("train", "val", "test")])
    assert splits.find_role(PurePosixPath("plates_val")) is None
    assert splits.find_role(PurePosixPath("plates_val/images")) is None


@pytest.mark.parametrize("wrapper", ["plates_val", "street_test", "project", "train_data", "train_val", "test"])
@pytest.mark.parametrize("annotations", ["{folder}/_annotations.coco.json", "annotations/instances_{split}.json"])
def test_each_split_of_coco_has_its_own_images(tmp_path, wrapper, annotations):
    write(tmp_path / "in/README.txt", "hello")
    for split in ("train", "valid", "test"):
        for number in (0, 1):
            draw(tmp_path / f"in/{wrapper}/{split}/{number}.png", GREY[split])
        write_coco(tmp_path / "in" / wrapper / annotations.format(folder=split, split=split))
    assert greys(tmp_path / "in") == {"train": {GREY["train"]}, "val": {GREY["val"]}}


@pytest.mark.parametrize("wrapper", ["street_test", "plates_val", "train_data"])
def test_a_folder_around_the_whole_coco_data_set_states_no_split(tmp_path, wrapper):
    write(tmp_path / "in/README.txt", "hello")
    for number in (0, 1):
        draw(tmp_path / f"in/{wrapper}/images/{number}.png")
    write_coco(tmp_path / f"in/{wrapper}/annotations/instances_train.json")
    assert greys(tmp_path / "in", 0.5) == {"train": {50}, "val": {50}}


@pytest.mark.parametrize("label_format", ["yolo", "voc"])
@pytest.mark.parametrize("wrapper", ["plates_val", "street_test", "valve_train", "train_val"])
@pytest.mark.parametrize("val_fraction", [None, 0.5])
def test_each_split_of_yolo_and_voc_has_its_own_images(tmp_path, label_format, wrapper, val_fraction):
    write(tmp_path / "in/classes.txt", "cat\n")
    for split in ("train", "valid", "test"):
        for number in (0, 1):
            image = draw(tmp_path / f"in/{wrapper}/{split}/{split}{number}.jpg", GREY[split])
            write_label(image, label_format)
    assert greys(tmp_path / "in", val_fraction) == {"train": {GREY["train"]}, "val": {GREY["val"]}}


@pytest.mark.parametrize("label_format", ["yolo", "voc"])
def test_labelled_images_in_a_folder_of_no_split_are_trained_on(tmp_path, label_format):
    write(tmp_path / "in/classes.txt", "cat\n")
    for folder in ("train", "val", "test", "more/night"):
        write_label(draw(tmp_path / f"in/{folder}/{folder[:3]}.jpg"), label_format)
    draw(tmp_path / "in/docs/logo.jpg")
    convert(tmp_path / "in", tmp_path / "converted")
    names = [{Path(name).name for name in all_boxes(tmp_path / "converted", split)} for split in ("train", "val")]
    assert names == [{"tra.jpg", "mor.jpg"}, {"val.jpg"}]


def test_images_without_labels_are_background_if_no_folder_states_training(tmp_path):
    write(tmp_path / "in/classes.txt", "cat\n")
    for name in ("photos/0", "val/1"):
        write_label(draw(tmp_path / f"in/{name}.jpg"), "yolo")
    draw(tmp_path / "in/photos/empty.jpg")
    convert(tmp_path / "in", tmp_path / "converted")
    assert set(all_boxes(tmp_path / "converted", "train")) == {"0.jpg", "empty.jpg"}


@pytest.mark.parametrize("label_format", ["yolo", "voc"])
def test_a_data_set_of_test_images_alone_is_refused_with_the_next_step(tmp_path, label_format):
    write(tmp_path / "in/classes.txt", "cat\n")
    for number in (0, 1):
        write_label(draw(tmp_path / f"in/street_test/{number}.jpg"), label_format)
    with pytest.raises(BadDataset) as error:
        convert(tmp_path / "in", tmp_path / "converted", 0.5)
    assert error.value.message == "The train split has no images."
    assert "name of a folder" in error.value.hint
