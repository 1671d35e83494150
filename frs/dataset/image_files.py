"""Check of image files: present, complete and of the annotated size; safe on files built to exhaust memory or time."""

import os
import stat
import threading
import unicodedata
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

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

_MAGIC = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"8BPS": "Photoshop",
}
"""First bytes of formats that are recognised, but not read."""
_MAX_PNG_CHUNKS = 10_000

ImageIssue = tuple[IssueCode, str]
"""Issue code and message."""
ImageTrait = Literal["sixteen_bits", "turned", "not_turned"]
"""What training does with an image: it drops the lower 8 bits, or turns it or does not turn it by its EXIF orientation
although its size does not show it."""


class _Header(NamedTuple):
    width: int
    """Width in pixels as used in training, after applying the EXIF orientation."""
    height: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 is unchanged, 5 to 8 swap width and height."""
    is_turned: bool
    """Whether training applies the orientation."""
    sixteen_bits: bool

    @property
    def traits(self) -> frozenset[ImageTrait]:
        shows_no_turn = self.orientation in (2, 3, 4) or (self.orientation > 4 and self.width == self.height)
        pairs: tuple[tuple[ImageTrait, bool], ...] = (
            ("sixteen_bits", self.sixteen_bits),
            ("turned", shows_no_turn and self.is_turned),
            ("not_turned", shows_no_turn and not self.is_turned),
        )
        return frozenset(trait for trait, applies in pairs if applies)


class _ImageTooLarge(Exception):
    pass


def check_image(root: Path, image: CocoImage, *, decode: bool, max_pixels: int = MAX_PIXELS) -> ImageIssue | None:
    """Return the issue of `image`'s file below the folder `root`, or None if the file is valid.

    `root` must be a resolved path, without symbolic links. With `decode=False`, only the file header is read.
    """
    return inspect_image(root, image, decode=decode, max_pixels=max_pixels)[0]


def inspect_image(
    root: Path, image: CocoImage, *, decode: bool, max_pixels: int = MAX_PIXELS
) -> tuple[ImageIssue | None, frozenset[ImageTrait]]:
    """Return the issue of an image file as `check_image` does, and the traits of the file."""
    traits: frozenset[ImageTrait] = frozenset()
    name = printable(image.file_name)
    path = Path(os.path.realpath(root / image.file_name))  # unlike Path.resolve(), realpath never raises
    if not path.is_relative_to(root):
        return ("image_outside_folder", f"{name} lies outside the images folder."), traits
    try:
        with _open_file(path) as file:
            header = _read_header(file, max_pixels)
            traits = header.traits
            if (header.width, header.height) != (image.width, image.height):
                return ("image_size_differs", _describe_size(image, name, header)), traits
            if decode:
                _decode(file, header.width * header.height)
            return None, traits
    except FileNotFoundError:
        return ("image_missing", _describe_missing(path, name)), traits
    except (_ImageTooLarge, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return ("image_too_large", f"{name} is too large: {error}."), traits
    except UnidentifiedImageError:
        return ("image_unreadable", _describe_format(path, name)), traits
    except Exception as error:  # Pillow raises many types on malformed files
        return ("image_unreadable", f"{name} cannot be read: {_describe_error(error)}."), traits


def read_image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """Return width and height in pixels as used in training, from the file header.

    None for a file that `check_image` reports an issue for.
    """
    try:
        with _open_file(path) as file:
            header = _read_header(file, max_pixels)
            return header.width, header.height
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


def _read_header(file: BinaryIO, max_pixels: int) -> _Header:
    with _limit_concurrency(heavy=_size_in_bytes(file) > _HEAVY_BYTES), Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        limit = max_pixels // _DECODE_COPIES.get(image.format or "", 1)
        if width * height > limit:
            raise _ImageTooLarge(f"{width}x{height}, at most {limit:,} pixels are allowed")
        orientation, is_turned = _read_orientation(image, file), image.format in _ORIENTED_FORMATS
        sixteen_bits = image.format == "PNG" and _read_at(file, 24, 1) == b"\x10"
        if orientation > 4 and is_turned:
            width, height = height, width
        return _Header(width, height, orientation, is_turned, sixteen_bits)


def _read_orientation(image: Image.Image, file: BinaryIO) -> int:
    """Return the orientation of the EXIF tag, 1 to 8. Unlike OpenCV, Pillow also looks into XMP data."""
    exif = Image.Exif()
    try:
        late = _find_png_exif(file) if image.format == "PNG" and "exif" not in image.info else b""
        exif.load(image.info.get("exif", late))
        orientation = int(exif.get(0x0112, 1))
    except Exception:  # malformed EXIF data rotate nothing and are otherwise harmless
        return 1
    return orientation if orientation in range(1, 9) else 1


def _find_png_exif(file: BinaryIO) -> bytes:
    """Return the content of the chunk eXIf, which may also follow the pixels, where Pillow reads it only on loading."""
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        head = _read_at(file, position, 8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf" and size < 1 << 16:
            return _read_at(file, position + 8, size)
        position += 12 + size
    return b""


def _read_at(file: BinaryIO, position: int, size: int) -> bytes:
    """Return bytes at a position, and restore the file's position."""
    before = file.tell()
    file.seek(position)
    content = file.read(size)
    file.seek(before)
    return content


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


def _describe_size(image: CocoImage, name: str, header: _Header) -> str:
    suffix = ""
    if header.orientation > 4:
        applied, ignored = (
            " after applying its EXIF orientation",
            " without its EXIF orientation, which training ignores",
        )
        suffix = applied if header.is_turned else ignored
    return f"{name} is {header.width}x{header.height}{suffix}; the annotations say {image.width}x{image.height}."


def _describe_missing(path: Path, name: str) -> str:
    """Return a sentence on a missing file, with the name of a file that differs only in case or Unicode form."""
    forms = {unicodedata.normalize(form, path.name) for form in ("NFC", "NFD")}
    suffixes = {path.stem + suffix for suffix in (path.suffix.lower(), path.suffix.upper())}
    similar = next(
        (other for other in sorted((forms | suffixes) - {path.name}) if _is_file(path.with_name(other))), None
    )
    if similar is None:
        return f"{name} is not in the images folder."
    return f"{name} is not in the images folder, but {ascii(similar)[1:-1]}. Use one spelling in both."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _describe_format(path: Path, name: str) -> str:
    """Return a sentence on a file of another format."""
    with path.open("rb") as file:
        head = file.read(12)
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    if head[4:8] == b"ftyp":
        kind = "HEIF or AVIF"
    if not kind:
        return f"{name} is not a JPEG, PNG, BMP or WebP image."
    return f"{name} is a {kind} image, which is not read. Convert it to JPEG, PNG, BMP or WebP."
