"""Lines read from several pipes at once, in bounded memory."""

import os
import selectors
from io import FileIO
from typing import Literal, NamedTuple, cast

CHUNK = 1 << 16
"""Bytes read from a pipe at a time."""
Source = Literal["events", "output"]


class Line(NamedTuple):
    """One line, without its line end, and the pipe that it was read from."""

    source: Source
    data: bytes


class LineSplitter:
    """Splits a stream of bytes into lines. Lines longer than `cap` bytes are truncated, so memory is bounded."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._partial = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes."""
        *complete, partial = data.split(b"\n")
        lines = []
        for part in complete:
            lines.append((self._partial + part)[: self.cap])
            self._partial = b""
        self._partial = (self._partial + partial)[: self.cap]
        return lines

    def flush(self) -> list[bytes]:
        """Return the bytes after the last line end as a line, if there are any."""
        partial, self._partial = self._partial, b""
        return [partial] if partial else []


class PipeReader:
    """Reads several non-blocking pipes. Owns the pipes added to it and closes them. One thread may use it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, source: Source, pipe: FileIO, cap: int) -> None:
        """Read this pipe too; its lines are truncated to `cap` bytes."""
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, (source, LineSplitter(cap)))

    @property
    def is_open(self) -> bool:
        """Whether a process still holds the other end of a pipe."""
        return bool(self._selector.get_map())

    def read(self, timeout: float) -> list[Line]:
        """Return the lines completed by the next data; an empty list if none comes within `timeout` seconds."""
        lines = []
        for key, _ in self._selector.select(timeout):
            source, splitter = key.data
            lines += [Line(source, data) for data in self._read(cast(FileIO, key.fileobj), splitter)]
        return lines

    def close(self) -> None:
        """Close all pipes."""
        for key in list(self._selector.get_map().values()):
            self._remove(cast(FileIO, key.fileobj))
        self._selector.close()

    def _read(self, pipe: FileIO, splitter: LineSplitter) -> list[bytes]:
        data = pipe.read(CHUNK)
        if data is None:
            return []
        if data:
            return splitter.feed(data)
        self._remove(pipe)
        return splitter.flush()

    def _remove(self, pipe: FileIO) -> None:
        self._selector.unregister(pipe)
        pipe.close()
