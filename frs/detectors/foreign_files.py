"""Recognise files that are no weights but are often sent as such, by content and by the reader's error."""

import re
import zipfile
from pathlib import Path

SAVE_TENSORS = "Where it was made, save the tensors alone: `torch.save(model.state_dict(), FILE)`."


def describe(path: Path, error: Exception) -> tuple[str, str]:
    """Return what is wrong with a file that cannot be read as weights, to follow its name, and the next step.

    The next step is "" if nothing particular is known.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as unreadable:
        return f"cannot be read: {type(unreadable).__name__}.", ""
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself.", "Run `git lfs pull` in its repository, then send the file."
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights.", "Download the file itself: the address leads to a page."
    if start.startswith(b"PK") and not _has_end(path):
        return "is incomplete: the end of the archive is missing.", "Download or copy the file again."
    if "TorchScript" in str(error):
        return "is a TorchScript program, not weights.", SAVE_TENSORS
    if match := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error)):
        return f"contains a Python object, {match[1][:200]}, which is not loaded: it could run code.", SAVE_TENSORS
    return f"is not a weights file: {type(error).__name__}.", ""


def _has_end(archive: Path) -> bool:
    try:
        return zipfile.is_zipfile(archive)
    except zipfile.BadZipFile:  # it has an end, which is damaged
        return True
