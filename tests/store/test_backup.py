import hashlib
import io
import itertools
import os
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from frs.errors import StorageFull
from store.artifacts import backup
from store.artifacts.folder import ArtifactFolder
from store.errors import InvalidKey


@pytest.fixture
def artifacts(tmp_path):
    folder = ArtifactFolder(tmp_path / "artifacts")
    folder.root.mkdir()
    return folder


def put(artifacts, key, content=b"content"):
    source = artifacts.root.parent / "source"
    source.unlink(missing_ok=True)
    source.write_bytes(content)
    artifacts.put(source, key, hashlib.sha256(content).hexdigest())


def pack(artifacts):
    """Return the tar of the backup that was begun, or of one that begins and ends here."""
    stream, is_own = io.BytesIO(), not (artifacts.root / backup.TRASH).exists()
    if is_own:
        backup.begin(artifacts.root)
    backup.pack(artifacts.root, stream)
    if is_own:
        backup.end(artifacts.root)
    return stream.getvalue()


def members(tar):
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def contents(artifacts):
    files = (path for path in artifacts.root.rglob("*") if path.is_file())
    return {path.relative_to(artifacts.root).as_posix(): path.read_bytes() for path in files}


def test_files_deleted_during_a_backup_are_in_it_and_gone_afterwards(artifacts):
    for key in ("job_1/a.pth", "job_1/b.pth", "job_2/c.pth"):
        put(artifacts, key, key.encode())
    backup.begin(artifacts.root)
    artifacts.delete("job_1/a.pth")
    artifacts.keep_only("job_2", ["job_2/other.pth"])
    put(artifacts, "job_1/d.pth", b"job_1/d.pth")
    packed = members(pack(artifacts))
    backup.end(artifacts.root)
    assert packed == {f"job_{name}": f"job_{name}".encode() for name in ("1/a.pth", "1/b.pth", "2/c.pth", "1/d.pth")}
    assert contents(artifacts).keys() == {"job_1/b.pth", "job_1/d.pth"}


def test_the_deleted_files_of_a_killed_backup_are_removed_after_its_expiry(artifacts):
    put(artifacts, "job_1/a.pth")
    backup.begin(artifacts.root)
    artifacts.delete("job_1/a.pth")
    assert not backup.end_killed(artifacts.root), "a backup that has just begun is alive"
    let_pass(artifacts, backup.EXPIRY_SECONDS + 60)
    assert backup.end_killed(artifacts.root)
    assert [*artifacts.root.rglob("*.pth")] == [] and not (artifacts.root / backup.TRASH).exists()
    put(artifacts, "job_1/b.pth")
    artifacts.delete("job_1/b.pth")
    assert contents(artifacts) == {}


def test_a_backup_that_packs_files_is_alive_and_one_that_was_ended_fails(artifacts):
    put(artifacts, "job_1/a.pth")
    backup.begin(artifacts.root)
    let_pass(artifacts, backup.EXPIRY_SECONDS + 60)
    pack(artifacts)
    assert not backup.end_killed(artifacts.root)
    let_pass(artifacts, backup.EXPIRY_SECONDS + 60)
    assert backup.end_killed(artifacts.root)
    with pytest.raises(FileNotFoundError):
        backup.pack(artifacts.root, io.BytesIO())


def let_pass(artifacts, seconds):
    """Let the last sign of life of the backup be that long ago."""
    [alive] = (artifacts.root / backup.TRASH).glob(".alive")
    os.utime(alive, (alive.stat().st_atime, alive.stat().st_mtime - seconds))


def test_a_file_deleted_and_stored_again_exists_afterwards(artifacts):
    put(artifacts, "uploads/a.zip")
    backup.begin(artifacts.root)
    artifacts.delete("uploads/a.zip")
    put(artifacts, "uploads/a.zip")
    artifacts.delete("uploads/a.zip")
    put(artifacts, "uploads/a.zip")
    backup.end(artifacts.root)
    assert contents(artifacts) == {"uploads/a.zip": b"content"}


def test_a_deletion_concurrent_with_the_end_of_a_backup_does_not_restore_the_trash(artifacts, monkeypatch):
    put(artifacts, "job_1/a.pth")
    backup.begin(artifacts.root)
    rename = Path.rename

    def end_then_rename(path, target):
        monkeypatch.undo()
        backup.end(artifacts.root)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", end_then_rename)
    artifacts.delete("job_1/a.pth")
    assert contents(artifacts) == {} and not (artifacts.root / backup.TRASH).exists()


def test_partly_stored_files_are_not_packed(artifacts):
    put(artifacts, "job_1/a.pth")
    (artifacts.root / "job_1" / ".0123.part").write_bytes(b"half")
    assert members(pack(artifacts)).keys() == {"job_1/a.pth"}


def test_files_deleted_while_packing_are_in_the_backup(artifacts):
    """Pruning deletes files one by one at any time."""
    keys = [f"job_{number:03}/a.pth" for number in range(200)]
    for key in keys:
        put(artifacts, key, key.encode())
    backup.begin(artifacts.root)
    pruning = threading.Thread(target=lambda: [artifacts.delete(key) for key in reversed(keys)])
    pruning.start()
    packed = members(pack(artifacts))
    pruning.join()
    assert packed == {key: key.encode() for key in keys}


def test_the_trash_of_a_killed_backup_is_deleted_by_the_next(artifacts):
    put(artifacts, "job_1/a.pth")
    backup.begin(artifacts.root)
    artifacts.delete("job_1/a.pth")
    backup.begin(artifacts.root)
    assert members(pack(artifacts)) == {}
    backup.end(artifacts.root)
    assert list(artifacts.root.rglob("*.pth")) == []


def test_a_restore_replaces_the_artifacts_by_the_packed_ones(artifacts):
    put(artifacts, "job_1/a.pth")
    tar = pack(artifacts)
    before = contents(artifacts)
    artifacts.delete("job_1/a.pth")
    put(artifacts, "job_2/later.pth")
    backup.unpack(artifacts.root, io.BytesIO(tar), len(tar))
    assert artifacts.path("job_2/later.pth").is_file(), "nothing is replaced yet"
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == before
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == before, "replacing is idempotent"


def test_a_restore_creates_a_missing_artifacts_folder(artifacts):
    put(artifacts, "job_1/a.pth")
    tar = pack(artifacts)
    shutil.rmtree(artifacts.root)
    backup.unpack(artifacts.root, io.BytesIO(tar), len(tar))
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == {"job_1/a.pth": b"content"}


@pytest.mark.parametrize("moves", range(7))
def test_a_killed_replacement_is_completed_by_the_next(artifacts, monkeypatch, moves):
    for key in ("job_1/a.pth", "job_2/b.pth"):
        put(artifacts, key)
    tar = pack(artifacts)
    before = contents(artifacts)
    for key in ("job_3/c.pth", "job_4/d.pth"):
        put(artifacts, key)
    backup.unpack(artifacts.root, io.BytesIO(tar), len(tar))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed_after(moves))
        backup.replace_artifacts(artifacts.root)
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == before


def killed_after(moves):
    """Return a replacement of `Path.rename` that is interrupted after that many calls."""
    rename, calls = Path.rename, itertools.count()

    def rename_or_die(path, target):
        if next(calls) == moves:
            raise KeyboardInterrupt
        return rename(path, target)

    return rename_or_die


def test_a_backup_that_does_not_fit_changes_nothing(artifacts):
    put(artifacts, "job_1/a.pth")
    before = contents(artifacts)
    with pytest.raises(StorageFull):
        backup.unpack(artifacts.root, io.BytesIO(), 1 << 60)
    assert contents(artifacts) == before


@pytest.mark.parametrize(
    "member",
    [
        {"name": "../outside"},
        {"name": "/tmp/outside"},
        {"name": "job_1/a.pth", "type": tarfile.SYMTYPE, "linkname": "/etc"},
    ],
)
def test_an_archive_that_would_write_outside_the_folder_is_rejected(artifacts, tmp_path, member):
    info = tarfile.TarInfo()
    for name, value in member.items():
        setattr(info, name, value)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(info, io.BytesIO())
    with pytest.raises(InvalidKey):
        backup.unpack(artifacts.root, io.BytesIO(stream.getvalue()), 1)
    assert not (tmp_path / "outside").exists() and contents(artifacts) == {}


def test_files_that_are_not_artifacts_are_not_packed(artifacts):
    put(artifacts, "job_1/a.pth")
    (artifacts.root / "notes").write_text("not an artifact")
    assert members(pack(artifacts)).keys() == {"job_1/a.pth"}
