import json
import os
import shutil
from pathlib import Path

import pytest
from layout_writers import all_boxes, annotations, write_voc, write_yolo

from frs.dataset.check import check_pair, check_split
from frs.dataset.report import describe_similar_classes, describe_validation
from frs.dataset.shapes.drawing import draw_dataset
from frs.dataset.upload.annotated_images import split_off_validation
from frs.dataset.upload.layouts import convert
from frs.errors import BadDataset, NoValidationSplit

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, train=8, val=3, size=64)
    content = annotations(folder, "val")
    for image in content["images"]:
        path = folder / "val" / image["file_name"]
        image["file_name"] = f"val-{path.name}"
        path.rename(path.with_name(image["file_name"]))
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def coco(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "coco")


def assert_same(folder: Path, source: Path) -> None:
    """Assert that both data sets have the same images and boxes, and that `folder` passes the check."""
    reports = []
    for split in SPLITS:
        assert all_boxes(folder, split) == all_boxes(source, split)
        reports.append(check_split(folder / split, folder / "annotations" / f"instances_{split}.json"))
        assert reports[-1].issues == []
    check_pair(*reports)


def use_original_folders(coco: Path) -> None:
    """Rename folders and files as in the original COCO."""
    for split in SPLITS:
        (coco / split).rename(coco / f"{split}2017")
        (coco / "annotations" / f"instances_{split}.json").rename(coco / f"annotations/instances_{split}2017.json")


def share_images_folder(coco: Path) -> None:
    """Move the images of both splits into one folder."""
    (coco / "images").mkdir()
    for split in SPLITS:
        content = annotations(coco, split)
        for image in content["images"]:
            name = f"{split}-{image['file_name']}"
            (coco / split / image["file_name"]).rename(coco / "images" / name)
            image["file_name"] = name
        (coco / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        shutil.rmtree(coco / split)


def use_roboflow_folders(coco: Path) -> None:
    """Rearrange the data set as Roboflow exports it."""
    for split in SPLITS:
        content = annotations(coco, split)
        for category in content["categories"]:
            category["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        (coco / split / "_annotations.coco.json").write_text(json.dumps(content))
    (coco / "val").rename(coco / "valid")
    shutil.rmtree(coco / "annotations")
    (coco / "README.roboflow.txt").write_text("hello")


@pytest.mark.parametrize("change", [lambda coco: None, use_original_folders, use_roboflow_folders])
def test_coco_in_each_supported_folder_structure_is_converted(coco, drawn, tmp_path, change):
    change(coco)
    assert convert(tmp_path, tmp_path / "converted") == "coco"
    assert_same(tmp_path / "converted", drawn)
    assert len(annotations(tmp_path / "converted", "train")["categories"]) == 4


def test_splits_that_share_an_images_folder_are_separated(coco, tmp_path):
    share_images_folder(coco)
    before = shutil.copytree(coco, tmp_path / "before")
    convert(coco, tmp_path / "converted")
    assert_same(tmp_path / "converted", before)


@pytest.mark.parametrize("origin", [0, 1])
def test_voc_with_pixels_counted_from_0_or_1_is_converted(drawn, tmp_path, origin):
    assert any(box[0] == 0 for boxes in all_boxes(drawn, "train").values() for _, box in boxes)
    write_voc(drawn, tmp_path / "in/VOCdevkit/VOC2012", origin)
    assert convert(tmp_path / "in", tmp_path / "converted") == "voc"
    for split in SPLITS:
        assert all_boxes(tmp_path / "converted", split) == all_boxes(drawn, split)
    classes = [row["name"] for row in annotations(tmp_path / "converted", "train")["categories"]]
    assert classes == ["circle", "square", "star", "triangle"]


def test_an_image_in_both_splits_is_refused(drawn, tmp_path):
    voc = write_voc(drawn, tmp_path / "in")
    (voc / "ImageSets/Main/val.txt").write_text("000001\n")
    with pytest.raises(BadDataset, match="000001.jpg is listed twice"):
        convert(voc, tmp_path / "converted")


@pytest.mark.parametrize("folders", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize("val", ["val", "valid"])
def test_yolo_is_converted(drawn, tmp_path, folders, val):
    write_yolo(drawn, tmp_path / "in" / "set", folders, val)
    assert convert(tmp_path / "in", tmp_path / "converted") == "yolo"
    assert_same(tmp_path / "converted", drawn)


def test_category_ids_count_from_1_in_the_order_of_the_classes(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "data.yaml").write_text("names:\n  1: zebra\n  0: ape\n  2: fox\n  3: bee\n")
    convert(yolo, tmp_path / "converted")
    content = annotations(tmp_path / "converted", "train")
    assert [(row["id"], row["name"]) for row in content["categories"]] == [
        (1, "ape"),
        (2, "zebra"),
        (3, "fox"),
        (4, "bee"),
    ]
    box = content["annotations"][0]
    assert (box["iscrowd"], box["area"]) == (0, pytest.approx(box["bbox"][2] * box["bbox"][3], abs=0.01))


def test_a_polygon_becomes_its_bounding_box(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "labels/train/000001.txt").write_text("2 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    convert(yolo, tmp_path / "converted")
    assert all_boxes(tmp_path / "converted", "train")["000001.jpg"] == {("triangle", (16, 16, 32, 32))}


def test_an_image_without_a_label_file_has_no_boxes(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "labels/train/000001.txt").unlink()
    convert(yolo, tmp_path / "converted")
    assert all_boxes(tmp_path / "converted", "train")["000001.jpg"] == set()


def test_a_broken_image_is_reported_by_the_check(drawn, tmp_path):
    for write in (write_yolo, write_voc):
        folder = write(drawn, tmp_path / write.__name__)
        next(folder.rglob("000001.jpg")).write_bytes(b"broken")
        convert(folder, tmp_path / f"{write.__name__}-converted")
        converted = tmp_path / f"{write.__name__}-converted"
        codes = check_split(converted / "train", converted / "annotations/instances_train.json").issue_counts
        assert codes == {"image_unreadable": 1}


def without_val(folder: Path) -> Path:
    """Remove the validation split of any layout."""
    for name in ("val", "images/val", "labels/val"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("annotations/instances_val.json", "ImageSets/Main/val.txt"):
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("write", [write_voc, write_yolo, shutil.copytree])
def test_a_missing_validation_split_is_taken_from_the_training_images(drawn, tmp_path, write):
    folder = without_val(write(drawn, tmp_path / "in"))
    again = shutil.copytree(folder, tmp_path / "again")
    with pytest.raises(BadDataset) as error:
        convert(shutil.copytree(folder, tmp_path / "refused"), tmp_path / "not converted")
    assert (error.value.code, "val_fraction" in error.value.hint) == ("no_validation_split", True)
    convert(folder, tmp_path / "converted", 0.25)
    convert(again, tmp_path / "converted again", 0.25)
    train, val = (all_boxes(tmp_path / "converted", split) for split in SPLITS)
    assert (len(train), len(val)) == (6, 2)
    assert train | val == all_boxes(drawn, "train")
    assert val == all_boxes(tmp_path / "converted again", "val")
    for split in SPLITS:
        assert (
            check_split(
                tmp_path / "converted" / split, tmp_path / f"converted/annotations/instances_{split}.json"
            ).issues
            == []
        )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.5 0.5", "3 fields"),
        ("9 0.5 0.5 0.1 0.1", "class 9 is not one of 0 to 3"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("circle 0.5 0.5 0.1 0.1", "class circle"),
        ("0 0.5 0.5 0.1 nan", "nan is not a number from 0 to 1"),
        ("0 0.5 0.5 0.1 inf", "inf is not a number"),
        ("0 320 240 10 10", "320 is not a number from 0 to 1"),
        ("0 0.5 0.5 0.1 x", "x is not a number"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 fields"),
    ],
)
def test_an_invalid_label_line_is_reported_with_file_and_line(drawn, tmp_path, line, expected):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "labels/train/000002.txt").write_text(f"\n{line}\n")
    with pytest.raises(BadDataset) as error:
        convert(yolo, tmp_path / "converted")
    assert error.value.message.startswith("labels/train/000002.txt, line 2: ")
    assert expected in error.value.message


def test_several_invalid_label_files_are_reported_together(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    for number in range(1, 9):
        (yolo / f"labels/train/{number:06d}.txt").write_text("7")
    with pytest.raises(BadDataset, match=r"000001.txt.*000005.txt, line 1: .* And 3 more\."):
        convert(yolo, tmp_path / "converted")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("<name>", "<nome>", "is not well-formed XML"),
        ("<width>64</width>", "<width>65</width>", "says 65x64, but 000001.jpg is 64x64"),
        ("<xmin>", "<xmin>x", "has `xmin` x"),
        ("<object>", "<object><name> </name>", "object without a name"),
        ("bndbox", "box", "without a bndbox"),
    ],
)
def test_an_invalid_xml_file_is_reported_by_name(drawn, tmp_path, old, new, expected):
    voc = write_voc(drawn, tmp_path / "in")
    file = voc / "Annotations" / "000001.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(BadDataset) as error:
        convert(voc, tmp_path / "converted")
    assert error.value.message.startswith("Annotations/000001.xml")
    assert expected in error.value.message


@pytest.mark.parametrize("name", ["nope", "../JPEGImages/000001", "/etc/passwd"])
def test_a_listed_image_that_does_not_exist_is_reported_with_its_line(drawn, tmp_path, name):
    voc = write_voc(drawn, tmp_path / "in")
    (voc / "ImageSets/Main/train.txt").write_text(f"000001\n{name} 1\n")
    with pytest.raises(BadDataset, match=r"ImageSets/Main/train.txt, line 2: there is no image"):
        convert(voc, tmp_path / "converted")


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/hostname"])
def test_a_coco_file_moves_nothing_from_outside(coco, tmp_path, name):
    share_images_folder(coco)
    (tmp_path / "secret.txt").write_text("secret")
    content = annotations(coco, "train")
    content["images"][0]["file_name"] = name
    (coco / "annotations/instances_train.json").write_text(json.dumps(content))
    convert(coco, tmp_path / "converted")
    assert (tmp_path / "secret.txt").exists()
    codes = check_split(
        tmp_path / "converted/train", tmp_path / "converted/annotations/instances_train.json"
    ).issue_counts
    assert codes["image_outside_folder"] == 1


@pytest.mark.parametrize("add_content", [lambda _: None, lambda folder: (folder / "a.txt").write_text("x")])
def test_an_unknown_layout_is_refused(tmp_path, add_content):
    (tmp_path / "in").mkdir()
    add_content(tmp_path / "in")
    with pytest.raises(BadDataset) as error:
        convert(tmp_path / "in", tmp_path / "converted")
    assert error.value.code == "layout_unknown"


YAML_BOMBS = {
    "billion laughs": "a: &a [x,x,x]\n"
    + "".join(f"{b}: &{b} [*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "merged keys": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b}\n  <<: [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "recursion": "names: &a [*a]\n",
    "code": "names: !!python/object/apply:os.system ['touch canary']\n",
    "a module": "names: !!python/module:os\n",
    "deep": "names: " + "[" * 10_000 + "]" * 10_000,
    "a number of 100,000 digits": "names: " + "9" * 100_000,
    "an invalid date": "names: 2026-99-99",
    "not a list": "names: cats",
    "duplicates": "names: [a, a]",
    "not texts": "names: [[1], [2], [3], [4]]",
    "gaps": "names: {0: a, 2: b}",
    "empty": "",
    "not YAML": "names: [",
    "bytes": "\0\1\2",
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_malicious_class_name_files_are_refused(drawn, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "data.yaml").write_text(YAML_BOMBS[name])
    with pytest.raises(BadDataset, match="data.yaml"):
        convert(yolo, tmp_path / "converted")
    assert not (tmp_path / "canary").exists()


LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
XML_BOMBS = {
    "billion laughs": f'<!DOCTYPE a [<!ENTITY a "lol">{LAUGHS}]><annotation><name>&i;</name></annotation>',
    "one large entity": f'<!DOCTYPE a [<!ENTITY a "{"x" * 10_000}">]><annotation>{"&a;" * 10_000}</annotation>',
    "a file": '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><name>&a;</name></annotation>',
    "an address": '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><annotation/>',
    "parameters": '<!DOCTYPE a [<!ENTITY % a SYSTEM "file:///dev/zero"> %a;]><annotation/>',
    "deep": "<a>" * 100_000 + "</a>" * 100_000,
    "long": "<annotation>" + "<object/>" * 500_000 + "</annotation>",
    "utf-7": '<?xml version="1.0" encoding="utf-7"?><annotation/>',
    "not closed": "<annotation>",
    "empty": "",
    "bytes": "\0\1\2",
}


@pytest.mark.parametrize("name", XML_BOMBS)
def test_malicious_xml_is_refused(drawn, tmp_path, name):
    voc = write_voc(drawn, tmp_path / "in")
    (voc / "Annotations/000001.xml").write_text(XML_BOMBS[name])
    with pytest.raises(BadDataset, match="000001.xml"):
        convert(voc, tmp_path / "converted")


@pytest.mark.skipif("FRS_TEST_DATA" not in os.environ, reason="FRS_TEST_DATA does not name a folder with real images")
@pytest.mark.parametrize("write", [write_voc, write_yolo])
def test_real_boxes_are_unchanged_by_conversion_from_another_layout(tmp_path, write):
    source = Path(os.environ["FRS_TEST_DATA"]) / "bccd"
    convert(write(source, tmp_path / "in"), tmp_path / "converted")
    for split in SPLITS:
        assert all_boxes(tmp_path / "converted", split) == all_boxes(source, split)
        report = check_split(tmp_path / "converted" / split, tmp_path / f"converted/annotations/instances_{split}.json")
        assert (report.issues, report.counts.images) == ([], {"train": 205, "val": 87}[split])


def test_augmented_copies_of_an_image_stay_in_one_split() -> None:
    names = [f"photo{image}_jpg.rf.{copy:032x}.jpg" for image in range(10) for copy in range(3)]
    val_names = split_off_validation(names, 0.2)
    assert len(val_names) == 6
    assert {name.partition(".rf.")[0] for name in val_names}.isdisjoint(
        {name.partition(".rf.")[0] for name in set(names) - val_names}
    )
    with pytest.raises(NoValidationSplit):
        split_off_validation(names[:3], 0.2)


@pytest.mark.parametrize(("images", "fraction", "expected"), [(2, 0.5, 1), (2, 0.01, 1), (10, 0.2, 2), (3, 0.9, 2)])
def test_each_split_has_an_image(images: int, fraction: float, expected: int) -> None:
    assert len(split_off_validation([f"{number}.jpg" for number in range(images)], fraction)) == expected


@pytest.mark.parametrize(
    ("first", "second", "are_similar"),
    [
        ("square", "Sqaure", True),
        ("plate", "Plates", True),
        ("traffic light", "traffic_light", True),
        ("windscreen wiper", "windscren wiper", True),
        ("defect type 1", "defect type 2", False),
        ("car", "cart", False),
        ("bicycle", "motorcycle", False),
        ("cup", "cap", False),
    ],
)
def test_class_names_that_may_be_one_class_are_named(first: str, second: str, are_similar: bool) -> None:
    assert bool(describe_similar_classes([first, "person", second])) is are_similar


@pytest.mark.parametrize(("images", "is_few"), [(1, True), (99, True), (100, False), (5000, False)])
def test_few_validation_images_are_named(images: int, is_few: bool) -> None:
    assert ("wide" in describe_validation(images)) is is_few
