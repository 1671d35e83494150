"""Command `python -m frs.dataset.upload.convert ARCHIVE FOLDER MAX_BYTES [VAL_FRACTION]`: unpack and convert an upload.

It runs in a process of its own with a memory limit: an archive of a few megabytes can describe more boxes, or deeper
JSON, than memory holds, and then only this process ends.
"""

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from frs.dataset import coco
from frs.dataset.upload import layouts
from frs.dataset.upload.annotated_images import annotations_file
from frs.dataset.upload.archive import unpack
from frs.dataset.upload.archive_members import ArchiveLimits
from frs.errors import ArchiveTooLarge, FrsError
from frs.isolation.process import die_with_parent

MEMORY_BYTES = 4 << 30
"""Limit of the address space, which is larger than the memory in use."""
OVER_LIMIT = "The content of the archive does not fit into memory."
"""Message for an archive that exceeds the memory limit."""


def main(arguments: Sequence[str]) -> int:
    """Write the data set to `FOLDER/set` and return the exit status, 0 or 1.

    On failure, standard output receives a JSON object: `code`, `message` and `hint`, or the `errno` of an OSError.
    """
    archive, folder, max_bytes, *options = arguments
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        _convert_upload(
            Path(archive), Path(folder), ArchiveLimits(bytes=int(max_bytes)), float(options[0]) if options else None
        )
    except FrsError as error:
        return _report_error(code=error.code, message=error.message, hint=error.hint)
    except MemoryError:
        return _report_error(code=ArchiveTooLarge.code, message=OVER_LIMIT, hint=ArchiveTooLarge.hint_by_default)
    except OSError as error:
        return _report_error(errno=error.errno)
    return 0


def _convert_upload(archive: Path, folder: Path, limits: ArchiveLimits, val_fraction: float | None) -> None:
    unpack(archive, folder / "archive", limits)
    layouts.convert(folder / "archive", folder / "set", val_fraction)
    for split in ("train", "val"):
        # The data-set check reads this file without a memory limit; a file that is too large fails here instead.
        coco.read(annotations_file(folder / "set", split))


def _report_error(**fields: object) -> int:
    json.dump(fields, sys.stdout)
    return 1


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(sys.argv[1:]))
