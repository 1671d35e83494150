"""A process locks itself in before it reads what strangers wrote: no network, no new privileges, bounded means.

What this kernel does not allow is left out and said, never an error: the data are still only read as data.
"""

import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

JAIL = "FRS_JAIL"
"""`1` in the environment of a process that is to lock itself in before anything else."""
NETWORK = "FRS_TRAINER_NETWORK"
"""`1` where the operator lets trainers have the network."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CAPABILITIES = _CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _IPC_LOCK, _SYS_NICE = 0, 1, 2, 3, 14, 23
"""What a trainer run by root keeps, to read and write files and to pin memory; without the others it cannot leave."""
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True)
class Jail:
    """What could be had of it."""

    network: bool
    """Whether the process still reaches a network beyond its own loopback."""
    reason: str = ""
    """Why it does."""

    def __str__(self) -> str:
        if not self.network:
            return "The trainer runs without network."
        return f"The trainer could reach a network: {self.reason}"


def isolate(network: bool = False) -> Jail:
    """Call it while there is one thread, before numpy and torch start more. Pids, files and /dev/shm stay as they are.

    It may clear the parent-death signal: `die_with_parent` comes after it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return Jail(True, f"{sys.platform} has no network namespaces.")
    jail = Jail(True, "the operator allows it.") if network else _leave_the_network()
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    return jail


def isolate_if_requested(environment: Mapping[str, str] = os.environ) -> Jail | None:
    return isolate(network=environment.get(NETWORK) == "1") if environment.get(JAIL) == "1" else None


def restart_isolated() -> NoReturn:
    """This very command, in a jail from its first moment on and whatever the operator allows trainers."""
    allowed = {name: value for name, value in os.environ.items() if name != NETWORK}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**allowed, JAIL: "1"})


def _leave_the_network() -> Jail:
    reason = _unshare()
    if reason:
        return Jail(True, f"this kernel does not allow to leave it: {reason}.")
    _raise_loopback()
    return Jail(False)


def _unshare() -> str:
    """Into a network namespace of its own, which takes a user namespace unless we are root. Says why not."""
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        return "the process has threads already"
    number = _call("unshare", _CLONE_NEWNET)
    if number != errno.EPERM or os.geteuid() == 0:
        return os.strerror(number) if number else ""
    user, group = os.geteuid(), os.getegid()
    if number := _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET):
        return os.strerror(number)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:  # it is nobody's then, in a namespace without network: files are judged by who we are all the same
        pass
    return ""


def _raise_loopback() -> None:
    """Where it stays down, processes of one job cannot meet, and that is what the job then says."""
    request = struct.pack("16sh14x", b"lo", 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
            flags = struct.unpack("16sh14x", answer)[1] | _IFF_UP
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))
    except OSError:
        return


def _drop_capabilities() -> None:
    """Among others the one to go back into the first namespace, and the one to look into the worker's memory."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    if _call("capget", header, held):
        return
    for number in range(_last_capability() + 1):
        if number not in _CAPABILITIES:
            _call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    kept = sum(1 << number for number in _CAPABILITIES)
    effective, permitted, _, *_ = struct.unpack("6I", held.raw)
    _call("capset", header, struct.pack("6I", effective & kept, permitted & kept, 0, 0, 0, 0))


def _last_capability() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return 63


def _call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """0, or the error's number."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return errno.ENOSYS
    return ctypes.get_errno() if function(*arguments) < 0 else 0
