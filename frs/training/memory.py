"""How much memory is free, and how much a piece of work takes at its peak."""

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_CGROUP_2 = Path("/sys/fs/cgroup")
_CGROUP_1 = Path("/sys/fs/cgroup/memory")
_RESET_PEAK = "5"
"""What proc(5) takes in `clear_refs` to set a process's peak to what it holds now."""


def available_bytes() -> int | None:
    """Bytes that this process can still take: the machine's, or its container's if those are fewer. None: nobody tells."""
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    limits = [
        _left(_CGROUP_2 / "memory.max", _CGROUP_2 / "memory.current", _CGROUP_2 / "memory.stat"),
        _left(_CGROUP_1 / "memory.limit_in_bytes", _CGROUP_1 / "memory.usage_in_bytes", _CGROUP_1 / "memory.stat"),
    ]
    known = [value for value in [free, *limits] if value is not None]
    return min(known) if known else None


def resident_bytes() -> int:
    """Bytes that this process holds in memory now."""
    _give_back()
    return _field(_PROCESS / "status", "VmRSS:") or _high_water()


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes held at once while `work` ran: on a GPU torch's tensors, else the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    _give_back()
    _forget_peak()
    work()
    return _field(_PROCESS / "status", "VmHWM:") or _high_water()


def _give_back() -> None:
    """Memory that was freed but kept for reuse would hide how much `work` takes."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc has it
        libc.malloc_trim(0)


def _forget_peak() -> None:
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return  # then the peak is the highest of all that was before, too


def _high_water() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _field(path: Path, name: str) -> int | None:
    """A line such as `VmHWM:  1234 kB`, in bytes."""
    for line in _read(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def _left(limit: Path, used: Path, stat: Path) -> int | None:
    """A container's limit less what it uses, files that are merely cached not counted."""
    most, now = _read(limit).strip(), _read(used).strip()
    if not most.isdigit() or not now.isdigit():
        return None  # "max", or no such file
    counted = dict(line.split() for line in _read(stat).splitlines())
    cached = int(counted.get("inactive_file", counted.get("total_inactive_file", 0)))
    return int(most) - int(now) + cached


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
