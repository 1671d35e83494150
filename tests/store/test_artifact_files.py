"""What holds of artifacts wherever they are kept."""

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
    return source_of(tmp_path, b"weights")


def source_of(folder, content):
    path = folder / "source"
    path.write_bytes(content)
    return path


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def read(artifacts, key=KEY):
    with artifacts.open(key) as file:
        return file.read()


def kept(artifacts, request):
    if isinstance(artifacts, ArtifactFolder):
        return sorted(p.relative_to(artifacts.root).as_posix() for p in artifacts.root.rglob("*") if p.is_file())
    return sorted(request.getfixturevalue("bucket").objects())


def test_a_file_put_is_there_and_can_be_deleted(artifacts, source):
    artifacts.put(source, KEY, sha256(b"weights"))
    assert read(artifacts) == b"weights"
    artifacts.delete(KEY)
    artifacts.delete(KEY)
    with pytest.raises(ArtifactNotFound):
        artifacts.open(KEY)
    with pytest.raises(ArtifactNotFound):
        artifacts.fetch(KEY, sha256(b"weights"), source.with_name("target"))


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, LARGE])
def test_a_file_comes_back_as_it_was(artifacts, tmp_path, size):
    content = os.urandom(size)
    artifacts.put(source_of(tmp_path, content), KEY, sha256(content))
    target = tmp_path / "target"
    artifacts.fetch(KEY, sha256(content), target)
    assert target.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


def test_a_fetch_that_nobody_wants_any_more_ends_and_leaves_nothing(artifacts, tmp_path, monkeypatch):
    content = os.urandom(LARGE)
    artifacts.put(source_of(tmp_path, content), KEY, sha256(content))
    monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=OSError))  # so that a folder has to copy
    (tmp_path / "target").mkdir()
    for answers in ([True], [False, True]):
        with pytest.raises(Abandoned):
            artifacts.fetch(KEY, sha256(content), tmp_path / "target" / "file", iter(answers).__next__)
        assert list((tmp_path / "target").iterdir()) == []


def test_a_file_is_read_from_any_place(artifacts, tmp_path):
    content = os.urandom(LARGE)
    artifacts.put(source_of(tmp_path, content), KEY, sha256(content))
    with artifacts.open(KEY) as file:
        assert file.seek(0, os.SEEK_END) == LARGE
        assert file.read(1) == b""
        for start, length in ((0, 3), (PART_BYTES - 1, 2), (LARGE - 1, 9), (1, PART_BYTES + 7)):
            file.seek(start)
            assert file.read(length) == content[start : start + length]


def test_another_content_takes_the_place_of_the_old_one(artifacts, tmp_path):
    for content in (b"old", b"newer"):
        path = source_of(tmp_path, content)
        artifacts.put(path, KEY, sha256(content))
        path.unlink()
    assert read(artifacts) == b"newer"


@pytest.mark.parametrize("size", [4, LARGE])
def test_a_file_that_is_not_as_announced_leaves_the_old_one(artifacts, source, tmp_path, request, size):
    artifacts.put(source, KEY, sha256(b"weights"))
    source.unlink()
    for key in (KEY, "job_1/checkpoints/other.pth"):
        with pytest.raises(ArtifactCorrupt):
            artifacts.put(source_of(tmp_path, b"x" * size), key, sha256(b"whole"))
    assert read(artifacts) == b"weights"
    assert kept(artifacts, request) == [KEY]


def test_a_file_that_is_gone_was_not_there_to_be_put(artifacts, source, request):
    """A trainer has replaced it meanwhile: that says nothing of the store."""
    source.unlink()
    with pytest.raises(FileNotFoundError):
        artifacts.put(source, KEY, sha256(b"weights"))
    assert kept(artifacts, request) == []


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "name", "/etc/passwd", "../x/y", "a/../../x", "a/..", "a/./b", "a//b", "a/b/", "~/x", ".hidden/x",
        "a/.part", "a\\b/c", "a/b\0", "a/b\n", "a/b c", "file:///a/b", "a/ü",
    ],
)  # fmt: skip
def test_a_key_that_leads_elsewhere_is_refused(artifacts, source, key):
    for use in (artifacts.open, artifacts.delete):
        with pytest.raises(InvalidKey):
            use(key)
    for use in (artifacts.put, lambda source, key, sha256: artifacts.fetch(key, sha256, source)):
        with pytest.raises(InvalidKey):
            use(source, key, sha256(b"weights"))


def test_only_what_is_named_is_kept_of_a_folder_and_others_are_left_alone(artifacts, source, request):
    for key in (KEY, "job_1/artifacts/a.json", "job_10/artifacts/a.json"):
        artifacts.put(source, key, sha256(b"weights"))
    artifacts.keep_only("job_1", {KEY})
    assert kept(artifacts, request) == [KEY, "job_10/artifacts/a.json"]
    artifacts.keep_only("job_2", {KEY})
    with pytest.raises(InvalidKey):
        artifacts.keep_only("..", set())


# in a folder


def test_a_file_is_copied_where_it_cannot_be_linked(folder, source, tmp_path, monkeypatch):
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


def test_what_a_killed_process_has_half_put_is_not_kept(folder, source):
    folder.put(source, KEY, sha256(b"weights"))
    (folder.root / "job_1" / "checkpoints" / ".12.part").write_bytes(b"wei")
    folder.keep_only("job_1", {KEY})
    assert [path.name for path in folder.root.rglob("*") if path.is_file()] == ["step_000100.pth"]


# in object storage


def test_objects_lie_below_the_prefix_alone(objects, bucket, source):
    objects.put(source, KEY, sha256(b"weights"))
    assert f"<Key>some/prefix/{KEY}</Key>" in bucket.get("?list-type=2")


@pytest.mark.parametrize("name", [".DS_Store", "checkpoints/a copy.pth", "ü%20?#.txt", "empty/"])
def test_what_somebody_else_has_laid_there_is_removed_or_passed_over(objects, bucket, source, name):
    """It is no key of ours, and no job fails of it."""
    objects.put(source, KEY, sha256(b"weights"))
    bucket.lay(f"job_1/{name}")
    objects.keep_only("job_1", {KEY})
    assert [key for key in bucket.objects() if not key.endswith("/")] == [KEY]


def test_an_upload_that_was_given_up_leaves_no_parts(objects, bucket, tmp_path):
    with pytest.raises(ArtifactCorrupt):
        objects.put(source_of(tmp_path, b"x" * LARGE), KEY, sha256(b"whole"))
    assert (bucket.uploads(), bucket.objects()) == ([], [])


def test_an_object_of_another_content_is_not_fetched(objects, source, tmp_path):
    objects.put(source, KEY, sha256(b"weights"))
    with pytest.raises(ArtifactCorrupt):
        objects.fetch(KEY, sha256(b"other"), tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_missing_bucket_is_no_missing_object(bucket: Bucket, source):
    """It is the operator's fault, and no job may fail of it."""
    nowhere = ArtifactObjects("s3://not-there/prefix")
    for use in (
        lambda: nowhere.put(source, KEY, sha256(b"weights")),
        lambda: nowhere.fetch(KEY, sha256(b"weights"), source.with_name("target")),
        lambda: nowhere.open(KEY),
        lambda: nowhere.keep_only("job_1", set()),
    ):
        with pytest.raises(ArtifactsUnavailable, match="s3://not-there/prefix answers 404"):
            use()


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "s3://bucket/x?secret=1", "s3:///x"])
def test_an_address_with_more_than_bucket_and_prefix_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError) as error:
        ArtifactObjects(url)
    assert "secret@" not in str(error.value) and "secret=" not in str(error.value)


def test_plain_http_wants_to_be_allowed(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ValueError, match="AWS_ALLOW_HTTP"):
        ArtifactObjects(bucket.url)


def test_no_error_and_no_repr_shows_a_credential(bucket, source):
    settings = Settings(artifacts_url=bucket.url)
    artifacts = open_artifacts(settings)
    with pytest.raises(ArtifactsUnavailable) as error:
        ArtifactObjects("s3://not-there").put(source, KEY, sha256(b"weights"))
    shown = repr([artifacts, vars(artifacts), settings]) + "".join(traceback.format_exception(error.value))
    assert SECRET not in shown and os.environ["AWS_ACCESS_KEY_ID"] not in shown
