"""A trainer's output is data: escaped, cut short, and never more of it than somebody could read."""

import re
import time
from collections import deque

from frs.events import Log

LINES_PER_SECOND = 200
TAIL = 50
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class Output:
    """Turns lines of output into log events and remembers the last ones."""

    def __init__(self) -> None:
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._second = 0
        self._lines = 0
        """In this second."""

    @property
    def tail(self) -> str:
        return "\n".join(self._tail)

    def take(self, line: bytes) -> list[Log]:
        text = escape_control(line.decode(errors="replace").rstrip())
        if not text:
            return []
        self._tail.append(text)
        logs = self._next_second() if int(time.monotonic()) != self._second else []
        self._lines += 1
        return [*logs, Log(message=text)] if self._lines <= LINES_PER_SECOND else logs

    def end(self) -> list[Log]:
        """What is still to be said when there is no more output."""
        too_many = self._lines - LINES_PER_SECOND
        return [Log(level="warning", message=f"{too_many} lines of output left out.")] if too_many > 0 else []

    def _next_second(self) -> list[Log]:
        logs = self.end()
        self._second, self._lines = int(time.monotonic()), 0
        return logs


def escape_control(text: str) -> str:
    """Without control characters, which could forge lines or drive a terminal; tabs stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
