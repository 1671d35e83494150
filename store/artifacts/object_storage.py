"""Artifacts in S3-compatible object storage.

Its errors become ArtifactsUnavailable, without secrets. Retries and timeouts apply to each request, and a file is
transferred in several requests: large files work over slow links, and no call hangs.
"""

import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from store.artifacts import keys as artifact_keys
from store.artifacts.local_files import Abandoned, IsAbandoned
from store.errors import ArtifactCorrupt, ArtifactNotFound, ArtifactsUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

PART_BYTES = 5 << 20
"""Size of a part of a multipart upload: the minimum of S3. The maximum of 10,000 parts is 50 GB."""
_PARALLEL_PARTS = 2
_READ_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 20
CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(seconds=60),
}
"""Timeouts of one request. `read_timeout` limits the time without data, and thereby the upload of one part."""
RETRY: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=4), "base": 2},
}
"""Retries of one request."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND = re.compile(r"kind: (\w{1,32})")


class ArtifactObjects:
    """`store.artifacts.storage.Artifacts` in object storage."""

    def __init__(self, url: str) -> None:
        """Open `s3://BUCKET/PREFIX`, configured by the standard `AWS_...` variables.

        Raises ValueError if they are invalid.
        """
        self._name = url
        self._store = _store(url)

    def put(self, source: Path, key: str, sha256: str) -> None:
        """Store `source` under `key`; see `Artifacts.put`.

        Each part is sent with its checksum, and the object becomes visible after the last byte has been hashed.
        """
        artifact_keys.check(key)
        with source.open("rb") as file:
            parts = _parts(file, sha256)
            with _translate_errors(self._name):
                if os.fstat(file.fileno()).st_size <= PART_BYTES:
                    obstore.put(self._store, key, b"".join(parts), use_multipart=False)
                else:
                    obstore.put(self._store, key, parts, chunk_size=PART_BYTES, max_concurrency=_PARALLEL_PARTS)
            sent = file.tell()
        stored = self._size(key)
        if stored != sent:
            raise ArtifactsUnavailable(f"{self._name} stored {stored} bytes of {sent}")

    def fetch(
        self, key: str, sha256: str, target: Path, is_abandoned: IsAbandoned = lambda: False, size: int | None = None
    ) -> None:
        """Download the file to `target`; see `Artifacts.fetch`."""
        part, digest = target.with_name(f".{target.name}.part"), hashlib.sha256()
        try:
            with self.open(key) as source, part.open("wb") as file:
                _check_size(source, size, target.parent)
                while content := source.read(_READ_BYTES):
                    if is_abandoned():
                        raise Abandoned
                    digest.update(content)
                    file.write(content)
            _verify(digest.hexdigest(), sha256)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        """Open the object for reading; see `Artifacts.open`."""
        artifact_keys.check(key)
        return cast(BinaryIO, io.BufferedReader(_Object(self._store, self._name, key, self._size(key)), _BUFFER_BYTES))

    def delete(self, key: str) -> None:
        """Delete the object; see `Artifacts.delete`."""
        artifact_keys.check(key)
        self._delete(key)

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        """Delete all other objects of the folder; see `Artifacts.keep_only`.

        Incomplete multipart uploads are not listed; a lifecycle rule of the bucket removes them.
        """
        artifact_keys.check(f"{folder}/any")
        for key in set(self._keys(folder)) - set(keys):
            self._delete(key)  # any name, valid key or not: other programs may have stored it

    def _delete(self, key: str) -> None:
        with _translate_errors(self._name):
            obstore.delete(self._store, key)

    def _keys(self, folder: str) -> list[str]:
        with _translate_errors(self._name):
            return [object["path"] for page in obstore.list(self._store, folder) for object in page]

    def _size(self, key: str) -> int:
        """Return the size in bytes. Raise ArtifactNotFound.

        A missing bucket also answers 404 for every object; listing it distinguishes the two.
        """
        with _translate_errors(self._name):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                self._keys(key)
        raise ArtifactNotFound(f"No artifact {key!r}.")


class _Object(io.RawIOBase):
    """A seekable stream of an object, read by range requests with their own retries."""

    def __init__(self, store: S3Store, name: str, key: str, size: int) -> None:
        self._store, self._name, self._key = store, name, key
        self._size, self._position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), max(0, self._size - self._position))
        if length == 0:
            return 0
        with _translate_errors(self._name):
            content = memoryview(obstore.get_range(self._store, self._key, start=self._position, length=length))
        if len(content) != length:
            raise ArtifactsUnavailable(f"{self._name} returned {len(content)} bytes of {length}")
        buffer[:length] = content
        self._position += length
        return length


def _store(url: str) -> S3Store:
    parts = urlsplit(url)
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    if endpoint.startswith("http:") and not allow_http:
        raise ValueError("AWS_ENDPOINT_URL is not https: set AWS_ALLOW_HTTP=true to allow http")
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config={"checksum_algorithm": "SHA256"},
        client_options={**CLIENT, "allow_http": allow_http},
        retry_config=RETRY,
    )


def _parts(file: BinaryIO, sha256: str) -> Iterator[bytes]:
    """Yield the parts of the file; raise ArtifactCorrupt at the end if the hash differs, which aborts the upload."""
    digest = hashlib.sha256()
    while content := file.read(PART_BYTES):
        digest.update(content)
        yield content
    _verify(digest.hexdigest(), sha256)


def _check_size(source: BinaryIO, size: int | None, folder: Path) -> None:
    """Raise ArtifactCorrupt if the object has another size, OSError (ENOSPC) if it does not fit on the disk."""
    actual = source.seek(0, os.SEEK_END)
    source.seek(0)
    if size not in (None, actual):
        raise ArtifactCorrupt(f"The file has {actual} bytes instead of {size}.")
    if actual > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _verify(actual: str, expected: str) -> None:
    if actual != expected:
        raise ArtifactCorrupt(f"The SHA-256 of the file is {actual[:12]}..., expected {expected[:12]}...")


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Raise the storage's errors as ArtifactsUnavailable, with status and code only: the rest may contain secrets."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise ArtifactsUnavailable(f"{name} {_describe(str(error))}") from None


def _describe(error: str) -> str:
    status, code, kind = (pattern.search(error) for pattern in (_STATUS, _CODE, _KIND))
    if status:
        return f"answers {status[1]} {code[1] if code else ''}".strip()
    return f"does not answer ({kind[1]})" if kind else "does not answer"
