"""A power cut: a file is synced before its rename, and its folder before the file is announced."""

import hashlib
import os
from pathlib import Path

import pytest

from frs.detectors import weights
from store.artifacts.folder import ArtifactFolder

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """What was forced to it and what was renamed, in order; of a rename, where to."""
    done: list[tuple[str, Path]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(how):  # type: ignore[no-untyped-def]
        def move(source: Path, target: Path) -> None:
            done.append(("from", Path(source)))
            done.append(("to", Path(target)))
            how(source, target)

        return move

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed(replace))
    monkeypatch.setattr(os, "rename", renamed(rename))
    return done


def survives(disk: list[tuple[str, Path]]) -> None:
    """The content was synced before the rename, the folder after it."""
    [source] = [path for what, path in disk if what == "from"]
    [target] = [path for what, path in disk if what == "to"]
    moved = disk.index(("to", target))
    assert ("sync", source) in disk[:moved], "a power cut leaves the name of a file without its content"
    assert ("sync", target.parent) in disk[moved:], "a power cut removes the name of an announced file"


@pytest.mark.parametrize("linked", [True, False])
def test_an_artifact_is_on_the_disk_before_its_row(tmp_path, monkeypatch, disk, linked):
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError("another file system")))
    ArtifactFolder(tmp_path / "artifacts").put(source, "job_1/checkpoints/a.pth", SHA256)
    survives(disk)
    folders = {tmp_path, tmp_path / "artifacts", tmp_path / "artifacts" / "job_1"}
    assert folders <= {path for what, path in disk if what == "sync"}, "new folders too"


def test_a_checkpoint_is_on_the_disk_before_it_is_announced(tmp_path, disk):
    written = weights.write_bytes(CONTENT, tmp_path / "step_{sha8}.pth")
    survives(disk)
    assert written.sha256 == SHA256
