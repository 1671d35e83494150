"""Names as people have them: backslashes, spaces, Unicode in either form, subfolders, and URLs in place of names."""

import json
import shutil
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from frs.dataset.check import check_split
from frs.dataset.upload.archive import unpack
from frs.dataset.upload.layouts import convert
from frs.errors import ArchiveRefused, BadDataset
from frs_client.files import as_archive


def write_coco(folder: Path, names: dict[str, list[str]], listed=lambda name: name, images="{split}") -> Path:
    """Write our COCO layout with these image names by split; `listed` changes the names in the annotation files."""
    for split, files in names.items():
        for name in files:
            path = folder / images.format(split=split) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(path, "JPEG")
        document = {
            "images": [
                {"id": n, "file_name": listed(name), "width": 96, "height": 64} for n, name in enumerate(files, 1)
            ],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 30, 20]} for n in range(1, len(files) + 1)
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


def pack(folder: Path, archive: Path, rename=lambda name: name) -> Path:
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target.writestr(rename(path.relative_to(folder).as_posix()), path.read_bytes())
    return archive


def issues(folder: Path) -> dict[str, int]:
    """Return the issues of both splits by code, after conversion."""
    convert(folder, folder.with_name("converted"))
    target = folder.with_name("converted")
    counts: dict[str, int] = {}
    for split in ("train", "val"):
        counts |= check_split(target / split, target / f"annotations/instances_{split}.json").issue_counts
    return counts


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("/", "\\"),
        lambda name: "my set\\" + name.replace("/", "\\"),
        lambda name: "my set/" + name.replace("/", "\\"),
        lambda name: ".\\" + name.replace("/", "\\"),
        lambda name: "./" + name,
    ],
)
def test_backslashes_in_an_archive_separate_folders(tmp_path, rename):
    folder = write_coco(tmp_path / "set", {"train": ["sub/1.jpg", "2.jpg"], "val": ["sub/1.jpg", "2.jpg"]})
    unpack(pack(folder, tmp_path / "set.zip", rename), tmp_path / "in")
    assert issues(tmp_path / "in") == {}


@pytest.mark.parametrize("name", ["..\\a.jpg", "x\\..\\..\\a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg", "\\a.jpg"])
def test_backslashes_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"content")
    with pytest.raises(ArchiveRefused):
        unpack(tmp_path / "a.zip", tmp_path / "in")


@pytest.mark.parametrize("packed", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Über.jpg", "é/ñandú.jpg"])
def test_unicode_names_match_in_either_normal_form(tmp_path, packed, listed, name):
    folder = write_coco(tmp_path / "set", {"train": [name], "val": [name]}, lambda n: unicodedata.normalize(listed, n))
    archive = pack(folder, tmp_path / "set.zip", lambda n: unicodedata.normalize(packed, n))
    unpack(archive, tmp_path / "in")
    assert issues(tmp_path / "in") == {}


@pytest.mark.parametrize("listed", [str.upper, str.lower, str.title])
def test_the_case_of_a_listed_name_does_not_matter_in_an_upload(tmp_path, listed):
    assert issues(write_coco(tmp_path / "in", {"train": ["Sub/A b.JPG"], "val": ["c.jpg"]}, listed)) == {}


@pytest.mark.parametrize(
    ("stored", "listed"), [("ü.jpg", "u\u0308.jpg"), ("u\u0308.jpg", "ü.jpg"), ("a.JPG", "a.jpg"), ("a.png", "a.PNG")]
)
def test_a_registered_file_of_another_spelling_is_named(tmp_path, stored, listed):
    folder = write_coco(tmp_path / "in", {"train": [stored]}, lambda _: listed)
    (issue,) = check_split(folder / "train", folder / "annotations/instances_train.json").issues
    assert issue.code == "image_missing"
    assert ascii(stored)[1:-1] in issue.message


def test_utf_8_names_without_the_flag_for_it_are_read(tmp_path):
    archive = pack(write_coco(tmp_path / "set", {"train": ["Übung.jpg"], "val": ["ok.jpg"]}), tmp_path / "set.zip")
    content = archive.read_bytes()
    flagged, plain = b"\x00\x08", b"\x00\x00"
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            if content[start + offset : start + offset + 2] == flagged:
                content = content[: start + offset] + plain + content[start + offset + 2 :]
    archive.write_bytes(content)
    unpack(archive, tmp_path / "in")
    assert issues(tmp_path / "in") == {}


@pytest.mark.parametrize(
    "listed",
    [
        lambda name: f"train\\{name}",
        lambda name: f"C:\\data\\{name}",
        lambda name: f"/data/upload/3/{name}",
        lambda name: f"https://host/bucket/{name}",
        lambda name: f"../images/{name}",
        lambda name: f"./{name}",
    ],
)
def test_names_with_the_folders_of_another_machine_find_their_images(tmp_path, listed):
    names = {"train": ["1.jpg", "2.jpg"], "val": ["3.jpg"]}
    assert issues(write_coco(tmp_path / "in", names, listed, images="images")) == {}


@pytest.mark.parametrize(
    "name", ["x" * 250 + "é" * 200 + ".jpg", "https%3A%2F%2F" + "x" * 280 + ".jpg", "a/" * 300 + "b.jpg"]
)
@pytest.mark.parametrize("has_val", [True, False])
def test_names_longer_than_a_file_system_allows_are_missing_images(tmp_path, name, has_val):
    folder = write_coco(tmp_path / "in", {"train": ["1.jpg", "2.jpg"], "val": ["3.jpg"]})
    file = folder / "annotations/instances_train.json"
    document = json.loads(file.read_text())
    document["images"][0]["file_name"] = name
    file.write_text(json.dumps(document))
    if not has_val:
        shutil.rmtree(folder / "val")
        (folder / "annotations/instances_val.json").unlink()
    convert(folder, tmp_path / "out", None if has_val else 0.5)
    codes = [
        check_split(tmp_path / "out" / split, tmp_path / f"out/annotations/instances_{split}.json").issue_counts
        for split in ("train", "val")
    ]
    assert {"image_missing": 1} in codes


@pytest.mark.parametrize("listed", [("1.jpg", "1.jpg"), ("1.jpg", "./1.jpg"), ("sub/1.jpg", "sub\\1.jpg")])
def test_an_image_listed_in_both_splits_is_refused_by_name(tmp_path, listed):
    folder = write_coco(tmp_path / "in", {"train": [listed[0].replace("\\", "/")]}, images="images")
    write_coco(folder, {"val": [listed[0]]}, lambda _: listed[1], images="images")
    with pytest.raises(BadDataset, match=r"1\.jpg is listed in both splits, in annotations/instances_train\.json and"):
        convert(folder, tmp_path / "out")


def test_a_validation_folder_within_the_training_folder_is_not_moved_away(tmp_path):
    folder = write_coco(tmp_path / "in", {"train": ["1.jpg", "a/2.jpg"]}, images="images")
    write_coco(folder, {"val": ["1.jpg", "3.jpg"]}, images="images/val")
    assert issues(folder) == {}


@pytest.mark.parametrize("name", ["set", "my set", "Füße"])
def test_linked_folders_are_uploaded(tmp_path, name):
    source = write_coco(tmp_path / "source", {"train": ["1.jpg"], "val": ["2.jpg"]})
    (tmp_path / name).mkdir()
    for part in ("annotations", "train", "val"):
        (tmp_path / name / part).symlink_to(source / part)
    (source / "train" / "loop").symlink_to(tmp_path / name)
    (source / "train" / "up").symlink_to(source)
    (tmp_path / "archive").mkdir()
    with zipfile.ZipFile(as_archive(tmp_path / name, tmp_path / "archive")) as archive:
        names = archive.namelist()
    assert {"train/1.jpg", "val/2.jpg", "annotations/instances_train.json"} <= set(names)
    assert len(names) < 30


class LocalCodePage(zipfile.ZipInfo):
    """Entry whose name is in GBK without the flag for UTF-8, as WinRAR packs on a Chinese Windows."""

    def _encodeFilenameFlags(self):
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


@pytest.mark.parametrize(
    ("field", "is_used"),
    [
        (lambda raw, name: b"\1" + zlib.crc32(raw).to_bytes(4, "little") + name, True),
        (lambda raw, name: b"\1" + zlib.crc32(b"other").to_bytes(4, "little") + name, False),
        (lambda raw, name: b"\2" + zlib.crc32(raw).to_bytes(4, "little") + name, False),
        (lambda raw, name: b"\1" + zlib.crc32(raw).to_bytes(4, "little") + b"\xff.jpg", False),
        (lambda raw, name: b"\1" + zlib.crc32(raw).to_bytes(4, "little"), False),
        (lambda raw, name: b"\1", False),
    ],
)
def test_the_unicode_path_of_an_entry_is_its_name_if_it_belongs_to_the_other_name(tmp_path, field, is_used):
    content = field("图片1.jpg".encode("gbk"), "图片1.jpg".encode())
    entry = LocalCodePage("图片1.jpg")
    entry.extra = struct.pack("<HHH", 0x9999, 2, 0) + struct.pack("<HH", 0x7075, len(content)) + content
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, b"content")
    unpack(tmp_path / "a.zip", tmp_path / "in")
    [path] = (tmp_path / "in").iterdir()
    assert (path.name == "图片1.jpg") is is_used


def test_a_unicode_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    entry = LocalCodePage("图片1.jpg")
    content = b"\1" + zlib.crc32("图片1.jpg".encode("gbk")).to_bytes(4, "little") + b"../a.jpg"
    entry.extra = struct.pack("<HH", 0x7075, len(content)) + content
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, b"content")
    with pytest.raises(ArchiveRefused, match="leads out"):
        unpack(tmp_path / "a.zip", tmp_path / "in")
