"""`frs watch` on the events of a job, without a service."""

import io
from typing import Any

from rich.console import Console

from cli.watching import follow
from frs_client.sse import StreamEvent

CANCELLED = {
    "is_terminal": True,
    "status": "cancelled",
    "phase": None,
    "status_reason": None,
    "end_reason": "cancelled_by_user",
    "error": None,
}


class RecordedClient:
    """Answers like a service whose job was cancelled while it ran, after these events."""

    def __init__(self, *recorded: StreamEvent) -> None:
        self.recorded = recorded

    def get_again(self, path: str, **_: Any) -> Any:
        return {"next_since": 2} if path.endswith("/metrics") else CANCELLED

    def each(self, path: str, **_: Any) -> Any:
        return iter(())

    def events(self, job_id: str, since: int) -> Any:
        yield from self.recorded


def watch(*recorded: StreamEvent) -> str:
    """Follow a job with these events, and return what is printed."""
    console = Console(file=io.StringIO(), width=80)
    client: Any = RecordedClient(*recorded)
    follow(client, "job_1", console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_watch_prints_who_requested_a_cancel() -> None:
    assert "Cancel requested by alice." in watch(StreamEvent("cancel_requested", {"by": "alice"}, 3))


def test_events_of_a_later_version_are_shown_as_far_as_they_are_known() -> None:
    scores = {"metrics": {"bbox_mAP": 0.25}, "images": 2, "detections": 2}
    output = watch(
        StreamEvent("progress", {"step": 1, "steps": 9, "epoch": 1, "epochs": 1, "fraction": 0.1, "new": 1}, None),
        StreamEvent("phase", {"phase": "Phase 2", "new": 1}, 3),
        StreamEvent("phase", {}, 4),
        StreamEvent("metric", {"step": 1, "epoch": 1, "values": {"New/Metric": 1.0}, "new": 1}, 5),
        StreamEvent("evaluation", {"role": "assistant", "step": 1, "epoch": 1, "last": True} | scores, 6),
        StreamEvent("evaluation", {"role": "student", "step": 1, "epoch": 1, "last": True, "new": 1} | scores, 7),
        StreamEvent("unknown", {}, 8),
    )
    assert output.count("mAP") == 1
