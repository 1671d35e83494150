import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cli import uploading


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data / "datasets" / "shapes", tmp_path / "mine")


def test_a_folder_is_sent_as_an_archive(frs: Any, folder: Path) -> None:
    (folder / "notes.pdf").write_text("not sent")
    assert "ready" in frs("datasets", "upload", "from folder", folder).output
    again = json.loads(frs("datasets", "upload", "again", folder, "--json").output)
    assert (again["status"], again["uploaded"], again["counts"]["train"]["images"]) == ("ready", True, 4)


def test_an_archive_is_sent_as_it_is(frs: Any, folder: Path, tmp_path: Path) -> None:
    for kind in ("zip", "tar", "gztar"):
        archive = shutil.make_archive(str(tmp_path / kind), kind, folder)
        assert "ready" in frs("datasets", "upload", f"from {kind}", archive).output


def test_the_same_folder_makes_the_same_archive(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        uploading._pack(folder, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert zipfile.ZipFile(tmp_path / "one").testzip() is None


def test_a_set_without_a_validation_half_takes_a_share(frs: Any, folder: Path) -> None:
    shutil.rmtree(folder / "val")
    assert "--val-fraction" in frs("datasets", "upload", "half", folder, code=1).output
    assert "ready" in frs("datasets", "upload", "half", folder, "--val-fraction", "0.5").output


def test_what_is_no_archive_is_not_sent(frs: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("hello")
    assert "no .zip, .tar or .tar.gz" in frs("datasets", "upload", "text", tmp_path / "a.zip", code=1).output
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in frs("datasets", "upload", "none", tmp_path / "empty", code=1).output


def test_weights_are_sent_with_their_description(frs: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    described = ("--architecture", "gfl", "--depth", 18, "--classes", "cat,dog")
    row = json.loads(frs("detectors", "upload", "t", tmp_path / "a.pth", *described, "--no-wait", "--json").output)
    assert (row["status"], row["classes"], row["description"]["backbone"]["depth"]) == ("importing", ["cat", "dog"], 18)
    assert "importing" in frs("detectors", "upload", "u", tmp_path / "a.pth", *described, "--no-wait").output
    assert "invalid_request" in frs("detectors", "upload", "v", tmp_path / "a.pth", code=1).output


class Service:
    """Answers `importing` to the upload and the first question, then what a worker found."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.answers = iter([{"id": "det_1", "status": "importing"}, {"id": "det_1"} | found])

    def upload(self, *_: object, **__: object) -> Any:
        return {"id": "det_1", "status": "importing"}

    def get(self, path: str) -> Any:
        assert path == "/detectors/det_1"
        return next(self.answers)


def test_it_waits_until_a_worker_has_read_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "_POLL_SECONDS", 0)
    (tmp_path / "a.pth").touch()
    ready: Any = Service({"status": "ready"})
    assert uploading.detector(ready, "t", tmp_path / "a.pth", {}, wait=True, screen=None)["status"] == "ready"
    refused: Any = Service({"status": "refused", "error": {"code": "weights_unreadable", "message": "No.", "hint": ""}})
    with pytest.raises(uploading.ServiceError, match="weights_unreadable: No."):
        uploading.detector(refused, "t", tmp_path / "a.pth", {}, wait=True, screen=None)
