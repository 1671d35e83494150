"""Download one published file into a folder: resumable, verified, and atomic."""

from collections.abc import Sequence
from pathlib import Path

import httpx2

from frs.files import digest, sync
from frs_client.sync.downloading import Progress, receive, size_of

TIMEOUT_SECONDS = 30.0


class DownloadError(Exception):
    """A download that failed; `hint` names the next step."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def fetch(urls: Sequence[str], target: Path, prefix: str, progress: Progress, *, any_hash: bool = False) -> str:
    """Download `target` from the first URL that has it and return its SHA-256.

    The hash is also written to `TARGET.sha256`, and a partial download is kept as `TARGET.part` and resumed.
    Raises DownloadError if no URL has the file, if the hash does not start with `prefix` (unless `any_hash`), or if
    the folder is not writable.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256 = _download_verified(urls, part, "" if any_hash else prefix, progress)
        _commit(part, target, sha256)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}.",
            "Name a writable folder with enough free space: --output DIR.",
        ) from None
    return sha256


def recorded_sha256(path: Path) -> str:
    """Return the hash recorded in `PATH.sha256`; empty if there is no such file."""
    try:
        return _hash_file(path).read_text().partition(" ")[0]
    except OSError:
        return ""


def _download_verified(urls: Sequence[str], part: Path, prefix: str, progress: Progress) -> str:
    resumed = part.exists()
    url = _download_from_any(urls, part, progress)
    sha256 = digest(part)
    if resumed and not sha256.startswith(prefix):  # the partial file may belong to another version: start over
        part.unlink()
        url = _download_from_any(urls, part, progress)
        sha256 = digest(part)
    if sha256.startswith(prefix):
        return sha256
    content, size = _content_note(part), part.stat().st_size
    part.unlink()
    raise DownloadError(
        f"{url} is not the expected file: its SHA-256 starts with {sha256[:8]} instead of {prefix} "
        f"({size:,} bytes{content}). It was removed.",
        "Try again or use another source: --mirror URL. If the published name is known to be wrong: --any-hash.",
    )


def _download_from_any(urls: Sequence[str], part: Path, progress: Progress) -> str:
    """Return the first URL that has the file. Raises DownloadError with the failure of each URL."""
    failures = []
    with httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as http:
        for url in urls:
            try:
                receive(http, url, part, progress)
                return url
            except httpx2.HTTPError as error:
                failures.append(f"{url}: {_reason(error)}")
    kept = f" {part.stat().st_size:,} bytes are kept; the next try resumes there." if size_of(part) else ""
    raise DownloadError(
        "\n".join(failures),
        f"Try again.{kept} Without network access: download the file elsewhere and put it at {part.with_suffix('')}.",
    )


def _commit(part: Path, target: Path, sha256: str) -> None:
    sync(part)
    _hash_file(target).write_text(f"{sha256}  {target.name}\n")
    part.replace(target)
    sync(target.parent)


def _hash_file(path: Path) -> Path:
    """Return the path of the hash file, which is in the format of `sha256sum --check`."""
    return path.with_name(f"{path.name}.sha256")


def _content_note(part: Path) -> str:
    with part.open("rb") as file:
        return ", a web page" if file.read(512).lstrip()[:1] == b"<" else ""


def _reason(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
