"""A request to end soon, set by a signal, a file or a time limit and looked at between steps."""

import signal
import time
from pathlib import Path
from typing import Literal

StopReason = Literal["interrupted", "stopped_early", "time_limit"]
STOP_FILE = "stop-requested"
"""A file of this name in the work folder: end at the next step, evaluate, and succeed with what was learned.

No signal, for one that comes before its handler is set would kill the trainer.
"""


class Interrupted(Exception):
    """Training stopped at a step because somebody asked; a checkpoint of that step is written."""


class StopRequest:
    def __init__(self, max_minutes: float | None = None, workdir: Path | None = None) -> None:
        self.asked = False
        self.file = workdir / STOP_FILE if workdir else None
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes else None

    def on_signals(self) -> "StopRequest":
        """SIGTERM and SIGINT become requests, those too that were held back until now; a second SIGINT raises
        KeyboardInterrupt as usual.
        """
        signal.signal(signal.SIGTERM, lambda *_: self.ask())
        signal.signal(signal.SIGINT, lambda *_: self._ask_once())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        return self

    def ask(self) -> None:
        self.asked = True

    @property
    def why(self) -> StopReason | None:
        if self.asked:
            return "interrupted"
        if self.file is not None and self.file.exists():
            return "stopped_early"
        if self.deadline is not None and time.monotonic() > self.deadline:
            return "time_limit"
        return None

    def _ask_once(self) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.ask()
