"""Pauses, and work that blocks, for both kinds of client: the names without `a_` are those of the sync one."""

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def a_sleep(seconds: float) -> None:
    """Suspend the task."""
    await asyncio.sleep(seconds)


async def a_run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `function(...)`, computed in a thread, so that other tasks continue."""
    return await asyncio.to_thread(function, *args, **kwargs)


def sleep(seconds: float) -> None:
    """Suspend the thread."""
    time.sleep(seconds)


def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `function(...)`."""
    return function(*args, **kwargs)
