import ctypes
import os
import signal
import subprocess
from contextlib import contextmanager

import pytest

from frs.isolation.process import hide_memory

NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
"""Root reads everything."""
PR_SET_DUMPABLE = 4


@contextmanager
def process_of_nobody(hides):
    """A fork of this one, under the user that will read it."""
    ready, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        if NOBODY:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # changing the user has cleared it
        if hides:
            hide_memory()
        os.write(says, b"1")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(says)


@pytest.mark.parametrize("hides", [False, True])
def test_what_is_hidden_no_other_process_of_the_same_user_reads(hides):
    with process_of_nobody(hides) as pid:
        seen = subprocess.run(["cat", f"/proc/{pid}/environ"], capture_output=True, check=False, **NOBODY)
    assert (b"PATH=" in seen.stdout) == (not hides)
