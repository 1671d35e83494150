"""Isolation at import: isolate this process if its environment requests it.

Import this module before any module that starts threads, such as numpy: only a single-threaded process can leave its
network namespace.
"""

import os

from frs.isolation import jail

JAIL = jail.isolate_if_requested()
"""Result of the isolation; None if the environment does not request one."""
os.environ.pop(jail.JAIL, None)  # child processes inherit the isolation, and those of one job must share a loopback
