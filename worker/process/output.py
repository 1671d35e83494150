"""The output of a trainer as log events: control characters escaped, lines per second limited."""

import re
import time
from collections import deque

from frs.events import Log

LINES_PER_SECOND = 200
"""Lines that become log events in one second; the others are counted and dropped."""
TAIL = 50
"""Last lines that are kept for error messages."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class OutputLog:
    """Converts lines of output to log events and keeps the last ones. Not thread-safe."""

    def __init__(self) -> None:
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._second = 0
        self._lines = 0
        """Lines in the current second."""

    @property
    def tail(self) -> str:
        """The last lines of output, escaped, joined by newlines."""
        return "\n".join(self._tail)

    def add(self, line: bytes) -> list[Log]:
        """Return the log events of a line: at most one for the line and one for dropped lines before it."""
        text = escape_control(line.decode(errors="replace").rstrip())
        if not text:
            return []
        self._tail.append(text)
        logs = self._next_second() if int(time.monotonic()) != self._second else []
        self._lines += 1
        return [*logs, Log(message=text)] if self._lines <= LINES_PER_SECOND else logs

    def flush(self) -> list[Log]:
        """Return the log event that counts the lines dropped in the current second, if there are any."""
        dropped = self._lines - LINES_PER_SECOND
        return [Log(level="warning", message=f"{dropped} lines of output left out.")] if dropped > 0 else []

    def _next_second(self) -> list[Log]:
        logs = self.flush()
        self._second, self._lines = int(time.monotonic()), 0
        return logs


def escape_control(text: str) -> str:
    """Return the text with control characters, which could forge lines or drive a terminal, escaped; tabs stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
