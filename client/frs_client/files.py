"""Files that are uploaded and downloaded: SHA-256, and data set folders as archives."""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from frs_client.errors import ServiceError

DATASET_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif")
    + (".jp2", ".json", ".xml", ".txt", ".yaml", ".yml", ".names", ".data", ".labels")
)
"""Suffixes of the files of a data set that the service reads, lower case; other files of a folder are not sent."""
IMAGE_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
}
"""Media types of the images that a detector can be shown, by suffix."""
CHUNK_BYTES = 1 << 18
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def digest(path: Path) -> str:
    """Return the file's SHA-256 as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_type(path: Path) -> str:
    """Return the media type of an image file. Raises ServiceError if its suffix is of no supported image."""
    media_type = IMAGE_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ServiceError(f"{path} has no suffix of an image.", f"Supported: {', '.join(IMAGE_TYPES)}.")
    return media_type


def archive_type(archive: Path) -> str:
    """Return the archive's media type by its content. Raises ServiceError if it is of no supported format."""
    with archive.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return "application/zip"
    if head.startswith(b"\x1f\x8b"):
        return "application/gzip"
    if head[257:262] == b"ustar":
        return "application/x-tar"
    raise ServiceError(f"{archive} is not a .zip, .tar or .tar.gz archive.", "Pack it again, or name the folder.")


def as_archive(source: Path, temporary: Path) -> Path:
    """Return the archive `source`, or a new one of the data set files in the folder `source`, written to `temporary`.

    Equal folders give equal archives. Raises ServiceError if the folder has no data set files, or if they do not fit.
    """
    if not source.is_dir():
        return source
    archive = temporary / "folder.zip"
    try:
        _pack(source, archive)
    except OSError as error:
        if error.filename not in (None, str(archive)):  # a file of the folder
            raise
        raise ServiceError(
            f"{source} cannot be packed in {temporary.parent}: {error.strerror or error}.",
            "Set TMPDIR to a folder with free space for a copy of the images, or upload an archive.",
        ) from None
    return archive


def _pack(folder: Path, archive: Path) -> None:
    """Write the data set files of `folder` to `archive`. Nothing is compressed: images already are."""
    paths = {_name_of(path, folder): path for path in sorted(_find_files(folder))}
    if not paths:
        raise ServiceError(f"{folder} contains no images and no annotations.", "Name the folder of a data set.")
    with zipfile.ZipFile(archive, "w") as target:
        for name, path in paths.items():
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.file_size = path.stat().st_size  # files of several GiB need a ZIP64 header
            with path.open("rb") as content, target.open(entry, "w") as output:
                while chunk := content.read(1 << 20):
                    output.write(chunk)


def _name_of(path: Path, folder: Path) -> str:
    """Return the path of a file in the archive of the folder. Raises ServiceError if it is not UTF-8."""
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise ServiceError(
            f"The file name {shown} is not UTF-8.", "Rename the file, also in the annotations."
        ) from None
    return name


def _find_files(folder: Path) -> Iterator[Path]:
    """Yield the data set files below `folder`, also in linked folders; a link to a folder above is not followed."""
    for current, folders, names in os.walk(folder, followlinks=True):
        path = Path(current)
        above = {parent.resolve() for parent in (path, *path.parents)}
        folders[:] = [name for name in folders if (path / name).resolve() not in above and not name.startswith(".")]
        yield from (path / name for name in names if Path(name).suffix.lower() in DATASET_SUFFIXES)
