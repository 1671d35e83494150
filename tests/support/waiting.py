"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 20, details: Callable[[], object] = lambda: "") -> T:
    """Wait until the condition is true and return its value. Raises AssertionError with `details` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timeout after {seconds:.0f} s {details()}"
        time.sleep(0.05)
    return value


def alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
