"""Unpacks and converts an upload in a process of its own: `python -m frs.dataset.upload.convert ARCHIVE FOLDER MAX_BYTES [SHARE]`.

A few megabytes can describe more boxes, or deeper JSON, than memory holds; here it ends this process alone.
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
"""Of addresses, which is more than it uses."""


def main(arguments: Sequence[str]) -> int:
    """Leaves the data set in `FOLDER/set`. What stood in the way goes to the output: code, message and hint, or an errno."""
    archive, folder, max_bytes, *share = arguments
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        _convert_upload(
            Path(archive), Path(folder), ArchiveLimits(bytes=int(max_bytes)), float(share[0]) if share else None
        )
    except FrsError as error:
        return _report_errors(code=error.code, message=error.message, hint=error.hint)
    except MemoryError:
        return _report_errors(code=ArchiveTooLarge.code, message=OVER_LIMIT, hint=ArchiveTooLarge.hint_by_default)
    except OSError as error:
        return _report_errors(errno=error.errno)
    return 0


OVER_LIMIT = "What the archive holds does not fit into memory."


def _convert_upload(archive: Path, folder: Path, caps: ArchiveLimits, val_fraction: float | None) -> None:
    unpack(archive, folder / "archive", caps)
    layouts.convert(folder / "archive", folder / "set", val_fraction)
    for split in ("train", "val"):
        coco.read(annotations_file(folder / "set", split))  # as the check will, which has no limit of its own


def _report_errors(**what: object) -> int:
    json.dump(what, sys.stdout)
    return 1


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(sys.argv[1:]))
