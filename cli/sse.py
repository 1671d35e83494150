"""Server-sent events as a client reads them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class StreamEvent(NamedTuple):
    type: str
    data: dict[str, Any]
    id: int | None
    """Its number; what has none is told again to whoever comes back."""


def parse(lines: Iterable[str]) -> Iterator[StreamEvent]:
    """Of the stream's lines; an event that broke off in its middle is none."""
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
