"""Resource limits for a process that reads an untrusted file: memory, CPU time, file size and one writable folder."""

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
"""All file access rights that each version of the kernel's Landlock supports."""
SPARE_SECONDS = 5
"""CPU seconds between CpuTimeExceeded and the kernel's SIGKILL."""
_LINUX = sys.platform.startswith("linux")


class CpuTimeExceeded(Exception):
    """The process has used up its CPU time."""


def limit_resources(*, memory: int, seconds: int, file_bytes: int, files: int = 256) -> None:
    """Limit the resources of this process from now on.

    It may use `memory` more bytes of address space and `seconds` more of CPU time, write files of up to `file_bytes`
    bytes and open `files` files; forking is disabled. When the CPU time is used up, CpuTimeExceeded is raised in the
    main thread. Call it after all imports, because libraries map gigabytes.
    """
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _LINUX else 0
    used_seconds = int(time.process_time()) + 1
    signal.signal(signal.SIGXCPU, _raise_cpu_time_exceeded)
    if _LINUX:
        _lower_limit(resource.RLIMIT_AS, mapped + memory)
    _lower_limit(resource.RLIMIT_CPU, used_seconds + seconds, used_seconds + seconds + SPARE_SECONDS)
    _lower_limit(resource.RLIMIT_FSIZE, file_bytes)
    _lower_limit(resource.RLIMIT_NOFILE, files)
    _lower_limit(resource.RLIMIT_NPROC, 0)


def write_only_below(folder: Path) -> bool:
    """Restrict writing to `folder` with Landlock, and return whether the kernel supports that.

    Outside the folder, no file or folder can be created, written or removed. No program can be executed anywhere.
    """
    if not _LINUX:
        return False
    version = _syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    all_rights = _RIGHTS_BY_VERSION[min(version, max(_RIGHTS_BY_VERSION))]
    handled = all_rights & ~(_READ_FILE | _READ_DIR)
    ruleset = _syscall(_LANDLOCK_CREATE, struct.pack("Q", handled), 8, 0)
    if ruleset < 0:
        return False
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", handled & ~_EXECUTE, descriptor)
        status = _syscall(_LANDLOCK_ADD, ruleset, _RULE_PATH_BENEATH, rule, 0)
        return status == 0 and _syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(descriptor)
        os.close(ruleset)


def _raise_cpu_time_exceeded(*_: int | FrameType | None) -> None:
    raise CpuTimeExceeded


def _lower_limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, but never above the current hard limit."""
    ceiling = resource.getrlimit(kind)[1]
    limits = [soft, soft if hard is None else hard]
    if ceiling != resource.RLIM_INFINITY:
        limits = [min(value, ceiling) for value in limits]
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (limits[0], limits[1]))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    function = ctypes.CDLL(None, use_errno=True).syscall
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = function(ctypes.c_long(number), *converted)
    return -errno.ENOSYS if result < 0 and ctypes.get_errno() == errno.ENOSYS else int(result)
