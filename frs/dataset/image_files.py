"""Whether an image file is there, whole, and of the size the annotations say; safe on files made to do harm."""

import os
import stat
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from frs.dataset.coco_images import CocoImage
from frs.dataset.issues import IssueCode, printable

MAX_PIXELS = 50_000_000
"""At most 8 bytes each while decoding (progressive CMYK): 400 MB, once, see `_one_heavy_at_a_time`."""
MAX_BYTES = 200_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_COPIES = {"WEBP": 4}
"""libwebp and Pillow hold so many whole pictures at once while decoding one: fewer pixels are allowed."""
_TURNED = ("JPEG", "MPO", "PNG")
"""Where OpenCV, which reads the training images, applies the EXIF orientation."""
_MAX_SCANS = 100
_HEAVY_PIXELS, _HEAVY_BYTES = 2_000_000, 16_000_000
_one_heavy_at_a_time = threading.Lock()

ImageIssue = tuple[IssueCode, str]


class _ImageTooLarge(Exception):
    pass


def check_image(root: Path, image: CocoImage, *, decode: bool, max_pixels: int = MAX_PIXELS) -> ImageIssue | None:
    """What is wrong with `image`'s file below `root`, a folder with links resolved; without `decode` by its header alone."""
    name = printable(image.file_name)
    path = Path(os.path.realpath(root / image.file_name))  # unlike Path.resolve() it never raises
    if not path.is_relative_to(root):
        return "image_outside_folder", f"{name} lies outside the images folder."
    try:
        with _opened(path) as file:
            width, height, turned = _size(file, max_pixels)
            if (width, height) != (image.width, image.height):
                return "image_size_differs", _difference(image, name, width, height, turned)
            if decode:
                _decode(file, width * height)
            return None
    except FileNotFoundError:
        return "image_missing", f"{name} is not in the images folder."
    except (_ImageTooLarge, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return "image_too_large", f"{name} is too large to be read: {error}."
    except UnidentifiedImageError:
        return "image_unreadable", f"{name} is not a JPEG, PNG, BMP or WebP picture."
    except Exception as error:  # Pillow raises whatever a broken file makes it stumble over
        return "image_unreadable", f"{name} cannot be read: {_reason(error)}."


def image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """Width and height as trained on, by the header; None where `check_image` would say what is wrong with it."""
    try:
        with _opened(path) as file:
            return _size(file, max_pixels)[:2]
    except Exception:  # as in `check_image`
        return None


def _opened(path: Path) -> BinaryIO:
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # a name too long, say: no such file could be there
        raise error if isinstance(error, PermissionError) else FileNotFoundError from error
    if not stat.S_ISREG(facts.st_mode):
        raise FileNotFoundError  # a pipe would block for ever
    if facts.st_size > MAX_BYTES:
        raise _ImageTooLarge(f"{facts.st_size:,} bytes, at most {MAX_BYTES:,}")
    return path.open("rb")


def _size(file: BinaryIO, max_pixels: int) -> tuple[int, int, bool]:
    """Width and height as trained on, from the header, and whether the EXIF orientation swapped them."""
    with _turn(heavy=_bytes(file) > _HEAVY_BYTES), Image.open(file, formats=_FORMATS) as picture:
        width, height = picture.size
        most = max_pixels // _COPIES.get(picture.format or "", 1)
        if width * height > most:
            raise _ImageTooLarge(f"{width}x{height}, at most {most:,} pixels")
        return (height, width, True) if _is_turned(picture) else (width, height, False)


def _is_turned(picture: Image.Image) -> bool:
    if picture.format not in _TURNED or "exif" not in picture.info:
        return False
    try:
        return picture.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # broken EXIF data turn nothing and do no other harm
        return False


def _decode(file: BinaryIO, pixels: int) -> None:
    """Raises whatever Pillow does on a file that is cut off or damaged."""
    with _turn(heavy=pixels > _HEAVY_PIXELS or _bytes(file) > _HEAVY_BYTES):
        _refuse_scan_bomb(file)
        for step in (Image.Image.verify, _load):  # verify() knows checksums; the picture is of no use after it
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as picture:
                step(picture)


def _refuse_scan_bomb(file: BinaryIO) -> None:
    """A progressive JPEG goes over the whole picture once a scan, and a scan costs a few bytes."""
    file.seek(0)
    if file.read(2) == b"\xff\xd8":
        scans = sum(block.count(b"\xff\xda") for block in iter(lambda: file.read(1 << 20), b""))
        if scans > _MAX_SCANS:
            raise _ImageTooLarge(f"{scans:,} scans, at most {_MAX_SCANS}")


def _load(picture: Image.Image) -> None:
    picture.draft(picture.mode, (1, 1))  # JPEG: all of the data, an eighth of the size
    picture.load()


def _turn(*, heavy: bool) -> AbstractContextManager[object]:
    return _one_heavy_at_a_time if heavy else nullcontext()


def _bytes(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _reason(error: Exception) -> str:
    """Without the path that an OSError's text ends in."""
    text = error.strerror if isinstance(error, OSError) else None
    return printable(text or str(error) or type(error).__name__)


def _difference(image: CocoImage, name: str, width: int, height: int, turned: bool) -> str:
    how = " once turned as its EXIF orientation says" if turned else ""
    return f"{name} is {width}x{height}{how}; the annotations say {image.width}x{image.height}."
