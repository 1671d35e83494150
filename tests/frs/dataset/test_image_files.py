import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from frs.dataset import image_files
from frs.dataset.coco_images import CocoImage


def truncate(path: Path, fraction: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_a_missing_file_is_reported_by_name(tiny):
    tiny.image("gone.png").unlink()
    issue = tiny.only_issue()
    assert (issue.code, issue.message) == ("image_missing", "gone.png is not in the images folder.")


@pytest.mark.parametrize("name", ["x" * 300, "sub", "loop.png", "pipe.png"])
def test_a_path_that_is_not_a_regular_file_is_missing(tiny, name):
    folder = tiny.folder / "train"
    (folder / "sub").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    tiny.images[0]["file_name"] = name
    assert tiny.only_issue().code == "image_missing"


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.bmp", "b.webp"])
def test_jpeg_png_bmp_and_webp_are_valid(tiny, name):
    tiny.image(name)
    assert tiny.check().issues == []


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.bmp", "b.webp"])
def test_a_truncated_file_is_unreadable(tiny, name):
    truncate(tiny.image(name, (200, 200)))
    assert tiny.only_issue().code == "image_unreadable"


def test_a_truncated_progressive_jpeg_is_unreadable(tiny):
    path = tiny.image("b.jpg", (200, 200))
    Image.open(path).copy().save(path, progressive=True)
    truncate(path)
    assert tiny.only_issue().code == "image_unreadable"


def test_a_png_with_a_flipped_bit_is_unreadable(tiny):
    path = tiny.image("b.png", (200, 200))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert tiny.only_issue().code == "image_unreadable"


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a", b"\xff\xd8\xff", b"BM"])
def test_a_file_that_is_not_an_image_is_unreadable(tiny, content):
    tiny.image("b.jpg").write_bytes(content)
    assert tiny.only_issue().code == "image_unreadable"


def test_the_message_on_a_file_without_read_permission_omits_its_path(tiny, monkeypatch):
    def deny(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    image = CocoImage(1, "a.png", 40, 30)
    monkeypatch.setattr(Path, "open", deny)
    root = (tiny.folder / "train").resolve()
    assert image_files.check_image(root, image, decode=True) == (
        "image_unreadable",
        "a.png cannot be read: Permission denied.",
    )


def test_malformed_exif_data_are_ignored(tiny):
    path = tiny.image("b.jpg", (50, 60))
    Image.open(path).copy().save(path, exif=b"Exif\0\0" + b"nonsense" * 9)
    assert tiny.check().issues == []


def test_only_headers_are_read_in_a_large_data_set(tiny):
    truncate(tiny.image("b.jpg", (200, 200)))
    tiny.image("c.jpg", (50, 50), width=51)
    report = tiny.check(decode_up_to=2)
    assert report.depth == "headers"
    assert [issue.code for issue in report.issues] == ["image_size_differs"]


def test_a_size_that_differs_from_the_annotations_is_an_issue(tiny):
    tiny.image("b.png", (50, 60), width=60, height=50)
    issue = tiny.only_issue()
    assert (issue.code, issue.message) == (
        "image_size_differs",
        "b.png is 50x60; the annotations say 60x50.",
    )


@pytest.mark.parametrize("name", ["b.jpg", "b.png"])
def test_the_size_of_a_rotated_photograph_follows_its_exif_orientation(tiny, name):
    path = tiny.image(name, (50, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).copy().save(path, exif=exif)
    assert tiny.only_issue().message == (
        f"{name} is 60x50 after applying its EXIF orientation; the annotations say 50x60."
    )
    tiny.images[1] |= {"width": 60, "height": 50}
    assert tiny.check().issues == []


@pytest.mark.parametrize("name", ["../out.png", "sub/../../out.png", "/etc/hostname", "link.png", "linked/out.png"])
def test_a_path_out_of_the_folder_is_refused(tiny, name):
    tiny.image("../out.png")
    (tiny.folder / "train" / "link.png").symlink_to(tiny.folder / "out.png")
    (tiny.folder / "train" / "linked").symlink_to(tiny.folder)
    tiny.images[1]["file_name"] = name
    issue = tiny.only_issue()
    assert (issue.code, issue.image_id) == ("image_outside_folder", 2)


def test_a_folder_whose_name_starts_with_the_images_folders_name_is_outside(tiny):
    tiny.image("../train2/b.png")
    assert tiny.only_issue().code == "image_outside_folder"


def test_a_link_within_the_folder_and_a_linked_folder_are_valid(tiny):
    tiny.image("b.png").rename(tiny.folder / "train" / "c.png")
    (tiny.folder / "train" / "b.png").symlink_to("c.png")
    (tiny.folder / "train").rename(tiny.folder / "elsewhere")
    (tiny.folder / "train").symlink_to(tiny.folder / "elsewhere")
    assert tiny.check().issues == []


@pytest.mark.parametrize("side", [8_001, 20_000, 60_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_refused_by_its_header(tiny, side):
    tiny.image("b.png").write_bytes(png_claiming(side, side))
    tiny.images[1] |= {"width": side, "height": side}
    assert tiny.only_issue().code in ("image_too_large", "image_unreadable")


def test_the_maximum_number_of_pixels_is_configurable(tiny):
    tiny.image("b.png", (100, 100))
    issue = tiny.only_issue(max_pixels=9_999)
    assert (issue.code, issue.message) == (
        "image_too_large",
        "b.png is too large: 100x100, at most 9,999 pixels are allowed.",
    )


def test_a_file_of_too_many_bytes_is_too_large(tiny, monkeypatch):
    tiny.image("b.bmp", (100, 100))
    monkeypatch.setattr(image_files, "MAX_BYTES", 20_000)
    assert tiny.only_issue().code == "image_too_large"


def test_a_jpeg_of_a_thousand_scans_is_too_large(tiny):
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    tiny.image("b.jpg", (64, 64)).write_bytes(content[:-2] + scan * 1000 + b"\xff\xd9")
    issue = tiny.only_issue()
    assert issue.code == "image_too_large"
    assert "scans" in issue.message


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.bmp", "b.webp"])
def test_a_mutated_file_does_not_stop_the_check(tiny, name):
    content = bytearray(tiny.image(name, (64, 48)).read_bytes())
    tiny.images[1:] = []
    for number in range(2, 52):
        mutant = bytearray(content)
        offset = (number * 7919) % len(mutant)
        mutant[offset : offset + 1 + number % 3] = bytes([number * 37 % 256]) * (number % 4)
        tiny.image(f"{number}{name}", (64, 48)).write_bytes(mutant)
    report = tiny.check()
    assert {issue.code for issue in report.issues} <= {
        "image_size_differs",
        "image_too_large",
        "image_unreadable",
    }
