import hashlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from publisher import Publisher, publishing
from typer.testing import CliRunner, Result

from cli import downloading, terminal
from cli.main import app
from cli.models import known
from frs import published_weights
from frs.published_weights import PublishedFile

BODY = os.urandom(50_000)
SHA = hashlib.sha256(BODY).hexdigest()
NAME = f"teacher-{SHA[:8]}.pth"
Frs = Callable[..., Result]


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    with publishing() as publisher:
        publisher.files[NAME] = BODY
        row = PublishedFile(file=NAME, urls=(f"{publisher.url}/{NAME}",), recipes=("a_recipe",))
        monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
        monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0)
        yield publisher


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def frs(models: Path, monkeypatch: pytest.MonkeyPatch) -> Frs:
    monkeypatch.setenv("FRS_MODELS_ROOT", str(models))
    for console in (terminal.screen, terminal.problems):
        monkeypatch.setattr(console, "_width", 200)

    def run(*arguments: Any, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["models", *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


def test_what_a_recipe_needs_is_brought_whole(frs: Frs, publisher: Publisher, models: Path) -> None:
    assert SHA in frs("pull", "a_recipe").output
    assert (models / NAME).read_bytes() == BODY
    assert sorted(path.name for path in models.iterdir()) == [NAME, f"{NAME}.sha256"]
    subprocess.run(["sha256sum", "--check", "--strict", f"{NAME}.sha256"], cwd=models, check=True)


def test_what_is_there_and_right_is_not_brought_again(frs: Frs, publisher: Publisher, models: Path) -> None:
    frs("pull", NAME)
    assert ": there" in frs("pull", NAME, "a_recipe").output
    assert len(publisher.asked) == 1


def test_it_goes_on_where_it_broke_off(frs: Frs, publisher: Publisher, models: Path) -> None:
    publisher.break_after = [10_000, 20_000]
    frs("pull", NAME)
    assert [asked for _, asked in publisher.asked] == [None, "bytes=10000-", "bytes=30000-"]
    assert (models / NAME).read_bytes() == BODY


def test_it_goes_on_after_it_was_killed(frs: Frs, publisher: Publisher, models: Path) -> None:
    models.mkdir()
    (models / f"{NAME}.part").write_bytes(BODY[:40_000])
    assert "begun, 40,000 bytes" in frs("list").output
    frs("pull", NAME)
    assert publisher.asked == [(NAME, "bytes=40000-")]
    assert (models / NAME).read_bytes() == BODY
    assert not (models / f"{NAME}.part").exists()


def test_a_whole_part_is_only_renamed(frs: Frs, publisher: Publisher, models: Path) -> None:
    models.mkdir()
    (models / f"{NAME}.part").write_bytes(BODY)
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY


@pytest.mark.parametrize("begun", [b"of something else", b"longer " * 20_000])
def test_a_part_of_something_else_is_begun_anew(begun: bytes, frs: Frs, publisher: Publisher, models: Path) -> None:
    models.mkdir()
    (models / f"{NAME}.part").write_bytes(begun)
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY


def test_a_publisher_without_ranges_is_asked_for_all_of_it(frs: Frs, publisher: Publisher, models: Path) -> None:
    publisher.takes_ranges, publisher.break_after = False, [10_000]
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY


def test_one_that_breaks_off_for_ever_leaves_what_it_sent(frs: Frs, publisher: Publisher, models: Path) -> None:
    publisher.break_after = [10_000] + [0] * 50
    output = frs("pull", NAME, code=1).output
    assert "10,000 bytes are kept" in output
    assert [path.name for path in models.iterdir()] == [f"{NAME}.part"]


def test_another_body_is_refused_and_removed(frs: Frs, publisher: Publisher, models: Path) -> None:
    publisher.files[NAME] = b"<html>Please sign in</html>"
    output = frs("pull", NAME, code=1).output
    assert "instead of" in output and "a web page" in output and publisher.url in output
    assert list(models.iterdir()) == []


def test_another_body_is_kept_where_that_is_wished_and_is_right_from_then_on(
    frs: Frs, publisher: Publisher, models: Path
) -> None:
    publisher.files[NAME] = b"published under a wrong name"
    frs("pull", NAME, "--any-hash")
    assert ": there" in frs("pull", NAME).output
    assert (models / NAME).read_bytes() == b"published under a wrong name"


def test_a_file_of_another_content_is_left_alone(frs: Frs, publisher: Publisher, models: Path) -> None:
    models.mkdir()
    (models / NAME).write_bytes(b"somebody's own")
    assert "another file" in frs("pull", NAME, code=1).output
    assert "another file" in frs("list").output
    assert (models / NAME).read_bytes() == b"somebody's own"
    assert publisher.asked == []


def test_without_network_it_says_what_to_fetch_and_where_to_put_it(
    frs: Frs, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}"
        row = PublishedFile(file=NAME, urls=(url,), recipes=("a_recipe",))
        monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
        output = frs("pull", "a_recipe", code=1).output
    assert url in output and f"put it at {models / NAME}" in output


def test_the_next_address_is_tried(frs: Frs, publisher: Publisher, models: Path, monkeypatch: Any) -> None:
    urls = (f"{publisher.url}/gone.pth", f"{publisher.url}/{NAME}")
    row = PublishedFile(file=NAME, urls=urls, recipes=("a_recipe",))
    monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
    frs("pull", NAME)
    assert (models / NAME).read_bytes() == BODY
    publisher.files.clear()
    (models / NAME).unlink()
    output = frs("pull", NAME, code=1).output
    assert all(f"{url}: it answers 404" in output for url in urls)


def test_a_mirror_is_asked_instead(frs: Frs, publisher: Publisher, models: Path, monkeypatch: Any) -> None:
    row = PublishedFile(file=NAME, urls=(f"http://nowhere.invalid/{NAME}",), recipes=("a_recipe",))
    monkeypatch.setattr(published_weights, "published_files", lambda: (row,))
    frs("pull", NAME, "--mirror", f"{publisher.url}/deep/")
    assert (models / NAME).read_bytes() == BODY


def test_a_dry_run_asks_nobody(frs: Frs, publisher: Publisher, models: Path) -> None:
    assert f"{models / NAME} from {publisher.url}/{NAME}" in frs("pull", "a_recipe", "--dry-run").output
    assert publisher.asked == [] and not models.exists()


def test_an_unknown_name_is_told_the_known_ones(frs: Frs) -> None:
    output = frs("pull", "gfl_r101", code=1).output
    assert "gfl_r101_r50_1x" in output and "resnet50-0676ba61.pth" in output


def test_a_folder_that_cannot_be_written_is_said(frs: Frs, publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in frs("pull", NAME, "--output", tmp_path / "file" / "models", code=1).output


def test_names_are_completed() -> None:
    assert known("gfl") == [
        "gfl_r101_r50_1x",
        "gfl_r101_r50_2x",
        "gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth",
    ]
