"""`frs datasets upload` and `frs detectors upload`."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.terminal import exit_on_error


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Let writes to files fail beyond this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data / "datasets" / "shapes", tmp_path / "mine")


def test_a_folder_is_uploaded_as_an_archive(frs: Any, folder: Path) -> None:
    (folder / "notes.pdf").write_text("not sent")
    assert "ready" in frs("datasets", "upload", "from folder", folder).output
    again = json.loads(frs("datasets", "upload", "again", folder, "--json").output)
    assert (again["status"], again["uploaded"], again["counts"]["train"]["images"]) == ("ready", True, 4)


def test_an_archive_is_uploaded_unchanged(frs: Any, folder: Path, tmp_path: Path) -> None:
    for kind in ("zip", "tar", "gztar"):
        archive = shutil.make_archive(str(tmp_path / kind), kind, folder)
        assert "ready" in frs("datasets", "upload", f"from {kind}", archive).output


def test_a_data_set_without_a_validation_split_needs_val_fraction(frs: Any, folder: Path) -> None:
    shutil.rmtree(folder / "val")
    assert "--val-fraction" in frs("datasets", "upload", "half", folder, code=1).output
    assert "ready" in frs("datasets", "upload", "half", folder, "--val-fraction", "0.5").output


def test_files_that_are_no_archives_are_refused(frs: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("hello")
    assert "not a .zip, .tar or .tar.gz archive" in frs("datasets", "upload", "text", tmp_path / "a.zip", code=1).output
    (tmp_path / "empty").mkdir()
    assert "contains no images" in frs("datasets", "upload", "none", tmp_path / "empty", code=1).output


def test_weights_are_uploaded_with_their_description(frs: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    options = ("--architecture", "gfl", "--set", "backbone.depth=18", "--classes", "cat,dog")
    row = json.loads(frs("detectors", "upload", "t", tmp_path / "a.pth", *options, "--no-wait", "--json").output)
    assert (row["status"], row["classes"], row["description"]["backbone"]["depth"]) == ("importing", ["cat", "dog"], 18)
    assert "importing" in frs("detectors", "upload", "u", tmp_path / "a.pth", *options, "--no-wait").output
    assert "invalid_request" in frs("detectors", "upload", "v", tmp_path / "a.pth", code=1).output


def test_a_folder_that_does_not_fit_into_the_temporary_folder_is_an_error(
    frs: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "small"))
    with limited_file_size(1000):
        error = frs("datasets", "upload", "large", folder, code=1).stderr
    assert f"{folder} cannot be packed in {tmp_path / 'small'}: File too large." in error.replace("\n", "")
    assert "TMPDIR" in error and "None" not in error
    assert not list((tmp_path / "small").iterdir())


def test_a_file_of_the_folder_that_cannot_be_read_is_named(frs: Any, folder: Path) -> None:
    (folder / "train" / "gone.jpg").symlink_to("nowhere.jpg")
    error = frs("datasets", "upload", "gone", folder, code=1).stderr
    assert "gone.jpg cannot be read or written: No such file" in error.replace("\n", "")


def test_an_error_of_the_system_without_a_file_name_is_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (OSError(28, "No space left on device"), OSError("no number")):
        with pytest.raises(typer.Exit), exit_on_error():
            raise error
    assert capsys.readouterr().err.splitlines() == ["No space left on device.", "no number."]


def test_a_file_name_that_is_not_utf_8_is_named(frs: Any, folder: Path) -> None:
    image = sorted((folder / "train").iterdir())[0]
    image.rename(os.fsdecode(os.fsencode(folder) + b"/train/caf\xe9.jpg"))
    error = frs("datasets", "upload", "latin", folder, code=1).stderr
    assert "train/caf\\xe9.jpg is not UTF-8" in error
    assert "Rename the file" in error
