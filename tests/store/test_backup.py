import hashlib
import io
import shutil
import tarfile
import threading
from contextlib import suppress
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


def keep(artifacts, key, content=b"content"):
    source = artifacts.root.parent / "source"
    source.unlink(missing_ok=True)
    source.write_bytes(content)
    artifacts.put(source, key, hashlib.sha256(content).hexdigest())


def packed(artifacts):
    stream = io.BytesIO()
    backup.pack(artifacts.root, stream)
    return stream.getvalue()


def members(tar):
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def contents(artifacts):
    files = (path for path in artifacts.root.rglob("*") if path.is_file())
    return {path.relative_to(artifacts.root).as_posix(): path.read_bytes() for path in files}


def test_what_is_deleted_while_a_backup_is_made_is_in_it_and_gone_afterwards(artifacts):
    for key in ("job_1/a.pth", "job_1/b.pth", "job_2/c.pth"):
        keep(artifacts, key, key.encode())
    backup.begin(artifacts.root)
    artifacts.delete("job_1/a.pth")
    artifacts.keep_only("job_2", ["job_2/other.pth"])
    keep(artifacts, "job_1/d.pth", b"job_1/d.pth")
    found = members(packed(artifacts))
    backup.end(artifacts.root)
    assert found == {f"job_{name}": f"job_{name}".encode() for name in ("1/a.pth", "1/b.pth", "2/c.pth", "1/d.pth")}
    assert contents(artifacts).keys() == {"job_1/b.pth", "job_1/d.pth"}


def test_what_is_deleted_and_put_again_is_there_afterwards(artifacts):
    keep(artifacts, "uploads/a.zip")
    backup.begin(artifacts.root)
    artifacts.delete("uploads/a.zip")
    keep(artifacts, "uploads/a.zip")
    artifacts.delete("uploads/a.zip")
    keep(artifacts, "uploads/a.zip")
    backup.end(artifacts.root)
    assert contents(artifacts) == {"uploads/a.zip": b"content"}


def test_what_is_deleted_as_the_backup_ends_does_not_begin_another(artifacts, monkeypatch):
    keep(artifacts, "job_1/a.pth")
    backup.begin(artifacts.root)
    real = Path.rename

    def ends_first(path, target):
        backup.end(artifacts.root)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", ends_first)
    artifacts.delete("job_1/a.pth")
    assert contents(artifacts) == {} and not (artifacts.root / backup.TRASH).exists()


def test_nothing_half_put_is_packed(artifacts):
    keep(artifacts, "job_1/a.pth")
    (artifacts.root / "job_1" / ".0123.part").write_bytes(b"half")
    assert members(packed(artifacts)).keys() == {"job_1/a.pth"}


def test_files_that_go_while_it_packs_are_in_it_all_the_same(artifacts):
    """Pruning deletes them one by one, at any moment."""
    keys = [f"job_{number:03}/a.pth" for number in range(200)]
    for key in keys:
        keep(artifacts, key, key.encode())
    backup.begin(artifacts.root)
    pruning = threading.Thread(target=lambda: [artifacts.delete(key) for key in reversed(keys)])
    pruning.start()
    found = members(packed(artifacts))
    pruning.join()
    assert found == {key: key.encode() for key in keys}


def test_a_killed_backup_holds_nothing_back_after_the_next(artifacts):
    keep(artifacts, "job_1/a.pth")
    backup.begin(artifacts.root)
    artifacts.delete("job_1/a.pth")
    backup.begin(artifacts.root)
    assert members(packed(artifacts)) == {}
    backup.end(artifacts.root)
    assert list(artifacts.root.rglob("*.pth")) == []


def test_a_restore_puts_what_was_packed_in_place_of_what_is_there(artifacts):
    keep(artifacts, "job_1/a.pth")
    tar = packed(artifacts)
    before = contents(artifacts)
    artifacts.delete("job_1/a.pth")
    keep(artifacts, "job_2/later.pth")
    backup.unpack(artifacts.root, io.BytesIO(tar), len(tar))
    assert artifacts.path("job_2/later.pth").is_file(), "nothing is replaced yet"
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == before
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == before, "once more does nothing"


def test_a_restore_makes_the_folder_where_everything_is_gone(artifacts):
    keep(artifacts, "job_1/a.pth")
    tar = packed(artifacts)
    shutil.rmtree(artifacts.root)
    backup.unpack(artifacts.root, io.BytesIO(tar), len(tar))
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == {"job_1/a.pth": b"content"}


@pytest.mark.parametrize("survives", range(4))
def test_a_replacement_that_was_killed_is_finished_by_the_next(artifacts, monkeypatch, survives):
    for key in ("job_1/a.pth", "job_2/b.pth"):
        keep(artifacts, key)
    tar = packed(artifacts)
    before = contents(artifacts)
    for key in ("job_3/c.pth", "job_4/d.pth"):
        keep(artifacts, key)
    backup.unpack(artifacts.root, io.BytesIO(tar), len(tar))
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_move_all", dies_after(survives, backup._move_all))
        with suppress(KeyboardInterrupt):
            backup.replace_artifacts(artifacts.root)
    backup.replace_artifacts(artifacts.root)
    assert contents(artifacts) == before


def dies_after(moves, real):
    left = [moves]

    def move_all(source, target):
        for path in sorted(source.iterdir()):
            if path.name.startswith("."):
                continue
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            path.rename(target / path.name)

    return move_all


def test_one_that_does_not_fit_changes_nothing(artifacts):
    keep(artifacts, "job_1/a.pth")
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
def test_an_archive_that_would_write_elsewhere_is_refused(artifacts, tmp_path, member):
    info = tarfile.TarInfo()
    for name, value in member.items():
        setattr(info, name, value)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(info, io.BytesIO())
    with pytest.raises(InvalidKey):
        backup.unpack(artifacts.root, io.BytesIO(stream.getvalue()), 1)
    assert not (tmp_path / "outside").exists() and contents(artifacts) == {}


def test_what_is_no_artifact_is_not_packed(artifacts):
    keep(artifacts, "job_1/a.pth")
    (artifacts.root / "notes").write_text("somebody's")
    assert members(packed(artifacts)).keys() == {"job_1/a.pth"}
