"""LineSplitter out of pipes, whatever comes through them and however fast."""

import os
import selectors
from io import FileIO
from typing import Literal, NamedTuple, cast

CHUNK = 1 << 16
Source = Literal["events", "output"]


class Line(NamedTuple):
    source: Source
    data: bytes


class LineSplitter:
    """Cuts a stream of bytes into lines, and a line longer than `cap` short: memory is bounded."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        *complete, rest = data.split(b"\n")
        lines = []
        for part in complete:
            lines.append((self._rest + part)[: self.cap])
            self._rest = b""
        self._rest = (self._rest + rest)[: self.cap]
        return lines

    def end(self) -> list[bytes]:
        """What came after the last line's end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class PipeReader:
    """Several pipes read at once, none of them able to block the others."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, source: Source, pipe: FileIO, cap: int) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, (source, LineSplitter(cap)))

    @property
    def open(self) -> bool:
        """Whether anybody still holds another end."""
        return bool(self._selector.get_map())

    def read(self, timeout: float) -> list[Line]:
        """What comes within `timeout` seconds; returns as soon as something does."""
        found = []
        for key, _ in self._selector.select(timeout):
            source, lines = key.data
            found += [Line(source, data) for data in self._read(cast(FileIO, key.fileobj), lines)]
        return found

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._drop(cast(FileIO, key.fileobj))
        self._selector.close()

    def _read(self, pipe: FileIO, lines: LineSplitter) -> list[bytes]:
        data = pipe.read(CHUNK)
        if data is None:
            return []
        if data:
            return lines.feed(data)
        self._drop(pipe)
        return lines.end()

    def _drop(self, pipe: FileIO) -> None:
        self._selector.unregister(pipe)
        pipe.close()
