"""Data files of public bug reports, each named by its repository and number: read, or refused with a true message."""

import json
from pathlib import Path

import pytest
from layout_writers import all_boxes
from PIL import Image

from frs.dataset.coco import read
from frs.dataset.upload.layouts import convert
from frs.errors import BadDataset

VOC = (
    "<annotation><filename>{file}</filename><size><width>{size}</width><height>{size}</height><depth>3</depth></size>"
    "<object><name>cat</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>"
    "</annotation>"
)


def draw(path: Path, image_format: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((96, 96)).convert("RGB").save(path, image_format)


def write_voc(folder: Path, file: str, size: int = 96, image: str = "{}.jpg") -> None:
    for stem in "abcd":
        draw(folder / image.format(stem))
        (folder / f"{stem}.xml").write_text(VOC.format(file=file.format(stem), size=size))


def write_yolo(folder: Path, splits: tuple[str, str]) -> None:
    for split in splits:
        for number in range(2):
            draw(folder / split / "images" / f"{number}.jpg")
            labels = folder / split / "labels" / f"{number}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("0 0.5 0.5 0.5 0.5\n")


def counts(folder: Path, val_fraction: float | None = None) -> tuple[int, int]:
    """Convert, and return the numbers of images with boxes in both splits."""
    target = folder.with_name("converted")
    convert(folder, target, val_fraction)
    train, val = (sum(map(bool, all_boxes(target, split).values())) for split in ("train", "val"))
    return train, val


@pytest.mark.parametrize(
    "prefix", ["..\\..\\label-studio\\media\\upload\\4\\", "images\\", "/label-studio/data/media/"]
)
def test_label_studio_7294_and_9366_file_names_are_paths_of_the_server(tmp_path, prefix):
    names = [f"cb0618f6-{n}.png" for n in range(4)]
    for name in names:
        draw(tmp_path / "in/images" / name, "PNG")
    document = {
        "images": [{"id": n, "file_name": prefix + name, "width": 96, "height": 96} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "category_id": 0, "bbox": [1, 2, 30, 20]} for n in range(4)],
        "categories": [{"id": 0, "name": "cat"}],
    }
    (tmp_path / "in/result.json").write_text(json.dumps(document))
    assert counts(tmp_path / "in", 0.25) == (3, 1)


@pytest.mark.parametrize("file", ["{}", "brick-{}"])
def test_label_studio_2360_the_file_name_of_a_voc_file_has_no_suffix(tmp_path, file):
    write_voc(tmp_path / "in", file, image=f"images/{file}.jpg")
    assert counts(tmp_path / "in", 0.25) == (3, 1)


def test_supervisely_21_the_file_name_of_a_voc_file_is_a_folder(tmp_path):
    write_voc(tmp_path / "in", "export/dataset")
    assert counts(tmp_path / "in", 0.25) == (3, 1)


def test_labelimg_160_and_309_the_size_is_0_if_the_suffix_is_wrong(tmp_path):
    write_voc(tmp_path / "in", "{}.png", size=0, image="{}.png")
    assert counts(tmp_path / "in", 0.25) == (3, 1)


def test_yolact_156_image_ids_are_texts_in_the_annotations_only(tiny):
    tiny.annotations[0]["image_id"] = "1"
    assert tiny.check().issues == []
    assert len(read(tiny.file).boxes_of(0)) == 1


def test_mmdetection_804_annotations_have_no_area(tiny):

    tiny.annotations[0] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [9.08, 6.53, 20.5, 20.4], "iscrowd": 0}
    assert tiny.check().labelled_images == 1


@pytest.mark.parametrize("bbox", [None, [], [9.08, 6.53, 20.5]])
def test_maskrcnn_benchmark_480_and_mmdetection_5719_a_box_is_missing_or_incomplete(tiny, bbox):
    tiny.box(bbox=bbox)
    issue = tiny.only_issue()
    assert (issue.code, issue.file, issue.annotation_id) == ("box_invalid", "a.png", 2)
    assert "which is not four finite numbers" in issue.message


@pytest.mark.parametrize(
    "text",
    [
        "path: 'C:/Users/me/data/datasets'\ntrain: ./train/images'\nval: ./val/images'",  # ultralytics 22101
        "train: C:/me/Desktop/AI/dataset/train/images/\nval: C:/me/Desktop/AI/dataset/val/images/",  # ultralytics 8297
        "path: ../datasets\ntrain: train/images\nval: valid/images",  # ultralytics 18454
    ],
)
def test_ultralytics_22101_8297_and_18454_paths_are_of_another_machine_or_misspelt(tmp_path, text):
    write_yolo(tmp_path / "in", ("train", "val"))
    (tmp_path / "in/data.yaml").write_text(f"{text}\nnames: [cat]\n")
    assert counts(tmp_path / "in") == (2, 2)


def test_sahi_550_backslashes_in_quotes_are_named_with_their_line(tmp_path):
    write_yolo(tmp_path / "in", ("train", "val"))
    (tmp_path / "in/data.yaml").write_text('names: [cat]\ntrain: "data\\Users\\train"\n')
    with pytest.raises(BadDataset, match=r"data.yaml, line 2: is not valid YAML"):
        convert(tmp_path / "in", tmp_path / "converted")


def test_vott_133_a_list_without_line_breaks_is_refused(tmp_path):
    write_yolo(tmp_path / "in", ("train", "val"))
    (tmp_path / "in/train.txt").write_text("data/obj/0.jpgdata/obj/1.jpg")
    (tmp_path / "in/data.yaml").write_text("train: train.txt\nval: val/images\nnames: [cat]\n")
    with pytest.raises(BadDataset, match=r"train.txt lists data/obj/0.jpgdata/obj/1.jpg, which is not in the archive"):
        convert(tmp_path / "in", tmp_path / "converted")


def test_cvat_1275_an_export_without_annotations_says_so(tiny):
    tiny.annotations.clear()
    assert tiny.only_issue().message == "instances_train.json has no valid boxes."
