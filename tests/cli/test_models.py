"""`frs models`: downloads from a local file server."""

import hashlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer, serve_files
from typer.testing import CliRunner, Result

from cli import terminal
from cli.main import app
from cli.models import complete_names
from frs import published_weights
from frs.published_weights import PublishedFile
from frs_client.sync import downloading

BODY = os.urandom(50_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
NAME = f"teacher-{SHA256[:8]}.pth"
Frs = Callable[..., Result]


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serve_files() as file_server:
        file_server.files[NAME] = BODY
        row = PublishedFile(file=NAME, urls=(f"{file_server.url}/{NAME}",), recipes=("a_recipe",))
        monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
        monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0)
        yield file_server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def frs(models: Path, monkeypatch: pytest.MonkeyPatch) -> Frs:
    monkeypatch.setenv("FRS_MODELS_ROOT", str(models))
    for console in (terminal.stdout, terminal.stderr):
        monkeypatch.setattr(console, "width", 200)

    def run(*arguments: Any, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["models", *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


def test_pull_downloads_and_verifies_the_files_of_a_recipe(frs: Frs, file_server: FileServer, models: Path) -> None:
    assert SHA256 in frs("pull", "a_recipe").output
    assert (models / NAME).read_bytes() == BODY
    assert sorted(path.name for path in models.iterdir()) == [NAME, f"{NAME}.sha256"]
    subprocess.run(["sha256sum", "--check", "--strict", f"{NAME}.sha256"], cwd=models, check=True)


def test_a_present_file_is_not_downloaded_again(frs: Frs, file_server: FileServer, models: Path) -> None:
    frs("pull", NAME)
    assert ": present" in frs("pull", NAME, "a_recipe").output
    assert len(file_server.requests) == 1


def test_a_broken_download_resumes(frs: Frs, file_server: FileServer, models: Path) -> None:
    file_server.break_after = [10_000, 20_000]
    frs("pull", NAME)
    assert [byte_range for _, byte_range in file_server.requests] == [None, "bytes=10000-", "bytes=30000-"]
    assert (models / NAME).read_bytes() == BODY


def test_a_partial_file_of_an_earlier_run_resumes(frs: Frs, file_server: FileServer, models: Path) -> None:
    models.mkdir()
    (models / f"{NAME}.part").write_bytes(BODY[:40_000])
    assert "partial, 40,000 bytes" in frs("list").output
    frs("pull", NAME)
    assert file_server.requests == [(NAME, "bytes=40000-")]
    assert (models / NAME).read_bytes() == BODY
    assert not (models / f"{NAME}.part").exists()


def test_a_complete_partial_file_is_only_renamed(frs: Frs, file_server: FileServer, models: Path) -> None:
    models.mkdir()
    (models / f"{NAME}.part").write_bytes(BODY)
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY


@pytest.mark.parametrize("partial", [b"of something else", b"longer " * 20_000])
def test_a_partial_file_of_other_content_is_downloaded_again(
    partial: bytes, frs: Frs, file_server: FileServer, models: Path
) -> None:
    models.mkdir()
    (models / f"{NAME}.part").write_bytes(partial)
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY


def test_a_server_without_range_support_sends_the_whole_file(frs: Frs, file_server: FileServer, models: Path) -> None:
    file_server.supports_ranges, file_server.break_after = False, [10_000]
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY


def test_a_download_that_keeps_breaking_off_fails_and_keeps_its_partial_file(
    frs: Frs, file_server: FileServer, models: Path
) -> None:
    file_server.break_after = [10_000] + [0] * 50
    output = frs("pull", NAME, code=1).output
    assert "10,000 bytes are kept" in output
    assert [path.name for path in models.iterdir()] == [f"{NAME}.part"]


def test_a_file_with_another_hash_is_refused_and_removed(frs: Frs, file_server: FileServer, models: Path) -> None:
    file_server.files[NAME] = b"<html>Please sign in</html>"
    output = frs("pull", NAME, code=1).output
    assert "instead of" in output and "a web page" in output and file_server.url in output
    assert list(models.iterdir()) == []


def test_any_hash_keeps_a_file_with_another_hash_and_later_accepts_it(
    frs: Frs, file_server: FileServer, models: Path
) -> None:
    file_server.files[NAME] = b"published under a wrong name"
    frs("pull", NAME, "--any-hash")
    assert ": present" in frs("pull", NAME).output
    assert (models / NAME).read_bytes() == b"published under a wrong name"


def test_an_existing_file_of_other_content_is_not_overwritten(frs: Frs, file_server: FileServer, models: Path) -> None:
    models.mkdir()
    (models / NAME).write_bytes(b"somebody's own")
    assert "another file" in frs("pull", NAME, code=1).output
    assert "another file" in frs("list").output
    assert (models / NAME).read_bytes() == b"somebody's own"
    assert file_server.requests == []


def test_without_network_the_error_names_the_url_and_the_target_path(
    frs: Frs, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}"
        row = PublishedFile(file=NAME, urls=(url,), recipes=("a_recipe",))
        monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
        output = frs("pull", "a_recipe", code=1).output
    assert url in output and f"put it at {models / NAME}" in output


def test_the_next_url_is_tried_after_a_failure(
    frs: Frs, file_server: FileServer, models: Path, monkeypatch: Any
) -> None:
    urls = (f"{file_server.url}/gone.pth", f"{file_server.url}/{NAME}")
    row = PublishedFile(file=NAME, urls=urls, recipes=("a_recipe",))
    monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY
    file_server.files.clear()
    (models / NAME).unlink()
    output = frs("pull", NAME, code=1).output
    assert all(f"{url}: HTTP 404" in output for url in urls)


def test_a_mirror_replaces_the_published_urls(
    frs: Frs, file_server: FileServer, models: Path, monkeypatch: Any
) -> None:
    row = PublishedFile(file=NAME, urls=(f"http://nowhere.invalid/{NAME}",), recipes=("a_recipe",))
    monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
    frs("pull", NAME, "--mirror", f"{file_server.url}/deep/")
    assert (models / NAME).read_bytes() == BODY


def test_a_dry_run_sends_no_requests(frs: Frs, file_server: FileServer, models: Path) -> None:
    assert f"{models / NAME} from {file_server.url}/{NAME}" in frs("pull", "a_recipe", "--dry-run").output
    assert file_server.requests == [] and not models.exists()


def test_an_unknown_name_lists_the_known_names(frs: Frs) -> None:
    output = frs("pull", "gfl_r101", code=1).output
    assert "gfl_r101_r50_1x" in output and "resnet50-0676ba61.pth" in output


def test_an_unwritable_folder_is_an_error(frs: Frs, file_server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in frs("pull", NAME, "--output", tmp_path / "file" / "models", code=1).output


def test_names_are_completed() -> None:
    assert complete_names("gfl") == [
        "gfl_r101_r50_1x",
        "gfl_r101_r50_2x",
        "gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth",
    ]


def test_list_shows_what_each_backbone_would_start_from(
    frs: Frs, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    models.mkdir()
    (models / "ghostnet_100.in1k.safetensors").touch()
    lines = {line.split()[0]: line for line in frs("list").output.splitlines() if line.strip()}
    assert str(models / "ghostnet_100.in1k.safetensors") in lines["ghostnet_100"]
    assert "efficientnet-lite0-57934424.pth" in lines["tf_efficientnet_lite0"], "the installed package"
    assert "missing: frs models pull mobileone_s0 (licence: mobileone-license)" in lines["mobileone_s0"]


def test_pull_accepts_the_name_of_a_backbone(frs: Frs, models: Path) -> None:
    output = frs("pull", "ghostnet_100", "--dry-run").output
    assert f"{models}/ghostnet_100.in1k.safetensors from https://huggingface.co/timm/ghostnet_100.in1k/" in output
    assert "tf_efficientnet_lite2" in complete_names("tf_")
