"""Detection of processes that the kernel has killed because memory ran out."""

from contextlib import suppress
from pathlib import Path

EVENTS = Path("/sys/fs/cgroup/memory.events")
"""Memory events of this container's control group. A bare host has no such file, so no kill is detected there."""


def oom_kill_count(events: Path = EVENTS) -> int:
    """Return the number of processes killed so far; 0 if the file cannot be read."""
    with suppress(OSError, ValueError):
        counters = dict(line.split() for line in events.read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    return 0
