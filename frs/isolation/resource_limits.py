"""What a process that reads a stranger's file may take at most: memory, time, disk, and one folder to write into."""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_RULE_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""Of the kernel's Landlock: every kind of access to files that it knows."""
SPARE_SECONDS = 5
"""From the end of the time to the end of the process, should it not take the hint."""


class CpuTimeExceeded(Exception):
    """The process has used up its processor time."""


def limit_resources(*, memory: int, seconds: int, file_bytes: int, files: int = 256) -> None:
    """From here on: `memory` more bytes, `seconds` more of the processor, files of so many bytes, nothing forked.

    Raises CpuTimeExceeded in the main thread when the time is up. Call it once everything is imported: libraries map gigabytes.
    """
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _LINUX else 0
    spent = int(time.process_time()) + 1
    signal.signal(signal.SIGXCPU, _time_is_up)
    if _LINUX:
        _lower(resource.RLIMIT_AS, mapped + memory)
    _lower(resource.RLIMIT_CPU, spent + seconds, spent + seconds + SPARE_SECONDS)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, files)
    _lower(resource.RLIMIT_NPROC, 0)


def write_only_below(folder: Path) -> bool:
    """No other file or folder can be made, written or removed, and no program started. False where the kernel has no Landlock."""
    if not _LINUX:
        return False
    version = _syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    everything = _RIGHTS_BY_VERSION[min(version, max(_RIGHTS_BY_VERSION))]
    handled = everything & ~(_READ_FILE | _READ_DIR)
    ruleset = _syscall(_LANDLOCK_CREATE, struct.pack("Q", handled), 8, 0)
    if ruleset < 0:
        return False
    opened = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", handled & ~_EXECUTE, opened)
        added = _syscall(_LANDLOCK_ADD, ruleset, _RULE_PATH_BENEATH, rule, 0)
        return added == 0 and _syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(opened)
        os.close(ruleset)


_LINUX = sys.platform.startswith("linux")


def _time_is_up(*_: int | FrameType | None) -> None:
    raise CpuTimeExceeded


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    """Never above what already holds."""
    ceiling = resource.getrlimit(kind)[1]
    wanted = [soft, soft if hard is None else hard]
    if ceiling != resource.RLIM_INFINITY:
        wanted = [min(value, ceiling) for value in wanted]
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (wanted[0], wanted[1]))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    function = ctypes.CDLL(None, use_errno=True).syscall
    given = [ctypes.c_long(part) if isinstance(part, int) else part for part in arguments]
    result = function(ctypes.c_long(number), *given)
    return -errno.ENOSYS if result < 0 and ctypes.get_errno() == errno.ENOSYS else int(result)
