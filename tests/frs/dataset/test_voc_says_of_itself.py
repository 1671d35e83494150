"""What a Pascal VOC file states is obeyed: corners, `difficult`, `<filename>`, encoding, lists and folders."""

from pathlib import Path

import pytest
from layout_writers import all_boxes, annotations
from PIL import Image

from frs.dataset.check import check_split
from frs.dataset.upload.layouts import convert
from frs.errors import BadDataset

OBJECT = (
    "<object><name>{name}</name>{extra}<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>"
    "</bndbox></object>"
)
STEMS = ("a", "b", "c", "d")


def write(folder: Path, stem: str, *objects: str, file_name: str = "", images="JPEGImages", xml="Annotations") -> Path:
    """Write an image and its XML file; `file_name` is the content of `<filename>`."""
    image = folder / images / f"{stem}.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(image)
    path = folder / xml / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>{file_name or image.name}</filename>{size}{''.join(objects)}</annotation>")
    return path


def box(*corners: float, name: str = "cat", extra: str = "") -> str:
    return OBJECT.format(*corners, name=name, extra=extra)


def write_lists(
    folder: Path, train: str = "a\nb\n", val: str = "c\nd\n", names: tuple[str, str] = ("train", "val")
) -> None:
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, text in zip(names, (train, val), strict=True):
        (lists / f"{name}.txt").write_text(text, "utf-8")


def converted(folder: Path, val_fraction: float | None = None) -> Path:
    target = folder.with_name("converted")
    assert convert(folder, target, val_fraction) == "voc"
    return target


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((10.5, 20.25, 50.75, 60), (10.5, 20.25, 40.25, 39.75)),
        ((11, 11, 40, 30.5), (11, 11, 29, 19.5)),
        ((11, 11, 40, 30), (10, 10, 30, 20)),
        ((11.0, 11.0, 40.0, 30.0), (10, 10, 30, 20)),
        ((0, 11, 40, 30), (0, 11, 40, 19)),
        ((0.5, 11, 40, 30), (0.5, 11, 39.5, 19)),
        ((1, 1, 96, 64), (0, 0, 96, 64)),
    ],
)
def test_corners_count_from_1_only_if_all_are_integers_from_1(voc, corners, expected):
    for stem in STEMS:
        write(voc, stem, box(*corners))
    write_lists(voc)
    assert all_boxes(converted(voc), "train")["a.jpg"] == {("cat", expected)}


@pytest.mark.parametrize(
    ("extra", "excluded"),
    [
        ("<difficult>1</difficult>", {"ignored": 1}),
        ("<pose>Left</pose><difficult> 1 </difficult>", {"ignored": 1}),
        ("<difficult>True</difficult>", {"ignored": 1}),
        ("<difficult>0</difficult>", {}),
        ("<difficult>False</difficult>", {}),
        ("<difficult>Unspecified</difficult>", {}),
        ("<difficult/>", {}),
        ("", {}),
    ],
)
def test_difficult_objects_are_not_trained_on(voc, extra, excluded):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30), *([box(50, 50, 60, 60, extra=extra)] if stem == "a" else []))
    write_lists(voc)
    folder = converted(voc)
    report = check_split(folder / "train", folder / "annotations/instances_train.json")
    assert (report.issues, report.excluded_boxes, report.counts.boxes) == ([], excluded, 3)


@pytest.mark.parametrize("encoding", ["gbk", "GB2312", "gb18030", "big5", "shift_jis", "utf-8", "utf-16"])
def test_the_encoding_that_a_file_declares_is_used(voc, encoding):
    for stem in STEMS:
        path = write(voc, stem, box(11, 11, 40, 30, name="犬"))
        path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{path.read_text("utf-8")}'.encode(encoding))
    write_lists(voc)
    assert annotations(converted(voc), "train")["categories"] == [{"id": 1, "name": "犬"}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk"])
def test_files_beside_their_images_are_recognised_in_each_encoding(voc, encoding):
    declared = "gbk" if encoding == "gbk" else "utf-8" if encoding == "utf-8-sig" else "utf-16"
    for stem in STEMS:
        path = write(voc, stem, box(11, 11, 40, 30, name="犬"), images=".", xml=".")
        path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>{path.read_text("utf-8")}'.encode(encoding))
    assert annotations(converted(voc, 0.5), "train")["categories"] == [{"id": 1, "name": "犬"}]


@pytest.mark.parametrize(
    "content",
    [
        b'<?xml version="1.0" encoding="utf-7"?><annotation/>',
        b'<?xml version="1.0" encoding="rot13"?><annotation/>',
        b'<?xml version="1.0" encoding="gbk"?><annotation>' + b"\xff\xff</annotation>",
        "<annotation><object><name>犬</name></object></annotation>".encode("gbk"),
    ],
)
def test_an_encoding_that_is_not_read_is_refused_with_the_file(voc, content):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30))
    (voc / "Annotations/a.xml").write_bytes(content)
    write_lists(voc)
    with pytest.raises(BadDataset, match=r"Annotations/a\.xml"):
        converted(voc)


@pytest.mark.parametrize("name", ["my pic {}", "cam1/{}", "cam 1/pic {}", "Ünïcode {}", "{}.v2"])
@pytest.mark.parametrize("flag", ["", " 1", "  -1"])
def test_listed_names_may_have_spaces_folders_and_dots(voc, name, flag):
    for stem in STEMS:
        write(voc, name.format(stem), box(11, 11, 40, 30))
    lines = [name.format(stem) + flag + "\n" for stem in STEMS]
    write_lists(voc, "".join(lines[:2]), "".join(lines[2:]))
    folder = converted(voc)
    assert set(all_boxes(folder, "train")) == {f"{name.format(stem)}.jpg" for stem in "ab"}
    assert set(all_boxes(folder, "val")) == {f"{name.format(stem)}.jpg" for stem in "cd"}


def test_listed_and_stated_names_match_in_either_normal_form_of_unicode(voc):
    for stem in STEMS:
        write(voc, f"{stem}é", box(11, 11, 40, 30), file_name=f"{stem}e\u0301.jpg")
    (voc / "Annotations/bé.xml").rename(voc / "Annotations/other.xml")
    write_lists(voc, "ae\u0301\nother\n", "ce\u0301\nde\u0301\n")
    assert set(all_boxes(converted(voc), "train")) == {"aé.jpg", "bé.jpg"}


@pytest.mark.parametrize(
    "folders", [("train", "valid"), ("Train", "Validation"), ("data/training", "data/val"), ("train2017", "val2017")]
)
def test_xml_files_beside_their_images_are_split_by_folder(voc, folders):
    for folder in (*folders, "test"):
        for stem in "ab":
            write(voc, stem, box(11, 11, 40, 30), file_name="unknown.jpg", images=folder, xml=folder)
    folder = converted(voc)
    for split in ("train", "val"):
        assert all_boxes(folder, split) == {f"{stem}.jpg": {("cat", (10, 10, 30, 20))} for stem in "ab"}


@pytest.mark.parametrize(("images", "xml"), [(".", "."), ("JPEGImages", "Annotations"), ("images", "annotations")])
def test_without_lists_and_split_folders_all_images_are_for_training(voc, images, xml):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30), images=images, xml=xml)
    folder = converted(voc, 0.25)
    assert [len(all_boxes(folder, split)) for split in ("train", "val")] == [3, 1]


@pytest.mark.parametrize("names", [("Train", "Validation"), ("training", "valid"), ("trainval", "val")])
def test_lists_may_have_other_names(voc, names):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30))
    write_lists(voc, names=names)
    (voc / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    (voc / "ImageSets/Main/test.txt").write_text("a\n")
    assert set(all_boxes(converted(voc), "train")) == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("stated", ["photo.jpg", "C:\\images\\photo.jpg", "some/folder/photo.jpg"])
def test_the_image_that_a_file_names_is_used(voc, stated):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30))
    (voc / "JPEGImages/a.jpg").rename(voc / "JPEGImages/photo.jpg")
    xml = voc / "Annotations/a.xml"
    xml.write_text(xml.read_text().replace("a.jpg", stated))
    write_lists(voc)
    assert set(all_boxes(converted(voc), "train")) == {"photo.jpg", "b.jpg"}


def test_a_copied_file_name_does_not_take_the_image_of_another_file(voc):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30), file_name="a.jpg")
    write_lists(voc)
    assert set(all_boxes(converted(voc), "train")) == {"a.jpg", "b.jpg"}


def mask(folder: Path, name: str) -> None:
    """Write a picture that must not be taken for an image."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (96, 64)).save(path)


@pytest.mark.parametrize(
    ("images", "xml", "masks"),
    [
        (".", ".", "{}.png"),
        ("JPEGImages", "Annotations", "JPEGImages/{}.png"),
        ("images", "annotations/xmls", "annotations/trimaps/{}.png"),
        ("images", "annotations", "masks/{}.jpg"),
        ("b/images", "b/images", "a/{}.jpg"),
    ],
)
def test_of_images_that_share_a_name_the_stated_one_is_used(voc, images, xml, masks):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30), images=images, xml=xml)
        mask(voc, masks.format(stem))
    folder = converted(voc, 0.5)
    for split in ("train", "val"):
        assert len(list((folder / split).rglob("*.jpg"))) == 2
        for path in (folder / split).rglob("*.*"):
            with Image.open(path) as image:
                assert image.mode == "RGB"


def test_the_image_beside_an_xml_file_is_used_before_one_of_the_stated_name_elsewhere(voc):
    for folder in ("train", "val", "test"):
        write(voc, "a", box(11, 11, 40, 30), images=folder, xml=folder)
    for folder in ("train", "val"):
        (voc / folder / "a.jpg").rename(voc / folder / "a.png")
    assert set(all_boxes(converted(voc), "train")) == {"a.png"}


def test_an_xml_file_of_one_folder_does_not_take_the_image_of_another(voc):
    for folder in ("train", "val"):
        write(voc, f"{folder}_info", box(11, 11, 40, 30), file_name="a.jpg", images=folder, xml=folder)
        (voc / folder / f"{folder}_info.jpg").rename(voc / folder / "a.jpg")
    folder = converted(voc)
    assert [set(all_boxes(folder, split)) for split in ("train", "val")] == [{"a.jpg"}, {"a.jpg"}]


def test_an_xml_file_of_two_images_is_named_with_both(voc):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30), file_name="unknown", images=".", xml=".")
    mask(voc, "a.png")
    with pytest.raises(BadDataset, match=r"a\.xml may belong to a\.jpg or a\.png: keep one of them, or state"):
        converted(voc, 0.5)


def test_an_xml_file_without_an_image_is_named(voc):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30))
    (voc / "JPEGImages/b.jpg").unlink()
    write_lists(voc)
    with pytest.raises(BadDataset, match=r"Annotations/b.xml belongs to no image\."):
        converted(voc)


@pytest.mark.parametrize("corners", [(40, 11, 20, 30), (11, 30, 40, 20), (40, 30, 20, 20)])
def test_swapped_corners_are_reported_as_an_empty_box(voc, corners):
    for stem in STEMS:
        write(voc, stem, box(11, 11, 40, 30), *([box(*corners)] if stem == "a" else []))
    write_lists(voc)
    folder = converted(voc)
    report = check_split(folder / "train", folder / "annotations/instances_train.json")
    assert [issue.code for issue in report.issues] == ["box_empty"]
