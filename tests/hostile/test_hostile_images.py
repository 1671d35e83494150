"""Malicious images, read like in the data set check and the upload conversion, in a subprocess with measured memory.

The cases of `tests/frs/dataset/test_pictures.py` are not repeated here.
"""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

MAX_KIBIBYTES = 512 << 10
SIDE = 30_000
READ = """
import json, re, sys
from pathlib import Path
from frs.dataset import image_files
from frs.dataset.coco_images import CocoImage
path, width, height = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
issue = image_files.check_image(path.parent, CocoImage(1, path.name, width, height), decode=True)
size = image_files.read_image_size(path)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([issue and issue[0], size, peak]))
"""
ZEROS = bytes(1 << 20)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@cache
def deflated(mebibytes: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(ZEROS) for _ in range(mebibytes)) + packer.flush()


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(
        b"IDAT", pixels or zlib.compress(bytes((width * 3 + 1) * height if width * height < 1_000_000 else 1000))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + body + chunk(b"IEND", b"")


def saved(kind: str, side: int = 64, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, kind, **options)
    return stream.getvalue()


def patched(content: bytes, place: int, *numbers: int, form: str) -> bytes:
    value = struct.pack(form, *numbers)
    return content[:place] + value + content[place + len(value) :]


def jpeg_claiming(width: int, height: int, marker: bytes = b"\xff\xc0") -> bytes:
    content = saved("JPEG", progressive=marker == b"\xff\xc2")
    return patched(content, content.index(marker) + 5, height, width, form=">HH")


def bmp_claiming(width: int, height: int) -> bytes:
    return patched(saved("BMP"), 18, width, height, form="<ii")


def run_length_bmp(width: int, height: int) -> bytes:
    """An 8-bit run-length encoded bitmap: a few bytes that skip the whole image."""
    palette = bytes(1024)
    body = b"\0\2\xff\xff" * 1000 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body


def webp_claiming(width: int, height: int) -> bytes:
    """A lossy image; width and height are 14 bits each in the frame header."""
    content = saved("WEBP")
    return patched(content, content.index(b"\x9d\x01\x2a") + 3, width, height, form="<HH")


def extended_webp(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + saved("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def many_frames(kind: str, frames: int) -> bytes:
    images = [Image.new("RGB", (300, 300), (number, 0, 0)) for number in range(2)]
    stream = io.BytesIO()
    images[0].save(stream, kind, save_all=True, append_images=[images[1], images[0]] * (frames // 2))
    return stream.getvalue()


def many_chunks(kind: bytes, content: bytes, count: int) -> bytes:
    return png(64, 64, chunk(kind, content) * count)


NAMED = b"a\0\0"
Bomb = tuple[Callable[[], bytes], int, int]
BOMBS: dict[str, Bomb] = {
    "png: 900 million pixels": (lambda: png(SIDE, SIDE), SIDE, SIDE),
    "png: 900 million pixels, all there": (
        lambda: png(SIDE, SIDE, colour=0, depth=1, pixels=deflated(110)),
        SIDE,
        SIDE,
    ),
    "png: one line of two thousand million": (lambda: png(2**31 - 1, 1), 2**31 - 1, 1),
    "png: just too many, 16 bits a channel": (lambda: png(7072, 7072, depth=16, colour=6), 7072, 7072),
    "png: compressed text of 600 MiB": (lambda: png(64, 64, chunk(b"zTXt", NAMED + deflated(600))), 64, 64),
    "png: international text of 600 MiB": (lambda: png(64, 64, chunk(b"iTXt", b"a\0\1\0\0\0" + deflated(600))), 64, 64),
    "png: a colour profile of 600 MiB": (lambda: png(64, 64, chunk(b"iCCP", NAMED + deflated(600))), 64, 64),
    "png: a thousand compressed texts": (lambda: many_chunks(b"zTXt", b"a\0\0" + deflated(1), 1000), 64, 64),
    "png: a hundred thousand texts": (lambda: many_chunks(b"tEXt", b"a\0b", 100_000), 64, 64),
    "png: a chunk with a claimed size of 2 GB": (
        lambda: png(64, 64)[:33] + struct.pack(">I", 2**31 - 1) + b"zTXta\0\0",
        64,
        64,
    ),
    "png: more pixels than its header says": (lambda: png(64, 64, pixels=deflated(600)), 64, 64),
    "png: fewer pixels than its header says": (lambda: png(7000, 7000), 7000, 7000),
    "png: EXIF that points everywhere": (
        lambda: png(64, 64, chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 5000)),
        64,
        64,
    ),
    "png: a million frames": (lambda: png(64, 64, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), 64, 64),
    "jpeg: 4,295 million pixels": (lambda: jpeg_claiming(65_535, 65_535), 65_535, 65_535),
    "jpeg: 900 million pixels, progressive": (lambda: jpeg_claiming(SIDE, SIDE, b"\xff\xc2"), SIDE, SIDE),
    "jpeg: as many as may be, nothing there": (lambda: jpeg_claiming(7071, 7071, b"\xff\xc2"), 7071, 7071),
    "jpeg: no lines": (lambda: jpeg_claiming(64, 0), 64, 1),
    "jpeg: a thousand profiles": (
        lambda: saved("JPEG")[:2] + (b"\xff\xe2\xff\xffICC_PROFILE\0\1\1" + bytes(65_519)) * 1000 + saved("JPEG")[2:],
        64,
        64,
    ),
    "bmp: 900 million pixels": (lambda: bmp_claiming(SIDE, SIDE), SIDE, SIDE),
    "bmp: upside down for ever": (lambda: bmp_claiming(SIDE, -(2**31)), SIDE, 2**31 - 1),
    "bmp: as many as may be, nothing there": (lambda: bmp_claiming(7071, 7071), 7071, 7071),
    "bmp: run lengths that skip 900 million": (lambda: run_length_bmp(SIDE, SIDE), SIDE, SIDE),
    "bmp: run lengths that skip 50 million": (lambda: run_length_bmp(7071, 7071), 7071, 7071),
    "webp: 268 million pixels": (lambda: webp_claiming(16_383, 16_383), 16_383, 16_383),
    "webp: a canvas of 900 million": (lambda: extended_webp(SIDE, SIDE), SIDE, SIDE),
    "webp: a canvas of more than 4 thousand million": (lambda: extended_webp(1 << 24, 1 << 24), 1 << 24, 1 << 24),
    "webp: just too many": (lambda: saved("WEBP", side=3600), 3600, 3600),
    "gif: 4,295 million pixels": (lambda: patched(saved("GIF"), 6, 65_535, 65_535, form="<HH"), 65_535, 65_535),
    "gif: many frames": (lambda: many_frames("GIF", 500), 300, 300),
    "tiff": (lambda: saved("TIFF"), 64, 64),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>', 64, 64),
}
HARMLESS = {
    "png: a million frames",
    "png: EXIF that points everywhere",
    "png: a hundred thousand texts",
    "png: more pixels than its header says",
    "jpeg: as many as may be, nothing there",
    "jpeg: a thousand profiles",
    "bmp: run lengths that skip 50 million",
}
"""Images within the limits, which are read as such."""


def read(path: Path, width: int, height: int) -> tuple[str | None, list[int] | None, int]:
    """Return the issue code of the check, the size that the conversion reads, and the peak memory in KiB."""
    arguments = [sys.executable, "-c", READ, str(path), str(width), str(height)]
    completed = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    code, size, kibibytes = json.loads(completed.stdout)
    return code, size, kibibytes


@pytest.mark.parametrize("name", BOMBS)
def test_reading_a_malicious_image_takes_less_than_512_mb_and_too_large_ones_are_refused(tmp_path, name):
    make, width, height = BOMBS[name]
    path = tmp_path / f"a.{name.partition(':')[0]}"
    path.write_bytes(make())
    code, size, kibibytes = read(path, width, height)
    assert kibibytes < MAX_KIBIBYTES
    assert (code is None) is (name in HARMLESS)
    assert size is None or size[0] * size[1] <= 50_000_000


def test_the_measured_memory_includes_the_image(tmp_path):
    Image.new("RGB", (7000, 7000)).save(tmp_path / "a.png", compress_level=1)
    assert read(tmp_path / "a.png", 7000, 7000)[2] > 100 << 10
