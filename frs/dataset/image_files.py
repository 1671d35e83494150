"""Check of image files: present, complete and of the annotated size; safe on files built to exhaust memory or time."""

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
"""Largest image area. Decoding takes at most 8 bytes a pixel (progressive CMYK), which is 400 MB; see `_heavy_lock`."""
MAX_BYTES = 200_000_000
"""Largest image file, in bytes."""
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_DECODE_COPIES = {"WEBP": 4}
"""Copies of the image that libwebp and Pillow hold while decoding; the allowed area is divided by this number."""
_ORIENTED_FORMATS = ("JPEG", "MPO", "PNG")
"""Formats of which OpenCV, which reads the training images, applies the EXIF orientation."""
_MAX_SCANS = 100
_HEAVY_PIXELS, _HEAVY_BYTES = 2_000_000, 16_000_000
_heavy_lock = threading.Lock()
"""Held while a large image is open, so that only one at a time takes memory."""

ImageIssue = tuple[IssueCode, str]
"""Issue code and message."""


class _ImageTooLarge(Exception):
    pass


def check_image(root: Path, image: CocoImage, *, decode: bool, max_pixels: int = MAX_PIXELS) -> ImageIssue | None:
    """Return the issue of `image`'s file below the folder `root`, or None if the file is valid.

    `root` must be a resolved path, without symbolic links. With `decode=False`, only the file header is read.
    """
    name = printable(image.file_name)
    path = Path(os.path.realpath(root / image.file_name))  # unlike Path.resolve(), realpath never raises
    if not path.is_relative_to(root):
        return "image_outside_folder", f"{name} lies outside the images folder."
    try:
        with _open_file(path) as file:
            width, height, rotated = _read_header(file, max_pixels)
            if (width, height) != (image.width, image.height):
                return "image_size_differs", _describe_size(image, name, width, height, rotated)
            if decode:
                _decode(file, width * height)
            return None
    except FileNotFoundError:
        return "image_missing", f"{name} is not in the images folder."
    except (_ImageTooLarge, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return "image_too_large", f"{name} is too large: {error}."
    except UnidentifiedImageError:
        return "image_unreadable", f"{name} is not a JPEG, PNG, BMP or WebP image."
    except Exception as error:  # Pillow raises many types on malformed files
        return "image_unreadable", f"{name} cannot be read: {_describe_error(error)}."


def read_image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """Return width and height in pixels as used in training, from the file header.

    None for a file that `check_image` reports an issue for.
    """
    try:
        with _open_file(path) as file:
            return _read_header(file, max_pixels)[:2]
    except Exception:  # as in `check_image`
        return None


def _open_file(path: Path) -> BinaryIO:
    """Return the open file. Raises FileNotFoundError if it is not a regular file, _ImageTooLarge by its bytes."""
    try:
        file_stat = path.stat()
    except (OSError, ValueError) as error:  # such as a name that is too long: no such file can exist
        raise error if isinstance(error, PermissionError) else FileNotFoundError from error
    if not stat.S_ISREG(file_stat.st_mode):
        raise FileNotFoundError  # opening a pipe would block forever
    if file_stat.st_size > MAX_BYTES:
        raise _ImageTooLarge(f"{file_stat.st_size:,} bytes, at most {MAX_BYTES:,} are allowed")
    return path.open("rb")


def _read_header(file: BinaryIO, max_pixels: int) -> tuple[int, int, bool]:
    """Return width and height as used in training, and whether the EXIF orientation swapped them."""
    with _limit_concurrency(heavy=_size_in_bytes(file) > _HEAVY_BYTES), Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        limit = max_pixels // _DECODE_COPIES.get(image.format or "", 1)
        if width * height > limit:
            raise _ImageTooLarge(f"{width}x{height}, at most {limit:,} pixels are allowed")
        return (height, width, True) if _is_rotated(image) else (width, height, False)


def _is_rotated(image: Image.Image) -> bool:
    """Return whether the EXIF orientation turns the image by 90 or 270 degrees."""
    if image.format not in _ORIENTED_FORMATS or "exif" not in image.info:
        return False
    try:
        return image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # malformed EXIF data rotate nothing and are otherwise harmless
        return False


def _decode(file: BinaryIO, pixels: int) -> None:
    """Decode the image completely. Raises any of Pillow's exceptions if the file is truncated or damaged."""
    with _limit_concurrency(heavy=pixels > _HEAVY_PIXELS or _size_in_bytes(file) > _HEAVY_BYTES):
        _refuse_scan_bomb(file)
        for operation in (Image.Image.verify, _load):  # verify() tests checksums, but makes the image unusable
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                operation(image)


def _refuse_scan_bomb(file: BinaryIO) -> None:
    """Raise _ImageTooLarge for a JPEG of too many scans.

    A decoder processes the whole image once for every scan of a progressive JPEG, and a scan takes only a few bytes.
    """
    file.seek(0)
    if file.read(2) == b"\xff\xd8":
        scans = sum(block.count(b"\xff\xda") for block in iter(lambda: file.read(1 << 20), b""))
        if scans > _MAX_SCANS:
            raise _ImageTooLarge(f"{scans:,} scans, at most {_MAX_SCANS} are allowed")


def _load(image: Image.Image) -> None:
    image.draft(image.mode, (1, 1))  # JPEG: decode all data at an eighth of the size
    image.load()


def _limit_concurrency(*, heavy: bool) -> AbstractContextManager[object]:
    return _heavy_lock if heavy else nullcontext()


def _size_in_bytes(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _describe_error(error: Exception) -> str:
    """Return the error's text, without the path that an OSError's text contains."""
    text = error.strerror if isinstance(error, OSError) else None
    return printable(text or str(error) or type(error).__name__)


def _describe_size(image: CocoImage, name: str, width: int, height: int, rotated: bool) -> str:
    suffix = " after applying its EXIF orientation" if rotated else ""
    return f"{name} is {width}x{height}{suffix}; the annotations say {image.width}x{image.height}."
