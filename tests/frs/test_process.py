import ctypes
import os
import signal
import subprocess
from contextlib import contextmanager

import pytest

from frs.isolation.process import hide_memory

OTHER_USER = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
"""User of the reading process; root could read everything."""
PR_SET_DUMPABLE = 4


@contextmanager
def forked_process(hides):
    """Yield the pid of a fork of this process, which runs as the user that will read it."""
    ready, signal_ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        if OTHER_USER:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # changing the user cleared it
        if hides:
            hide_memory()
        os.write(signal_ready, b"1")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(signal_ready)


@pytest.mark.parametrize("hides", [False, True])
def test_another_process_of_the_same_user_cannot_read_hidden_memory(hides):
    with forked_process(hides) as pid:
        process = subprocess.run(["cat", f"/proc/{pid}/environ"], capture_output=True, check=False, **OTHER_USER)
    assert (b"PATH=" in process.stdout) == (not hides)
