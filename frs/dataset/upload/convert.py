"""Command `python -m frs.dataset.upload.convert ARCHIVE FOLDER MAX_BYTES [VAL_FRACTION]`: unpack and convert an upload.

It runs in a process of its own with a memory limit: an archive of a few megabytes can describe more boxes, or deeper
JSON, than memory holds, and then only this process ends.
"""

import errno
import json
import resource
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from frs.dataset import coco
from frs.dataset.issues import printable
from frs.dataset.upload import layouts
from frs.dataset.upload.annotated_images import annotations_file
from frs.dataset.upload.archive import unpack
from frs.dataset.upload.archive_members import ArchiveLimits
from frs.errors import ArchiveTooLarge, BadDataset, FrsError, LayoutUnknown
from frs.isolation.process import die_with_parent

MEMORY_BYTES = 4 << 30
"""Limit of the address space, which is larger than the memory in use."""
OVER_LIMIT = "The content of the archive does not fit into memory."
"""Message for an archive that exceeds the memory limit."""
_HINT = "Correct the file and upload again; docs/datasets.md shows each layout."
"""Next step in place of a command that reads COCO files on the service's disk."""
_HOST_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM),
}
"""Errors of the host, which the same archive may not cause on another."""


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
        hint = _HINT if error.hint == BadDataset.hint_by_default else error.hint
        return _report_error(code=error.code, message=error.message, hint=hint)
    except MemoryError:
        return _report_error(code=ArchiveTooLarge.code, message=OVER_LIMIT, hint=ArchiveTooLarge.hint_by_default)
    except OSError as error:
        if error.errno in _HOST_ERRORS:
            return _report_error(errno=error.errno)
        return _report_failure(error.strerror or type(error).__name__)
    except Exception as error:  # an error of ours: nothing in an archive may fail the request with a status of 500
        traceback.print_exc()
        return _report_failure(f"internal error {type(error).__name__}")
    return 0


def _convert_upload(archive: Path, folder: Path, limits: ArchiveLimits, val_fraction: float | None) -> None:
    result = unpack(archive, folder / "archive", limits)
    try:
        layouts.convert(folder / "archive", folder / "set", val_fraction)
    except LayoutUnknown as error:
        skipped = ", ".join(f"{printable(suffix, 20)} ({n:,})" for suffix, n in result.skipped_suffixes.most_common(5))
        raise LayoutUnknown(f"{error.message} Skipped files: {skipped}.", error.hint) if skipped else error from error
    for split in ("train", "val"):
        # The data-set check reads this file without a memory limit; a file that is too large fails here instead.
        coco.read(annotations_file(folder / "set", split))


def _report_failure(reason: str) -> int:
    hint = "Convert the data set to COCO, or report this message with the annotation file."
    return _report_error(code=BadDataset.code, message=f"The archive cannot be converted: {reason}.", hint=hint)


def _report_error(**fields: object) -> int:
    json.dump(fields, sys.stdout)
    return 1


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(sys.argv[1:]))
