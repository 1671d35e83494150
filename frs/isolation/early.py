"""Import this before anything that starts threads, as numpy does: only a process of one thread can leave its network."""

import os

from frs.isolation import jail

JAIL = jail.isolate_if_requested()
"""What the worker's trainer got; None for a process that was not told to lock itself in."""
os.environ.pop(jail.JAIL, None)  # children are born inside, and several of them must share one loopback
