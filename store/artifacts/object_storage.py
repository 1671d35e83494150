"""Artifacts in object storage that speaks S3. Its errors become ArtifactsUnavailable, which says no secret.

Retries and time limits are bounded for each request, and a file travels as many: nothing here outlasts a slow link, and
nothing hangs.
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
"""The least that S3 takes; 10,000 of them are 50 GB."""
_PARTS_AT_ONCE = 2
_READ_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 20
CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(seconds=60),
}
"""Of one request. The second bounds a silence, and so an upload of one part."""
RETRY: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=4), "base": 2},
}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND = re.compile(r"kind: (\w{1,32})")


class ArtifactObjects:
    """As `store.artifacts.storage.Artifacts` says."""

    def __init__(self, url: str) -> None:
        """`s3://BUCKET/PREFIX`; everything else is in the environment, as AWS's own tools know it. Raises ValueError."""
        self._name = url
        self._store = _store(url)

    def put(self, source: Path, key: str, sha256: str) -> None:
        """Each part goes with its checksum, and the object appears once the last byte has been hashed."""
        artifact_keys.check(key)
        with source.open("rb") as file:
            parts = _parts(file, sha256)
            with _translate_errors(self._name):
                if os.fstat(file.fileno()).st_size <= PART_BYTES:
                    obstore.put(self._store, key, b"".join(parts), use_multipart=False)
                else:
                    obstore.put(self._store, key, parts, chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
            sent = file.tell()
        kept = self._size(key)
        if kept != sent:
            raise ArtifactsUnavailable(f"{self._name} kept {kept} bytes of {sent}")

    def fetch(
        self, key: str, sha256: str, target: Path, give_up: IsAbandoned = lambda: False, size: int | None = None
    ) -> None:
        part, digest = target.with_name(f".{target.name}.part"), hashlib.sha256()
        try:
            with self.open(key) as source, part.open("wb") as file:
                _check_size(source, size, target.parent)
                while content := source.read(_READ_BYTES):
                    if give_up():
                        raise Abandoned
                    digest.update(content)
                    file.write(content)
            _verify(digest.hexdigest(), sha256)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        artifact_keys.check(key)
        return cast(BinaryIO, io.BufferedReader(_Object(self._store, self._name, key, self._size(key)), _BUFFER_BYTES))

    def delete(self, key: str) -> None:
        artifact_keys.check(key)
        self._delete(key)

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        """Parts of uploads that were never completed are not listed; a rule of the bucket removes them."""
        artifact_keys.check(f"{folder}/any")
        for key in set(self._keys(folder)) - set(keys):
            self._delete(key)  # whatever its name: somebody else may have laid it there

    def _delete(self, key: str) -> None:
        with _translate_errors(self._name):
            obstore.delete(self._store, key)

    def _keys(self, folder: str) -> list[str]:
        with _translate_errors(self._name):
            return [object["path"] for page in obstore.list(self._store, folder) for object in page]

    def _size(self, key: str) -> int:
        """Raises ArtifactNotFound; a bucket that is missing says the same of every object, but not when it is listed."""
        with _translate_errors(self._name):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                self._keys(key)
        raise ArtifactNotFound(f"No artifact {key!r}.")


class _Object(io.RawIOBase):
    """Read range by range, each with its own retries."""

    def __init__(self, store: S3Store, name: str, key: str, size: int) -> None:
        self._store, self._name, self._key = store, name, key
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(0, self._size - self._at))
        if wanted == 0:
            return 0
        with _translate_errors(self._name):
            content = memoryview(obstore.get_range(self._store, self._key, start=self._at, length=wanted))
        if len(content) != wanted:
            raise ArtifactsUnavailable(f"{self._name} gave {len(content)} bytes of {wanted}")
        buffer[:wanted] = content
        self._at += wanted
        return wanted


def _store(url: str) -> S3Store:
    parts = urlsplit(url)
    if parts.netloc != parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            "FRS_ARTIFACTS_URL: s3:// takes BUCKET/PREFIX alone; keys come from AWS_ACCESS_KEY_ID and so on"
        )
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    if endpoint.startswith("http:") and not allow_http:
        raise ValueError("AWS_ENDPOINT_URL is not https: set AWS_ALLOW_HTTP=true if that is meant")
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config={"checksum_algorithm": "SHA256"},
        client_options={**CLIENT, "allow_http": allow_http},
        retry_config=RETRY,
    )


def _parts(file: BinaryIO, sha256: str) -> Iterator[bytes]:
    """Where they do not hash to it, ArtifactCorrupt comes in the place of their end: the upload is given up then."""
    digest = hashlib.sha256()
    while content := file.read(PART_BYTES):
        digest.update(content)
        yield content
    _verify(digest.hexdigest(), sha256)


def _check_size(source: BinaryIO, size: int | None, folder: Path) -> None:
    """Before anything is fetched: what an object says of itself may be wrong. Raises ArtifactCorrupt, OSError: ENOSPC."""
    told = source.seek(0, os.SEEK_END)
    source.seek(0)
    if size not in (None, told):
        raise ArtifactCorrupt(f"The file has {told} bytes of {size}.")
    if told > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _verify(found: str, announced: str) -> None:
    if found != announced:
        raise ArtifactCorrupt(f"The file hashes to {found[:12]}..., announced was {announced[:12]}...")


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Nothing of what the other side said is repeated but its status and code: the rest may name keys."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise ArtifactsUnavailable(f"{name} {_describe(str(error))}") from None


def _describe(error: str) -> str:
    status, code, kind = (pattern.search(error) for pattern in (_STATUS, _CODE, _KIND))
    if status:
        return f"answers {status[1]} {code[1] if code else ''}".strip()
    return f"does not answer ({kind[1]})" if kind else "does not answer"
