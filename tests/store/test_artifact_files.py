"""Artifact storage in a folder and in object storage."""

import hashlib
import os
import traceback
from pathlib import Path
from unittest.mock import Mock

import pytest
from object_storage import SECRET, Bucket

from store.artifacts.folder import ArtifactFolder
from store.artifacts.local_files import Abandoned
from store.artifacts.object_storage import PART_BYTES, ArtifactObjects
from store.artifacts.storage import open_artifacts
from store.errors import ArtifactCorrupt, ArtifactNotFound, ArtifactsUnavailable, InvalidKey
from store.settings import Settings

KEY = "job_1/checkpoints/step_000100.pth"
LARGE = 2 * PART_BYTES + 1


@pytest.fixture(params=["folder", "objects"])
def settings(request, tmp_path):
    if request.param == "folder":
        return Settings(data=tmp_path)
    return Settings(data=tmp_path, artifacts_url=request.getfixturevalue("bucket").url)


@pytest.fixture
def artifacts(settings):
    return open_artifacts(settings)


@pytest.fixture
def folder(tmp_path):
    return ArtifactFolder(tmp_path / "artifacts")


@pytest.fixture
def objects(bucket):
    return ArtifactObjects(bucket.url)


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path, b"weights")


def write_source(folder, content):
    path = folder / "source"
    path.write_bytes(content)
    return path


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def read(artifacts, key=KEY):
    with artifacts.open(key) as file:
        return file.read()


def stored_keys(artifacts, request):
    if isinstance(artifacts, ArtifactFolder):
        return sorted(p.relative_to(artifacts.root).as_posix() for p in artifacts.root.rglob("*") if p.is_file())
    return sorted(request.getfixturevalue("bucket").objects())


def test_a_stored_file_can_be_read_and_deleted(artifacts, source):
    artifacts.put(source, KEY, sha256(b"weights"))
    assert read(artifacts) == b"weights"
    artifacts.delete(KEY)
    artifacts.delete(KEY)
    with pytest.raises(ArtifactNotFound):
        artifacts.open(KEY)
    with pytest.raises(ArtifactNotFound):
        artifacts.fetch(KEY, sha256(b"weights"), source.with_name("target"))


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, LARGE])
def test_a_fetched_file_has_the_stored_content(artifacts, tmp_path, size):
    content = os.urandom(size)
    artifacts.put(write_source(tmp_path, content), KEY, sha256(content))
    target = tmp_path / "target"
    artifacts.fetch(KEY, sha256(content), target)
    assert target.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


def test_an_abandoned_fetch_ends_and_leaves_nothing(artifacts, tmp_path, monkeypatch):
    content = os.urandom(LARGE)
    artifacts.put(write_source(tmp_path, content), KEY, sha256(content))
    monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=OSError))  # forces a folder to copy
    (tmp_path / "target").mkdir()
    for answers in ([True], [False, True]):
        with pytest.raises(Abandoned):
            artifacts.fetch(KEY, sha256(content), tmp_path / "target" / "file", iter(answers).__next__)
        assert list((tmp_path / "target").iterdir()) == []


def test_a_file_can_be_read_from_any_offset(artifacts, tmp_path):
    content = os.urandom(LARGE)
    artifacts.put(write_source(tmp_path, content), KEY, sha256(content))
    with artifacts.open(KEY) as file:
        assert file.seek(0, os.SEEK_END) == LARGE
        assert file.read(1) == b""
        for start, length in ((0, 3), (PART_BYTES - 1, 2), (LARGE - 1, 9), (1, PART_BYTES + 7)):
            file.seek(start)
            assert file.read(length) == content[start : start + length]


def test_a_new_content_replaces_the_old_one(artifacts, tmp_path):
    for content in (b"old", b"newer"):
        path = write_source(tmp_path, content)
        artifacts.put(path, KEY, sha256(content))
        path.unlink()
    assert read(artifacts) == b"newer"


@pytest.mark.parametrize("size", [4, LARGE])
def test_a_file_with_another_hash_is_rejected_and_the_old_one_remains(artifacts, source, tmp_path, request, size):
    artifacts.put(source, KEY, sha256(b"weights"))
    source.unlink()
    for key in (KEY, "job_1/checkpoints/other.pth"):
        with pytest.raises(ArtifactCorrupt):
            artifacts.put(write_source(tmp_path, b"x" * size), key, sha256(b"whole"))
    assert read(artifacts) == b"weights"
    assert stored_keys(artifacts, request) == [KEY]


def test_storing_a_missing_file_raises_file_not_found(artifacts, source, request):
    """A trainer may have replaced the file; the storage is not at fault."""
    source.unlink()
    with pytest.raises(FileNotFoundError):
        artifacts.put(source, KEY, sha256(b"weights"))
    assert stored_keys(artifacts, request) == []


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "name", "/etc/passwd", "../x/y", "a/../../x", "a/..", "a/./b", "a//b", "a/b/", "~/x", ".hidden/x",
        "a/.part", "a\\b/c", "a/b\0", "a/b\n", "a/b c", "file:///a/b", "a/ü",
    ],
)  # fmt: skip
def test_an_invalid_key_is_rejected(artifacts, source, key):
    for use in (artifacts.open, artifacts.delete):
        with pytest.raises(InvalidKey):
            use(key)
    for use in (artifacts.put, lambda source, key, sha256: artifacts.fetch(key, sha256, source)):
        with pytest.raises(InvalidKey):
            use(source, key, sha256(b"weights"))


def test_keep_only_deletes_the_other_files_of_that_folder_alone(artifacts, source, request):
    for key in (KEY, "job_1/artifacts/a.json", "job_10/artifacts/a.json"):
        artifacts.put(source, key, sha256(b"weights"))
    artifacts.keep_only("job_1", {KEY})
    assert stored_keys(artifacts, request) == [KEY, "job_10/artifacts/a.json"]
    artifacts.keep_only("job_2", {KEY})
    with pytest.raises(InvalidKey):
        artifacts.keep_only("..", set())


# folder


def test_a_file_that_cannot_be_linked_is_copied(folder, source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    folder.put(source, KEY, sha256(b"weights"))
    folder.fetch(KEY, sha256(b"weights"), tmp_path / "target")
    assert folder.path(KEY).read_bytes() == (tmp_path / "target").read_bytes() == b"weights"
    assert not folder.path(KEY).samefile(source)


def test_a_failure_before_the_rename_leaves_nothing_behind(folder, source, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        folder.put(source, KEY, sha256(b"weights"))
    assert not [path for path in folder.root.rglob("*") if path.is_file()]


def test_a_link_out_of_the_folder_is_not_followed(folder, source, tmp_path):
    folder.put(source, KEY, sha256(b"weights"))
    (folder.root / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidKey):
        folder.open("out/source")


def test_keep_only_deletes_partly_stored_files(folder, source):
    folder.put(source, KEY, sha256(b"weights"))
    (folder.root / "job_1" / "checkpoints" / ".12.part").write_bytes(b"wei")
    folder.keep_only("job_1", {KEY})
    assert [path.name for path in folder.root.rglob("*") if path.is_file()] == ["step_000100.pth"]


# object storage


def test_objects_are_stored_below_the_prefix(objects, bucket, source):
    objects.put(source, KEY, sha256(b"weights"))
    assert f"<Key>some/prefix/{KEY}</Key>" in bucket.get("?list-type=2")


@pytest.mark.parametrize("name", [".DS_Store", "checkpoints/a copy.pth", "ü%20?#.txt", "empty/"])
def test_foreign_objects_are_removed_or_ignored(objects, bucket, source, name):
    """Their names are not artifact keys; no job fails because of them."""
    objects.put(source, KEY, sha256(b"weights"))
    bucket.put_object(f"job_1/{name}")
    objects.keep_only("job_1", {KEY})
    assert [key for key in bucket.objects() if not key.endswith("/")] == [KEY]


def test_an_aborted_upload_leaves_no_parts(objects, bucket, tmp_path):
    with pytest.raises(ArtifactCorrupt):
        objects.put(write_source(tmp_path, b"x" * LARGE), KEY, sha256(b"whole"))
    assert (bucket.uploads(), bucket.objects()) == ([], [])


def test_an_object_with_another_hash_is_not_fetched(objects, source, tmp_path):
    objects.put(source, KEY, sha256(b"weights"))
    with pytest.raises(ArtifactCorrupt):
        objects.fetch(KEY, sha256(b"other"), tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_missing_bucket_is_not_reported_as_a_missing_object(bucket: Bucket, source):
    """It is a configuration error, because of which no job may fail."""
    missing = ArtifactObjects("s3://not-there/prefix")
    for use in (
        lambda: missing.put(source, KEY, sha256(b"weights")),
        lambda: missing.fetch(KEY, sha256(b"weights"), source.with_name("target")),
        lambda: missing.open(KEY),
        lambda: missing.keep_only("job_1", set()),
    ):
        with pytest.raises(ArtifactsUnavailable, match="s3://not-there/prefix answers 404"):
            use()


def test_plain_http_must_be_allowed_explicitly(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ValueError, match="AWS_ALLOW_HTTP"):
        ArtifactObjects(bucket.url)


def test_errors_and_reprs_contain_no_credentials(bucket, source):
    settings = Settings(artifacts_url=bucket.url)
    artifacts = open_artifacts(settings)
    with pytest.raises(ArtifactsUnavailable) as error:
        ArtifactObjects("s3://not-there").put(source, KEY, sha256(b"weights"))
    text = repr([artifacts, vars(artifacts), settings]) + "".join(traceback.format_exception(error.value))
    assert SECRET not in text and os.environ["AWS_ACCESS_KEY_ID"] not in text
