"""`jobs.pull` resumes a download that broke, and only a file with the expected SHA-256 gets its name."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer, serve_files

from frs_client import ServiceError
from frs_client.aio import downloading as async_downloading
from frs_client.sync import downloading

BODY = random.Random(0).randbytes(50_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for module in (downloading, async_downloading):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    with serve_files() as file_server:
        file_server.files["content"] = BODY
        yield file_server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "student.pth"


def download(connect: Any, file_server: FileServer, target: Path) -> list[str | None]:
    """Download the file and return the requested ranges."""
    connect(file_server.url, "frs_key").download("/content", target, SHA256)
    assert target.read_bytes() == BODY
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return [byte_range for _, byte_range in file_server.requests]


def test_a_download_resumes_after_each_interruption(connect: Any, file_server: FileServer, target: Path) -> None:
    file_server.break_after = [10_000, 20_000]
    assert download(connect, file_server, target) == [None, "bytes=10000-", "bytes=30000-"]


def test_the_next_command_resumes_where_the_last_one_failed(
    connect: Any, file_server: FileServer, target: Path
) -> None:
    file_server.break_after = [10_000] + [0] * downloading.TRIES
    with pytest.raises(ServiceError, match="broke before"):
        download(connect, file_server, target)
    assert not target.exists()
    file_server.requests.clear()
    assert download(connect, file_server, target) == ["bytes=10000-"]


@pytest.fixture
def download_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses in seconds that a download would have made; it makes none."""
    made: list[float] = []

    async def pause(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(downloading, "sleep", made.append)
    monkeypatch.setattr(async_downloading, "a_sleep", pause)
    return made


@pytest.mark.parametrize("status", [429, 503])
def test_a_download_that_is_refused_for_now_goes_on_after_the_named_time(
    status: int, connect: Any, file_server: FileServer, target: Path, download_pauses: list[float]
) -> None:
    file_server.refusals, file_server.break_after = [(status, "7"), (status, "0")], [10_000]
    assert download(connect, file_server, target) == [None, None, None, "bytes=10000-"]
    assert download_pauses == [7, 1, 0]


def test_a_download_waits_a_minute_in_total(
    connect: Any, file_server: FileServer, target: Path, download_pauses: list[float]
) -> None:
    file_server.refusals = [(429, "25")] * 3
    with pytest.raises(ServiceError, match="HTTP 429"):
        download(connect, file_server, target)
    assert download_pauses == [25, 25]


@pytest.mark.parametrize("partial", [BODY, BODY[:1], b"damaged" + BODY[7:40_000], BODY + b"longer", b"other" * 20_000])
def test_a_partial_file_of_any_content_ends_as_the_right_file(
    partial: bytes, connect: Any, file_server: FileServer, target: Path
) -> None:
    (target.parent / f".{target.name}.part").write_bytes(partial)
    download(connect, file_server, target)


def test_a_server_without_ranges_sends_the_whole_file_again(
    connect: Any, file_server: FileServer, target: Path
) -> None:
    file_server.supports_ranges, file_server.break_after = False, [10_000]
    assert download(connect, file_server, target) == [None, "bytes=10000-"]


@pytest.mark.parametrize("partial", [None, BODY[:20_000]])
def test_other_content_is_refused_and_removed(
    partial: bytes | None, connect: Any, file_server: FileServer, target: Path
) -> None:
    file_server.files["content"] = b"other content"
    if partial:
        (target.parent / f".{target.name}.part").write_bytes(partial)
    with pytest.raises(ServiceError, match=r"student\.pth arrived damaged"):
        download(connect, file_server, target)
    assert not list(target.parent.iterdir())


def test_a_file_that_the_service_lacks_is_its_error(connect: Any, file_server: FileServer, target: Path) -> None:
    file_server.files.clear()
    with pytest.raises(ServiceError, match="HTTP 404"):
        download(connect, file_server, target)
