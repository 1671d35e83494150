"""Measure available memory and the peak memory of a function call."""

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_CGROUP_2 = Path("/sys/fs/cgroup")
_CGROUP_1 = Path("/sys/fs/cgroup/memory")
_RESET_PEAK = "5"
"""Value for `/proc/self/clear_refs` that resets the process's peak to its current resident size, see proc(5)."""


def available_bytes() -> int | None:
    """Return the bytes that this process can still allocate; None if unknown.

    This is the lower of the machine's and the container's free memory.
    """
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    limits = [
        _bytes_below_limit(_CGROUP_2, "memory.max", "memory.current"),
        _bytes_below_limit(_CGROUP_1, "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ]
    amounts = [amount for amount in [free, *limits] if amount is not None]
    return min(amounts) if amounts else None


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    _trim_heap()
    return _field(_PROCESS / "status", "VmRSS:") or _lifetime_peak()


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Run `work` and return its peak memory in bytes: of torch's tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    _trim_heap()
    _reset_peak()
    work()
    return _field(_PROCESS / "status", "VmHWM:") or _lifetime_peak()


def _trim_heap() -> None:
    """Return freed memory to the system: memory kept for reuse would hide how much `work` takes."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc only
        libc.malloc_trim(0)


def _reset_peak() -> None:
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return  # the peak then includes everything since the process started


def _lifetime_peak() -> int:
    """Return the peak memory of this process since its start, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _field(path: Path, name: str) -> int | None:
    """Return the value of a line such as `VmHWM:  1234 kB` in bytes; None if there is no such line."""
    for line in _read(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def _bytes_below_limit(cgroup: Path, limit_name: str, usage_name: str) -> int | None:
    """Return a container's memory limit less its usage in bytes, without its page cache; None if it has no limit."""
    limit, usage = _read(cgroup / limit_name).strip(), _read(cgroup / usage_name).strip()
    if not limit.isdigit() or not usage.isdigit():
        return None  # "max", or no such file
    counters = dict(line.split() for line in _read(cgroup / "memory.stat").splitlines())
    cached = int(counters.get("inactive_file", counters.get("total_inactive_file", 0)))
    return int(limit) - int(usage) + cached


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
