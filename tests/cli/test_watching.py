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
    """Answers like a service whose job was cancelled by alice while it ran."""

    def get_again(self, path: str, **_: Any) -> Any:
        return {"next_since": 2} if path.endswith("/metrics") else CANCELLED

    def each(self, path: str, **_: Any) -> Any:
        return iter(())

    def events(self, job_id: str, since: int) -> Any:
        yield StreamEvent("cancel_requested", {"by": "alice"}, 3)


def test_watch_prints_who_requested_a_cancel() -> None:
    console = Console(file=io.StringIO(), width=80)
    client: Any = RecordedClient()
    follow(client, "job_1", console)
    assert "Cancel requested by alice." in console.file.getvalue()  # type: ignore[attr-defined]
