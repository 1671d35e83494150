"""How busy the CPUs of this machine are while something is timed. Importing this module needs no torch."""

import os
from pathlib import Path

BUSY = 1.25
"""Load above which a measured time is too long: clearly more threads want to run than there are CPUs."""
LOADAVG = Path("/proc/loadavg")


def cpu_load() -> float | None:
    """Return the number of threads that run or want to now, the calling one among them, per CPU; None if unknown.

    Unlike the averages of `os.getloadavg`, it does not contain what the job itself did in the minutes before.
    """
    try:
        return int(LOADAVG.read_text().split()[3].partition("/")[0]) / (os.cpu_count() or 1)
    except (OSError, ValueError, IndexError):
        return None


def mean_load(samples: list[float | None]) -> float | None:
    """Return the mean of the samples that are known; None if none is."""
    known = [sample for sample in samples if sample is not None]
    return sum(known) / len(known) if known else None


def caveat(load: float | None) -> str:
    """Return what to write behind a time that was measured under that load; empty if it needs no caveat."""
    return " (measured on a busy machine)" if load is not None and load > BUSY else ""
