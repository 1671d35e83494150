"""Isolation of the current process before it reads untrusted data: no network, no new privileges, no core dumps.

Isolation is best effort. If the kernel does not allow a part of it, the process continues and `Jail` gives the reason:
isolation is a second line of defence, because untrusted files are only read as data.
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
"""Environment variable; `1` makes a process isolate itself at startup."""
NETWORK = "FRS_TRAINER_NETWORK"
"""Environment variable; `1` if the operator allows trainers to use the network."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CAPABILITIES = _CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _IPC_LOCK, _SYS_NICE = 0, 1, 2, 3, 14, 23
"""Capabilities that a root process keeps, to read and write files and to pin memory; it cannot escape with them."""
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True)
class Jail:
    """Result of isolating the process."""

    network: bool
    """Whether the process can still reach a network beyond its own loopback interface."""
    reason: str = ""
    """Reason why it can."""

    def __str__(self) -> str:
        if not self.network:
            return "The trainer runs without network."
        return f"The trainer can reach the network: {self.reason}"


def isolate(network: bool = False) -> Jail:
    """Isolate this process and return the result; with `network=True`, keep its network.

    Core dumps and new privileges are disabled, capabilities are dropped, and the process moves to an empty network
    namespace. Process ids, files and /dev/shm stay shared. Call it while the process has one thread, so before numpy
    and torch are imported. The call may clear the parent-death signal, so call `die_with_parent` after it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return Jail(True, f"{sys.platform} has no network namespaces.")
    jail = Jail(True, "the operator allows it.") if network else _leave_network()
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    return jail


def isolate_if_requested(environment: Mapping[str, str] = os.environ) -> Jail | None:
    """Isolate this process if the variable FRS_JAIL is `1`; otherwise return None."""
    return isolate(network=environment.get(NETWORK) == "1") if environment.get(JAIL) == "1" else None


def restart_isolated() -> NoReturn:
    """Replace this process by the same command, isolated from its start and without network.

    The operator's permission for trainers to use the network does not apply to it.
    """
    environment = {name: value for name, value in os.environ.items() if name != NETWORK}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environment, JAIL: "1"})


def _leave_network() -> Jail:
    reason = _enter_namespace()
    if reason:
        return Jail(True, f"this kernel does not allow isolation from it: {reason}.")
    _enable_loopback()
    return Jail(False)


def _enter_namespace() -> str:
    """Move to a new network namespace, for which any user but root needs a new user namespace.

    Returns the reason of a failure, or an empty string.
    """
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        return "the process has threads already"
    error = _call("unshare", _CLONE_NEWNET)
    if error != errno.EPERM or os.geteuid() == 0:
        return os.strerror(error) if error else ""
    user, group = os.geteuid(), os.getegid()
    if error := _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET):
        return os.strerror(error)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:  # the user appears as nobody; access to files still follows the real user
        pass
    return ""


def _enable_loopback() -> None:
    """Bring up the loopback interface; if that fails, the processes of a multi-process job fail to connect."""
    request = struct.pack("16sh14x", b"lo", 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            response = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
            flags = struct.unpack("16sh14x", response)[1] | _IFF_UP
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))
    except OSError:
        return


def _drop_capabilities() -> None:
    """Drop all capabilities but `_CAPABILITIES`.

    The dropped ones include those for entering the original namespace and for reading the worker's memory.
    """
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    current = ctypes.create_string_buffer(24)
    if _call("capget", header, current):
        return
    for number in range(_read_last_capability() + 1):
        if number not in _CAPABILITIES:
            _call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    mask = sum(1 << number for number in _CAPABILITIES)
    effective, permitted, _, *_ = struct.unpack("6I", current.raw)
    _call("capset", header, struct.pack("6I", effective & mask, permitted & mask, 0, 0, 0, 0))


def _read_last_capability() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return 63


def _call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Call a libc function and return its errno, 0 on success."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return errno.ENOSYS
    return ctypes.get_errno() if function(*arguments) < 0 else 0
