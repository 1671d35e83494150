import json
import os
import shutil
from pathlib import Path

import pytest
from layout_writers import all_boxes, annotations, write_voc, write_yolo

from frs.dataset.check import check_pair, check_split
from frs.dataset.shapes.drawing import draw_dataset
from frs.dataset.upload.layouts import convert
from frs.errors import BadDataset

HALVES = ("train", "val")


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
    """The same boxes on the same pictures, and a set that the check has nothing against."""
    reports = []
    for half in HALVES:
        assert all_boxes(folder, half) == all_boxes(source, half)
        reports.append(check_split(folder / half, folder / "annotations" / f"instances_{half}.json"))
        assert reports[-1].issues == []
    check_pair(*reports)


def original(coco: Path) -> None:
    for half in HALVES:
        (coco / half).rename(coco / f"{half}2017")
        (coco / "annotations" / f"instances_{half}.json").rename(coco / f"annotations/instances_{half}2017.json")


def shared_folder(coco: Path) -> None:
    (coco / "images").mkdir()
    for half in HALVES:
        content = annotations(coco, half)
        for image in content["images"]:
            name = f"{half}-{image['file_name']}"
            (coco / half / image["file_name"]).rename(coco / "images" / name)
            image["file_name"] = name
        (coco / "annotations" / f"instances_{half}.json").write_text(json.dumps(content))
        shutil.rmtree(coco / half)


def roboflow(coco: Path) -> None:
    for half in HALVES:
        content = annotations(coco, half)
        for category in content["categories"]:
            category["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        (coco / half / "_annotations.coco.json").write_text(json.dumps(content))
    (coco / "val").rename(coco / "valid")
    shutil.rmtree(coco / "annotations")
    (coco / "README.roboflow.txt").write_text("hello")


@pytest.mark.parametrize("change", [lambda coco: None, original, roboflow])
def test_coco_comes_in_several_folders(coco, drawn, tmp_path, change):
    change(coco)
    assert convert(tmp_path, tmp_path / "ours") == "coco"
    assert_same(tmp_path / "ours", drawn)
    assert len(annotations(tmp_path / "ours", "train")["categories"]) == 4


def test_halves_that_share_a_folder_are_sorted_out(coco, tmp_path):
    shared_folder(coco)
    before = shutil.copytree(coco, tmp_path / "before")
    convert(coco, tmp_path / "ours")
    assert_same(tmp_path / "ours", before)


@pytest.mark.parametrize("first", [0, 1])
def test_voc_becomes_coco_whichever_way_its_pixels_are_counted(drawn, tmp_path, first):
    assert any(box[0] == 0 for boxes in all_boxes(drawn, "train").values() for _, box in boxes)
    write_voc(drawn, tmp_path / "in/VOCdevkit/VOC2012", first)
    assert convert(tmp_path / "in", tmp_path / "ours") == "voc"
    for half in HALVES:
        assert all_boxes(tmp_path / "ours", half) == all_boxes(drawn, half)
    classes = [row["name"] for row in annotations(tmp_path / "ours", "train")["categories"]]
    assert classes == ["circle", "square", "star", "triangle"]


def test_a_picture_in_both_halves_is_refused(drawn, tmp_path):
    voc = write_voc(drawn, tmp_path / "in")
    (voc / "ImageSets/Main/val.txt").write_text("000001\n")
    with pytest.raises(BadDataset, match="000001.jpg is listed twice"):
        convert(voc, tmp_path / "ours")


@pytest.mark.parametrize("order", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize("val", ["val", "valid"])
def test_yolo_becomes_coco(drawn, tmp_path, order, val):
    write_yolo(drawn, tmp_path / "in" / "set", order, val)
    assert convert(tmp_path / "in", tmp_path / "ours") == "yolo"
    assert_same(tmp_path / "ours", drawn)


def test_categories_count_from_1_in_the_order_of_the_classes(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "data.yaml").write_text("names:\n  1: zebra\n  0: ape\n  2: fox\n  3: bee\n")
    convert(yolo, tmp_path / "ours")
    content = annotations(tmp_path / "ours", "train")
    assert [(row["id"], row["name"]) for row in content["categories"]] == [
        (1, "ape"),
        (2, "zebra"),
        (3, "fox"),
        (4, "bee"),
    ]
    box = content["annotations"][0]
    assert (box["iscrowd"], box["area"]) == (0, pytest.approx(box["bbox"][2] * box["bbox"][3], abs=0.01))


def test_an_outline_becomes_the_box_around_it(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "labels/train/000001.txt").write_text("2 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    convert(yolo, tmp_path / "ours")
    assert all_boxes(tmp_path / "ours", "train")["000001.jpg"] == {("triangle", (16, 16, 32, 32))}


def test_a_picture_without_a_label_file_shows_nothing(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "labels/train/000001.txt").unlink()
    convert(yolo, tmp_path / "ours")
    assert all_boxes(tmp_path / "ours", "train")["000001.jpg"] == set()


def test_a_broken_picture_is_left_to_the_check(drawn, tmp_path):
    for write in (write_yolo, write_voc):
        folder = write(drawn, tmp_path / write.__name__)
        next(folder.rglob("000001.jpg")).write_bytes(b"broken")
        convert(folder, tmp_path / f"{write.__name__}-ours")
        ours = tmp_path / f"{write.__name__}-ours"
        codes = check_split(ours / "train", ours / "annotations/instances_train.json").issue_counts
        assert codes == {"image_unreadable": 1}


def without_val(folder: Path) -> Path:
    for name in ("val", "images/val", "labels/val"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("annotations/instances_val.json", "ImageSets/Main/val.txt"):
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("write", [write_voc, write_yolo, shutil.copytree])
def test_without_a_validation_half_a_share_can_be_set_aside(drawn, tmp_path, write):
    folder = without_val(write(drawn, tmp_path / "in"))
    again = shutil.copytree(folder, tmp_path / "again")
    with pytest.raises(BadDataset) as refusal:
        convert(shutil.copytree(folder, tmp_path / "refused"), tmp_path / "not")
    assert (refusal.value.code, "val_fraction" in refusal.value.hint) == ("no_validation_split", True)
    convert(folder, tmp_path / "ours", 0.25)
    convert(again, tmp_path / "safetensors_copy", 0.25)
    train, val = (all_boxes(tmp_path / "ours", half) for half in HALVES)
    assert (len(train), len(val)) == (6, 2)
    assert train | val == all_boxes(drawn, "train")
    assert val == all_boxes(tmp_path / "safetensors_copy", "val")
    for half in HALVES:
        assert check_split(tmp_path / "ours" / half, tmp_path / f"ours/annotations/instances_{half}.json").issues == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5", "3 fields"),
        ("9 0.5 0.5 0.1 0.1", "class 9 is not one of 0 to 3"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("circle 0.5 0.5 0.1 0.1", "class circle"),
        ("0 0.5 0.5 0.1 nan", "nan is no number from 0 to 1"),
        ("0 0.5 0.5 0.1 inf", "inf is no number"),
        ("0 320 240 10 10", "320 is no number from 0 to 1"),
        ("0 0.5 0.5 0.1 x", "x is no number"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 fields"),
    ],
)
def test_a_wrong_line_is_named(drawn, tmp_path, line, told):
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "labels/train/000002.txt").write_text(f"\n{line}\n")
    with pytest.raises(BadDataset) as refusal:
        convert(yolo, tmp_path / "ours")
    assert refusal.value.message.startswith("labels/train/000002.txt, line 2: ")
    assert told in refusal.value.message


def test_many_wrong_lines_are_told_at_once(drawn, tmp_path):
    yolo = write_yolo(drawn, tmp_path / "in")
    for number in range(1, 9):
        (yolo / f"labels/train/{number:06d}.txt").write_text("7")
    with pytest.raises(BadDataset, match=r"000001.txt.*000005.txt, line 1: .* And 3 more\."):
        convert(yolo, tmp_path / "ours")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("<name>", "<nome>", "is not well-formed XML"),
        ("<width>64</width>", "<width>65</width>", "says 65x64, but 000001.jpg is 64x64"),
        ("<xmin>", "<xmin>x", "has `xmin` x"),
        ("<object>", "<object><name> </name>", "object without a name"),
        ("bndbox", "box", "without a bndbox"),
    ],
)
def test_a_wrong_xml_file_is_named(drawn, tmp_path, old, new, told):
    voc = write_voc(drawn, tmp_path / "in")
    file = voc / "Annotations" / "000001.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(BadDataset) as refusal:
        convert(voc, tmp_path / "ours")
    assert refusal.value.message.startswith("Annotations/000001.xml")
    assert told in refusal.value.message


@pytest.mark.parametrize("name", ["nope", "../JPEGImages/000001", "/etc/passwd"])
def test_a_name_that_leads_nowhere_is_told_with_its_line(drawn, tmp_path, name):
    voc = write_voc(drawn, tmp_path / "in")
    (voc / "ImageSets/Main/train.txt").write_text(f"000001\n{name} 1\n")
    with pytest.raises(BadDataset, match=r"ImageSets/Main/train.txt, line 2: there is no picture"):
        convert(voc, tmp_path / "ours")


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/hostname"])
def test_a_coco_file_moves_nothing_from_outside(coco, tmp_path, name):
    shared_folder(coco)
    (tmp_path / "secret.txt").write_text("secret")
    content = annotations(coco, "train")
    content["images"][0]["file_name"] = name
    (coco / "annotations/instances_train.json").write_text(json.dumps(content))
    convert(coco, tmp_path / "ours")
    assert (tmp_path / "secret.txt").exists()
    codes = check_split(tmp_path / "ours/train", tmp_path / "ours/annotations/instances_train.json").issue_counts
    assert codes["image_outside_folder"] == 1


@pytest.mark.parametrize("make", [lambda _: None, lambda folder: (folder / "a.txt").write_text("x")])
def test_what_is_no_data_set_is_said_with_what_is_there(tmp_path, make):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    with pytest.raises(BadDataset) as refusal:
        convert(tmp_path / "in", tmp_path / "ours")
    assert refusal.value.code == "layout_unknown"


YAML_BOMBS = {
    "billion laughs": "a: &a [x,x,x]\n"
    + "".join(f"{b}: &{b} [*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "merged keys": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b}\n  <<: [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "itself": "names: &a [*a]\n",
    "code": "names: !!python/object/apply:os.system ['touch canary']\n",
    "a module": "names: !!python/module:os\n",
    "deep": "names: " + "[" * 10_000 + "]" * 10_000,
    "a number of 100,000 digits": "names: " + "9" * 100_000,
    "a date that is none": "names: 2026-99-99",
    "no list": "names: cats",
    "twins": "names: [a, a]",
    "no texts": "names: [1, 2, 3, 4]",
    "gaps": "names: {0: a, 2: b}",
    "nothing": "",
    "no YAML": "names: [",
    "bytes": "\0\1\2",
}


@pytest.mark.parametrize("what", YAML_BOMBS)
def test_hostile_names_are_refused(drawn, tmp_path, what, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yolo = write_yolo(drawn, tmp_path / "in")
    (yolo / "data.yaml").write_text(YAML_BOMBS[what])
    with pytest.raises(BadDataset, match="data.yaml"):
        convert(yolo, tmp_path / "ours")
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
    "no end": "<annotation>",
    "nothing": "",
    "bytes": "\0\1\2",
}


@pytest.mark.parametrize("what", XML_BOMBS)
def test_hostile_xml_is_refused(drawn, tmp_path, what):
    voc = write_voc(drawn, tmp_path / "in")
    (voc / "Annotations/000001.xml").write_text(XML_BOMBS[what])
    with pytest.raises(BadDataset, match="000001.xml"):
        convert(voc, tmp_path / "ours")


@pytest.mark.skipif("FRS_TEST_DATA" not in os.environ, reason="FRS_TEST_DATA names no folder with real pictures")
@pytest.mark.parametrize("write", [write_voc, write_yolo])
def test_real_boxes_survive_the_way_through_another_layout(tmp_path, write):
    source = Path(os.environ["FRS_TEST_DATA"]) / "bccd"
    convert(write(source, tmp_path / "in"), tmp_path / "ours")
    for half in HALVES:
        assert all_boxes(tmp_path / "ours", half) == all_boxes(source, half)
        report = check_split(tmp_path / "ours" / half, tmp_path / f"ours/annotations/instances_{half}.json")
        assert (report.issues, report.counts.images) == ([], {"train": 205, "val": 87}[half])
