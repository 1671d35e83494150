"""Orientation, bit depth and kind of image files are judged as OpenCV, which reads them for training, treats them."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from frs.export import frs_runner

ORIENTATION = 0x0112


def save_oriented(path: Path, size: tuple[int, int], orientation: int, *, late: bool = False) -> None:
    """Write an image with an EXIF orientation; `late` moves a PNG's chunk eXIf behind the pixels."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.linear_gradient("L").resize(size).convert("RGB").save(path, exif=exif)
    if late:
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
        path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])


def training_size(path: Path) -> tuple[int, int]:
    height, width = cv2.imread(str(path)).shape[:2]
    return width, height


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_the_size_of_a_png_is_that_which_training_reads(tiny, orientation, late):
    path = tiny.image("b.png", (50, 60))
    save_oriented(path, (50, 60), orientation, late=late)
    width, height = training_size(path)
    tiny.images[1] |= {"width": width, "height": height}
    assert tiny.check().issues == []
    tiny.images[1] |= {"width": height, "height": width}
    assert tiny.only_issue().code == "image_size_differs"


@pytest.mark.parametrize(
    ("name", "size", "orientation", "late", "is_reported"),
    [
        ("b.png", (50, 50), 6, True, True),
        ("b.png", (50, 50), 3, False, True),
        ("b.jpg", (50, 60), 3, False, True),
        ("b.jpg", (50, 50), 8, False, True),
        ("b.jpg", (50, 60), 2, False, True),
        ("b.jpg", (50, 60), 1, False, False),
    ],
)
def test_a_turn_that_the_size_does_not_show_is_reported(tiny, name, size, orientation, late, is_reported):
    save_oriented(tiny.image(name, size), size, orientation, late=late)
    report = tiny.check()
    assert report.issues == []
    assert any("EXIF orientation" in warning and name in warning for warning in report.warnings) is is_reported


@pytest.mark.parametrize(("size", "orientation"), [((50, 60), 3), ((50, 50), 6)])
def test_a_webp_that_training_does_not_turn_is_reported(tiny, size, orientation):
    path = tiny.image("b.webp", size)
    save_oriented(path, size, orientation)
    assert training_size(path) == size
    report = tiny.check()
    assert report.issues == []
    assert report.warnings == [
        "EXIF orientation in b.webp: training does not turn WebP images. Boxes must fit the image as it is stored."
    ]


def test_a_webp_annotated_as_turned_has_another_size(tiny):
    save_oriented(tiny.image("b.webp", (60, 50)), (50, 60), 6)
    assert tiny.only_issue().message == (
        "b.webp is 50x60 without its EXIF orientation, which training ignores; the annotations say 60x50."
    )


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"])
def test_the_orientation_in_xmp_data_turns_nothing(tiny, exif):
    path = tiny.image("b.jpg", (50, 60))
    Image.new("RGB", (50, 60)).save(path, exif=exif, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    assert training_size(path) == frs_runner.load_image(path).shape[1::-1] == (50, 60)
    assert tiny.check().issues == []


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "late.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_runner_turns_an_image_as_training_does(tmp_path, name, orientation):
    path = tmp_path / name
    save_oriented(path, (50, 60), orientation, late=name == "late.png")
    assert np.abs(frs_runner.load_image(path).astype(int) - cv2.imread(str(path))[:, :, ::-1]).max() <= 1


@pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"Exif\0\0nonsense nonsense"])
def test_the_runner_ignores_malformed_exif_data(tmp_path, exif):
    Image.new("RGB", (50, 60)).save(tmp_path / "a.jpg", exif=exif)
    assert frs_runner.load_image(tmp_path / "a.jpg").shape[:2] == (60, 50)


def test_a_turned_photograph_annotated_as_seen_is_not_reported(tiny):
    save_oriented(tiny.image("b.jpg", (60, 50)), (50, 60), 6)
    report = tiny.check()
    assert (report.issues, report.warnings) == ([], [])


@pytest.mark.parametrize("shape", [(60, 50), (60, 50, 3), (60, 50, 4)])
@pytest.mark.parametrize("decode_up_to", [0, 2000])
def test_sixteen_bits_per_value_are_reported(tiny, shape, decode_up_to):
    path = tiny.image("b.png", (50, 60))
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16))
    report = tiny.check(decode_up_to=decode_up_to)
    assert report.issues == []
    assert report.warnings == [
        "16 bits per value in b.png: training uses the upper 8 bits. "
        "Convert to 8 bits if values fill only a part of the range."
    ]


@pytest.mark.parametrize("name", ["B.JPG", "b.Png", "b.jpeg", "b.jfif"])
def test_the_suffix_of_a_name_does_not_matter(tiny, name):
    path = tiny.image("b.png")
    Image.open(path).save(path.with_name(name), "JPEG")
    tiny.images[1]["file_name"] = name
    assert tiny.check().issues == []


@pytest.mark.parametrize(
    ("name", "kind"), [("b.tif", "TIFF"), ("b.tiff", "TIFF"), ("b.gif", "GIF"), ("b.jpg", "TIFF"), ("b.png", "GIF")]
)
def test_an_image_of_a_kind_that_is_not_read_is_named(tiny, name, kind):
    content = io.BytesIO()
    Image.new("RGB", (40, 30)).save(content, kind)
    tiny.image("b.png")
    tiny.images[1]["file_name"] = name
    (tiny.folder / "train" / name).write_bytes(content.getvalue())
    issue = tiny.only_issue()
    assert (issue.code, issue.message) == (
        "image_unreadable",
        f"{name} is a {kind} image, which is not read. Convert it to JPEG, PNG, BMP or WebP.",
    )


def test_a_png_of_many_chunks_is_checked_quickly(tiny):
    path = tiny.image("b.png")
    content = path.read_bytes()
    chunk = struct.pack(">I", 0) + b"teSt" + b"\xb4\x6b\xdd\xe1"
    path.write_bytes(content[:33] + chunk * 50_000 + content[33:])
    assert tiny.check().warnings == []
