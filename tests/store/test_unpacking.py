"""Unpacking of uploaded data sets on machines with separate disks."""

import errno
import hashlib
import io
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from frs.dataset.shapes.drawing import draw_dataset
from frs.errors import BadDataset, DatasetNotFound
from store.artifacts import packing, unpacking
from store.artifacts.folder import ArtifactFolder
from store.artifacts.local_files import Abandoned, exclusive_lock
from store.artifacts.storage import Artifacts
from store.artifacts.uploads import ArchiveKey, archive_key
from store.db.tables import Dataset
from store.settings import Settings

ANNOTATIONS = ("annotations/instances_train.json", "annotations/instances_val.json")


@pytest.fixture(scope="session")
def content(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("drawn") / "shapes"
    draw_dataset(folder, train=4, val=2, size=32)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return stream.getvalue()


@pytest.fixture
def artifacts(tmp_path) -> Artifacts:
    return ArtifactFolder(tmp_path / "artifacts")


@pytest.fixture
def key(artifacts, content, tmp_path) -> str:
    """The key of an archive as uploaded, which version 0.2 kept."""
    return put(artifacts, content, tmp_path)


@pytest.fixture
def converted_key(artifacts, content, tmp_path) -> str:
    """The key of the archive of a converted data set."""
    (tmp_path / "upload.zip").write_bytes(content)
    unpacking.convert(host(tmp_path, "api"), tmp_path / "upload.zip", tmp_path / "part", None)
    sha256 = packing.pack(tmp_path / "part" / "set", tmp_path / "set.tar")
    artifacts.put(tmp_path / "set.tar", archive_key(sha256), sha256)
    return archive_key(sha256)


def put(artifacts: Artifacts, content: bytes, tmp_path: Path) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    source = tmp_path / f"{sha256}.zip"
    source.write_bytes(content)
    artifacts.put(source, f"uploads/{sha256}.zip", sha256)
    return f"uploads/{sha256}.zip"


def host(tmp_path: Path, name: str) -> Settings:
    return Settings(data=tmp_path / name)


def never() -> bool:
    return False


def unpacked_names(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.uploads_root.iterdir() if path.name not in (".lock", ".unpacking"))


@pytest.mark.parametrize(("suffix", "val_fraction"), [("", None), ("-val10", 0.1), ("-val29", 0.29), ("-val50", 0.5)])
def test_the_key_of_an_archive_as_uploaded_contains_the_arguments_of_the_conversion(suffix, val_fraction):
    key = ArchiveKey.parse(f"uploads/{'a' * 64}{suffix}.tar.gz")
    assert (key.sha256, key.is_converted, key.val_fraction) == ("a" * 64, False, val_fraction)


def test_another_version_of_the_converter_changes_no_stored_data_set(tmp_path, artifacts, converted_key, monkeypatch):
    monkeypatch.setattr(unpacking, "COMMAND", (sys.executable, "-c", "raise SystemExit('of another version')"))
    folder = unpacking.unpack_dataset(host(tmp_path, "one"), artifacts, converted_key, never)
    converted = tmp_path / "part" / "set"
    files = {path.relative_to(converted): path.read_bytes() for path in converted.rglob("*") if path.is_file()}
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_equal_data_sets_have_equal_archives(tmp_path):
    for name, order in (("one", "ab"), ("two", "ba")):
        for part in order:
            (tmp_path / name / part).mkdir(parents=True)
            (tmp_path / name / part / "é.jpg").write_bytes(part.encode())
    (tmp_path / "two" / "a" / "é.jpg").chmod(0o600)
    one, two = (packing.pack(tmp_path / name, tmp_path / f"{name}.tar") for name in ("one", "two"))
    assert one == two


def test_a_damaged_archive_is_a_bad_data_set(tmp_path, artifacts, converted_key):
    path = artifacts.path(converted_key)
    path.write_bytes(path.read_bytes()[:-2048])
    settings = host(tmp_path, "one")
    with pytest.raises(BadDataset, match="damaged"):
        unpacking.unpack_dataset(settings, artifacts, converted_key, never)
    assert unpacked_names(settings) == []


def test_an_abandoned_unpacking_stops_and_leaves_nothing(tmp_path, artifacts, converted_key, monkeypatch):
    calls = []
    monkeypatch.setattr(artifacts, "fetch", lambda key, _, target, __: target.hardlink_to(artifacts.path(key)))
    settings = host(tmp_path, "one")
    with pytest.raises(Abandoned):
        unpacking.unpack_dataset(settings, artifacts, converted_key, lambda: len(calls) > 2 or calls.append(1))
    assert unpacked_names(settings) == []


def test_every_machine_converts_an_archive_to_the_same_annotations(tmp_path, artifacts, key):
    one, two = (unpacking.unpack_dataset(host(tmp_path, name), artifacts, key, never) for name in ("one", "two"))
    assert one != two
    for name in ANNOTATIONS:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert len(list((two / "train").iterdir())) == 4


def test_concurrent_callers_share_one_conversion(tmp_path, artifacts, key, monkeypatch):
    conversions, convert = [], unpacking.convert
    monkeypatch.setattr(unpacking, "convert", lambda *arguments: (conversions.append(arguments), convert(*arguments)))
    settings = host(tmp_path, "one")
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(unpacking.unpack_dataset, settings, artifacts, key, never) for _ in range(4)]
    assert len({future.result() for future in futures}) == len(conversions) == 1
    assert unpacked_names(settings) == [Path(key).stem]


def test_a_folder_created_by_another_machine_meanwhile_is_used(tmp_path, artifacts, key, monkeypatch):
    settings, convert = host(tmp_path, "one"), unpacking.convert
    folder = settings.uploads_root / Path(key).stem

    def convert_late(*arguments):
        convert(*arguments)
        (folder / "train").mkdir(parents=True)

    monkeypatch.setattr(unpacking, "convert", convert_late)
    assert unpacking.unpack_dataset(settings, artifacts, key, never) == folder
    assert unpacked_names(settings) == [folder.name]


def test_an_abandoned_conversion_stops_and_leaves_nothing(tmp_path, artifacts, key, monkeypatch):
    converting = tmp_path / "converting"
    script = f"import pathlib, time; pathlib.Path({str(converting)!r}).touch(); time.sleep(3600)"
    monkeypatch.setattr(unpacking, "COMMAND", (sys.executable, "-c", script))
    settings = host(tmp_path, "one")
    with pytest.raises(Abandoned):
        unpacking.unpack_dataset(settings, artifacts, key, converting.exists)
    assert unpacked_names(settings) == []


def test_an_abandoned_wait_for_the_lock_ends(tmp_path):
    released = threading.Event()

    def hold_lock():
        with exclusive_lock(tmp_path):
            locked.set()
            released.wait(20)

    locked = threading.Event()
    holder = threading.Thread(target=hold_lock)
    holder.start()
    locked.wait(20)
    with pytest.raises(Abandoned), exclusive_lock(tmp_path, is_abandoned=lambda: True):
        pass
    released.set()
    holder.join()


def test_a_missing_archive_is_reported(tmp_path, artifacts, key):
    artifacts.delete(key)
    settings = host(tmp_path, "one")
    with pytest.raises(DatasetNotFound, match="archive"):
        unpacking.unpack_dataset(settings, artifacts, key, never)
    assert unpacked_names(settings) == []


def test_an_archive_that_cannot_be_converted_is_a_bad_data_set(tmp_path, artifacts):
    key = put(artifacts, b"not an archive", tmp_path)
    with pytest.raises(BadDataset, match="cannot be unpacked"):
        unpacking.unpack_dataset(host(tmp_path, "one"), artifacts, key, never)


def test_a_killed_conversion_does_not_make_the_archive_invalid(tmp_path, artifacts, key, monkeypatch):
    kill_itself = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(unpacking, "COMMAND", (sys.executable, "-c", kill_itself))
    with pytest.raises(OSError) as error:
        unpacking.unpack_dataset(host(tmp_path, "one"), artifacts, key, never)
    assert error.value.errno == errno.ENOMEM


@pytest.fixture
def unpacked(harness, tmp_path, artifacts, key, monkeypatch) -> Settings:
    """A machine that has unpacked the archive of the only data set."""
    monkeypatch.setattr(unpacking, "SETTLED_SECONDS", -1)
    harness.do(lambda session: session.execute(update(Dataset).values(upload_key=key)))
    settings = host(tmp_path, "one")
    unpacking.unpack_dataset(settings, artifacts, key, never)
    return settings


def test_folders_without_a_row_are_removed(harness, unpacked):
    (unpacked.uploads_root / "unrelated folder").mkdir()
    assert unpacking.remove_unused(unpacked, harness.database) == []
    [folder, unrelated] = unpacked_names(unpacked)
    harness.do(lambda session: session.execute(delete(Dataset)))
    assert unpacking.remove_unused(unpacked, harness.database) == [folder]
    assert unpacked_names(unpacked) == [unrelated]


def test_a_data_set_that_is_being_registered_is_not_removed(harness, unpacked, monkeypatch):
    """The folder exists before the row, but only while the lock is held."""
    waiting = threading.Event()
    monkeypatch.setattr(unpacking, "exclusive_lock", lambda root: (waiting.set(), exclusive_lock(root))[1])
    with harness.database.read() as session:
        row = dict(session.execute(Dataset.__table__.select()).mappings().one())
    harness.do(lambda session: session.execute(delete(Dataset)))
    with ThreadPoolExecutor(1) as threads:
        with exclusive_lock(unpacked.uploads_root):
            removal = threads.submit(unpacking.remove_unused, unpacked, harness.database)
            waiting.wait(20)
            harness.do(lambda session: session.execute(Dataset.__table__.insert().values(row)))
        assert removal.result() == []
    assert unpacked_names(unpacked) != []


def test_a_folder_younger_than_an_hour_is_not_removed(harness, unpacked, monkeypatch):
    monkeypatch.setattr(unpacking, "SETTLED_SECONDS", 3600)
    harness.do(lambda session: session.execute(delete(Dataset)))
    assert unpacking.remove_unused(unpacked, harness.database) == []
