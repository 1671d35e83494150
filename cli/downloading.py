"""One file from where it is published into a folder: gone on with where it broke off, checked, and there whole or not at all."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2

from frs.files import digest, sync

TRIES, PAUSE_SECONDS = 5, 1.0
"""Without a byte more; every byte that comes counts anew."""
TIMEOUT_SECONDS = 30.0
RANGE_NOT_SATISFIABLE, PARTIAL = 416, 206
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where it is known, how many there will be."""


class DownloadError(Exception):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def fetch(urls: Sequence[str], target: Path, prefix: str, progress: Progress, *, any_hash: bool = False) -> str:
    """The file's sha256, which begins with `prefix` unless `any_hash`; kept in `FILE.sha256`, too. Raises DownloadError."""
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256 = _checked(urls, part, "" if any_hash else prefix, progress)
        _keep(part, target, sha256)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}.",
            "Name a folder with space that you may write to: --output DIR.",
        ) from None
    return sha256


def recorded_sha256(path: Path) -> str:
    """What `FILE.sha256` says beside it; empty where there is none."""
    try:
        return _note(path).read_text().partition(" ")[0]
    except OSError:
        return ""


def _checked(urls: Sequence[str], part: Path, prefix: str, progress: Progress) -> str:
    started_before = part.exists()
    url = _bring(urls, part, progress)
    sha256 = digest(part)
    if started_before and not sha256.startswith(prefix):  # perhaps the beginning was of something else
        part.unlink()
        url = _bring(urls, part, progress)
        sha256 = digest(part)
    if sha256.startswith(prefix):
        return sha256
    told, size = _looks(part), part.stat().st_size
    part.unlink()
    raise DownloadError(
        f"{url} is not the file its name says: its sha256 begins with {sha256[:8]} instead of {prefix} "
        f"({size:,} bytes{told}). It was removed.",
        "Try again, or another source with --mirror URL. Where you know that the published name is wrong: --any-hash.",
    )


def _bring(urls: Sequence[str], part: Path, progress: Progress) -> str:
    """The first of the addresses that has it. Raises DownloadError, saying what each of them answered."""
    failed = []
    for url in urls:
        try:
            _persist(url, part, progress)
            return url
        except httpx2.HTTPError as error:
            failed.append(f"{url}: {_why(error)}")
    begun = f" {part.stat().st_size:,} bytes are kept; the next try goes on from there." if _size(part) else ""
    raise DownloadError(
        "\n".join(failed),
        f"Try again.{begun} Without network: fetch that file elsewhere and put it at {part.with_suffix('')}.",
    )


def _persist(url: str, part: Path, progress: Progress) -> None:
    """Goes on after it broke off, as long as bytes come. Raises HTTPError."""
    left = TRIES
    while True:
        before = _size(part)
        try:
            return _receive(url, part, progress)
        except httpx2.TransportError:
            left = TRIES if _size(part) > before else left - 1
            if left == 0 or before == _size(part) == 0:  # it never began: no network, or no such host
                raise
            time.sleep(PAUSE_SECONDS)


def _receive(url: str, part: Path, progress: Progress) -> None:
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True) as answer:
        if have and answer.status_code == RANGE_NOT_SATISFIABLE:  # it is all there, or of something else
            return
        answer.raise_for_status()
        have = have if answer.status_code == PARTIAL else 0
        coming = answer.headers.get("Content-Length")
        total = have + int(coming) if coming else None
        progress(have, total)
        with part.open("ab" if have else "wb") as file:
            for piece in answer.iter_raw():
                file.write(piece)
                progress(file.tell(), total)


def _keep(part: Path, target: Path, sha256: str) -> None:
    sync(part)
    _note(target).write_text(f"{sha256}  {target.name}\n")
    part.replace(target)
    sync(target.parent)


def _note(path: Path) -> Path:
    """As `sha256sum --check` reads it."""
    return path.with_name(f"{path.name}.sha256")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _looks(part: Path) -> str:
    with part.open("rb") as file:
        return ", a web page" if file.read(512).lstrip()[:1] == b"<" else ""


def _why(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"it answers {error.response.status_code}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
