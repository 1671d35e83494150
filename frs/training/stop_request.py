"""A request to stop training, made by a signal or a file and checked between steps."""

import signal
from pathlib import Path
from typing import Literal

StopReason = Literal["interrupted", "stopped_early", "time_limit", "no_improvement"]
"""Why training ends before its last step."""
STOP_FILE = "stop-requested"
"""Name of a file in the work folder that requests to stop at the next step, evaluate, and succeed.

A signal is not used for this: it would kill a trainer whose handler is not installed yet.
"""


class Interrupted(Exception):
    """Training stopped at a step on request; a checkpoint of that step is written."""


class StopRequest:
    """The sources of a stop request: signals, and the file `STOP_FILE` in `workdir`."""

    def __init__(self, workdir: Path | None = None) -> None:
        self.requested = False
        """Whether an interruption was requested."""
        self.file = workdir / STOP_FILE if workdir else None

    def on_signals(self) -> "StopRequest":
        """Turn SIGTERM and SIGINT into requests, including signals that were blocked until now, and return self.

        A second SIGINT raises KeyboardInterrupt as usual.
        """
        signal.signal(signal.SIGTERM, lambda *_: self.request())
        signal.signal(signal.SIGINT, lambda *_: self._request_once())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        return self

    def request(self) -> None:
        """Request an interruption: training ends at the next step with a checkpoint."""
        self.requested = True

    @property
    def reason(self) -> StopReason | None:
        """Reason to stop now; None to continue. An interruption has precedence."""
        if self.requested:
            return "interrupted"
        if self.file is not None and self.file.exists():
            return "stopped_early"
        return None

    def _request_once(self) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.request()
