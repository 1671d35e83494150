"""A data set of no layout that is read: the message is true, names a file or the top folder, and says what to do."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from frs.dataset.upload.layouts import convert
from frs.errors import LayoutUnknown

FOREIGN = {
    "labelme": ("photos/a.json", {"version": "5", "shapes": [], "imagePath": "a.jpg"}, "labelme2coco"),
    "VIA": ("via_project.json", {"_via_settings": {}, "_via_img_metadata": {}}, "COCO format"),
    "Datumaro": ("annotations/default.json", {"info": {}, "categories": {}, "items": []}, "datum convert -f coco"),
    "Supervisely": ("ds/ann/a.jpg.json", {"objects": [{"points": {"exterior": [], "interior": []}}]}, "Export to COCO"),
    "Label Studio JSON": ("tasks.json", [{"from_name": "label", "value": {"rectanglelabels": ["cat"]}}], "COCO"),
    "CreateML": ("_annotations.createml.json", [{"annotations": [{"label": "cat", "coordinates": {}}]}], "COCO"),
    "BDD100K": ("labels.json", [{"labels": [{"box2d": {}}]}], "to_coco"),
    "COCO results": ("results.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}], "detections"),
}


def refusal(folder: Path) -> LayoutUnknown:
    with pytest.raises(LayoutUnknown) as error:
        convert(folder, folder.with_name("converted"))
    return error.value


def add(folder: Path, name: str, content: object = "") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_known_format_is_named_with_its_export(tmp_path, name):
    file, content, export = FOREIGN[name]
    add(tmp_path / "in", file, content)
    add(tmp_path / "in", "photos/a.jpg")
    error = refusal(tmp_path / "in")
    assert error.message == f"{file} is of the format {name}, which is not read."
    assert export in error.hint


def test_the_xml_file_of_cvat_is_named(tmp_path):
    add(
        tmp_path / "in", "annotations.xml", '<?xml version="1.0"?>\n<annotations>\n<version>1.1</version></annotations>'
    )
    add(tmp_path / "in", "images/a.jpg")
    assert refusal(tmp_path / "in").message.startswith("annotations.xml is of the format CVAT for images")


@pytest.mark.parametrize(
    "files",
    [
        ("images/0.jpg", "images/1.jpg"),
        ("images/0.jpg", "notes.txt"),
        ("my set/images/0.jpg", "my set/notes.txt"),
        ("a/b/images/0.jpg", "a/b/images/1.jpg"),
    ],
)
def test_the_top_folder_is_listed_with_what_was_looked_for(tmp_path, files):
    for file in files:
        add(tmp_path / "in", file)
    message = refusal(tmp_path / "in").message
    top = "Top folder: images, notes.txt." if "notes.txt" in files[1] else "Top folder: 0.jpg, 1.jpg."
    assert top in message
    assert all(text in message for text in ("annotations/instances_train.json", "JPEGImages/", "labels/"))


def test_several_files_that_may_be_the_training_split_are_listed(tmp_path):
    coco = {"images": [], "annotations": [], "categories": []}
    for name in ("a.json", "sub/b.json"):
        add(tmp_path / "in", name, coco)
    add(tmp_path / "in", "images/a.jpg")
    error = refusal(tmp_path / "in")
    assert "Several COCO files may be the training split: a.json, sub/b.json." in error.message
    assert "instances_train.json" in error.hint


def test_a_validation_file_alone_is_named(tmp_path):
    add(tmp_path / "in", "annotations/instances_val.json", {"images": [], "annotations": [], "categories": []})
    assert "no COCO file of a training split, only annotations/instances_val.json" in refusal(tmp_path / "in").message


def run_converter(archive: Path, folder: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "frs.dataset.upload.convert", str(archive), str(folder), str(1 << 30)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert completed.returncode == 1
    answer: dict[str, str] = json.loads(completed.stdout)
    return answer


def test_skipped_files_are_counted_in_the_message(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("0.jpg", "train.tfrecord", "val.tfrecord", "boxes.csv"):
            archive.writestr(name, b"content")
    answer = run_converter(tmp_path / "a.zip", tmp_path / "out")
    assert answer["code"] == "layout_unknown"
    assert "Skipped files: .tfrecord (2), .csv (1)." in answer["message"]
