"""Processes among their children: a child ends with its parent, and cannot read what the parent knows."""

import ctypes
import os
import signal
import sys

PARENT = "FRS_PARENT_PID"
"""Set by whoever starts a child that must not outlive it."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the thread that started it ends. Nothing happens but on Linux.

    The parent may have gone before the request: then its pid is no longer ours to wait for, and we end at once.
    """
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit(1)


def hide_memory() -> None:
    """No other process of this user can read our memory or environment any more, nor trace us. Linux only; root still can."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
