import hashlib
import os

import pytest

from store.artifact_folder import ArtifactFolder
from store.errors import ArtifactCorrupt, ArtifactNotFound, InvalidKey

KEY = "job_1/checkpoints/step_000100.pth"


@pytest.fixture
def artifacts(tmp_path):
    return ArtifactFolder(tmp_path / "artifacts")


@pytest.fixture
def source(tmp_path):
    return source_of(tmp_path, b"weights")


def source_of(folder, content):
    path = folder / "source"
    path.write_bytes(content)
    return path


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_put_is_there_and_can_be_deleted(artifacts, source):
    artifacts.put(source, KEY, sha256(b"weights"))
    with artifacts.open(KEY) as file:
        assert file.read() == b"weights"
    artifacts.delete(KEY)
    artifacts.delete(KEY)
    with pytest.raises(ArtifactNotFound):
        artifacts.path(KEY)


def test_a_file_is_copied_where_it_cannot_be_linked(artifacts, source, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    artifacts.put(source, KEY, sha256(b"weights"))
    assert artifacts.path(KEY).read_bytes() == b"weights"
    assert not artifacts.path(KEY).samefile(source)


def test_a_file_that_is_not_as_announced_leaves_the_old_one(artifacts, source, tmp_path):
    artifacts.put(source, KEY, sha256(b"weights"))
    source.unlink()
    with pytest.raises(ArtifactCorrupt):
        artifacts.put(source_of(tmp_path, b"half"), KEY, sha256(b"whole"))
    assert artifacts.path(KEY).read_bytes() == b"weights"
    assert [file.name for file in artifacts.path(KEY).parent.iterdir()] == ["step_000100.pth"]


def test_a_failure_before_the_rename_leaves_nothing_behind(artifacts, source, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        artifacts.put(source, KEY, sha256(b"weights"))
    assert not [path for path in artifacts.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "name", "/etc/passwd", "../x/y", "a/../../x", "a/..", "a/./b", "a//b", "a/b/", "~/x", ".hidden/x",
        "a/.part", "a\\b/c", "a/b\0", "a/b\n", "a/b c", "file:///a/b", "a/ü",
    ],
)  # fmt: skip
def test_a_key_that_leads_elsewhere_is_refused(artifacts, source, key):
    for use in (artifacts.path, artifacts.open, artifacts.delete):
        with pytest.raises(InvalidKey):
            use(key)
    with pytest.raises(InvalidKey):
        artifacts.put(source, key, sha256(b"weights"))


def test_a_link_out_of_the_folder_is_not_followed(artifacts, source, tmp_path):
    artifacts.put(source, KEY, sha256(b"weights"))
    (artifacts.root / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidKey):
        artifacts.open("out/source")


def test_only_what_is_named_is_kept_of_a_folder_and_others_are_left_alone(artifacts, source):
    for key in (KEY, "job_1/artifacts/a.json", "job_10/artifacts/a.json"):
        artifacts.put(source, key, sha256(b"weights"))
    (artifacts.root / "job_1" / "checkpoints" / ".12.part").write_bytes(b"wei")
    artifacts.keep_only("job_1", {KEY})
    left = {path.relative_to(artifacts.root).as_posix() for path in artifacts.root.rglob("*") if path.is_file()}
    assert left == {KEY, "job_10/artifacts/a.json"}
    artifacts.keep_only("job_2", {KEY})
    with pytest.raises(InvalidKey):
        artifacts.keep_only("..", set())
