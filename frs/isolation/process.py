"""Protection between parent and child processes: a child ends with its parent, and cannot read its memory."""

import ctypes
import os
import signal
import sys

PARENT = "FRS_PARENT_PID"
"""Environment variable: process id of the parent, set for a child that must not outlive it."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def die_with_parent() -> None:
    """Make the kernel kill this process when the thread that started it ends. Linux only; elsewhere it does nothing.

    Raises SystemExit if the parent has ended before the call.
    """
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit(1)


def hide_memory() -> None:
    """Prevent other processes of this user from reading this process's memory or environment and from tracing it.

    Linux only. Root can still do both.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
