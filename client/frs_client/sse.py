"""Parse server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class StreamEvent(NamedTuple):
    """One event of a job's stream."""

    type: str
    """`status`, `phase`, `progress`, `metric`, `evaluation`, `log`, ...: the stream's `event` field."""
    data: dict[str, Any]
    """Decoded JSON of the `data` field."""
    id: int | None
    """Event number. Events without a number are sent again after each reconnect."""


class EventParser:
    """Assembles events from the lines of a stream. An event without its terminating blank line is dropped."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> StreamEvent | None:
        """Add a line and return the event that it completes, None if it completes none."""
        name, _, value = line.partition(":")
        if name:
            self._fields[name] = value.removeprefix(" ")
            return None
        if line:  # a comment
            return None
        fields, self._fields = self._fields, {}
        if "event" not in fields:
            return None
        number = fields.get("id")
        return StreamEvent(fields["event"], json.loads(fields["data"]), int(number) if number else None)


def parse(lines: Iterable[str]) -> Iterator[StreamEvent]:
    """Yield the events in the stream's lines."""
    parser = EventParser()
    for line in lines:
        event = parser.feed(line)
        if event is not None:
            yield event
