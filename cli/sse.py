"""Parse server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class StreamEvent(NamedTuple):
    """One event of a job's stream."""

    type: str
    """Event type: the stream's `event` field."""
    data: dict[str, Any]
    """Decoded JSON of the `data` field."""
    id: int | None
    """Event number. Events without a number are sent again after each reconnect."""


def parse(lines: Iterable[str]) -> Iterator[StreamEvent]:
    """Yield the events in the stream's lines. An event without its terminating blank line is dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif not line:
            if "event" in fields:
                number = fields.get("id")
                yield StreamEvent(fields["event"], json.loads(fields["data"]), int(number) if number else None)
            fields = {}
