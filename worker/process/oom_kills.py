"""Whether the kernel has killed something of ours for want of memory."""

from contextlib import suppress
from pathlib import Path

EVENTS = Path("/sys/fs/cgroup/memory.events")
"""Of this container; on a bare host there is none, and nobody is told."""


def oom_kill_count(events: Path = EVENTS) -> int:
    """Processes killed so far."""
    with suppress(OSError, ValueError):
        told = dict(line.split() for line in events.read_text().splitlines())
        return int(told.get("oom_kill", 0))
    return 0
