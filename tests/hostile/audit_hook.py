"""An audit hook that records the files, processes, connections and imports of a process."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROCESS_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "os.spawn",
    "subprocess.Popen",
    "pty.spawn",
    "ctypes.dlopen",
)
NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
FILE_EVENTS = (
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.symlink",
    "os.link",
    "shutil.copyfile",
)
CODE = Path(__file__).parents[2]
ALLOWED_ROOTS = (
    CODE,
    Path(sys.prefix),
    Path(sys.base_prefix),
    Path("/usr/share/zoneinfo"),
    Path("/dev/null"),
    Path("/usr/lib"),
)


class AuditHook:
    def __init__(self) -> None:
        self.events: list[str] = []
        self._roots: tuple[Path, ...] | None = None
        self._modules: frozenset[str] = frozenset()
        self._ignored_threads: frozenset[int | None] = frozenset()
        sys.addaudithook(self._record)

    def ignore_current_threads(self) -> None:
        """Ignore the events of the current other threads, which other tests have left running."""
        others = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
        self._ignored_threads = frozenset(thread.ident for thread in others)

    @contextmanager
    def record(self, roots: Sequence[Path]) -> Iterator[list[str]]:
        """Yield the list of recorded events: processes, connections, and files outside `roots` and the code."""
        self.events, self._modules = [], frozenset(sys.modules)
        self._roots = (*ALLOWED_ROOTS, *(root.resolve() for root in roots))
        try:
            yield self.events
        finally:
            self._roots = None

    def _record(self, event: str, args: tuple[Any, ...]) -> None:
        if self._roots is None or threading.get_ident() in self._ignored_threads:
            return
        roots, self._roots = self._roots, None  # no recording while this event is processed
        try:
            if (
                event in PROCESS_EVENTS
                or event in NETWORK_EVENTS
                or event in FILE_EVENTS
                and isinstance(args[0], str | bytes)
                and not _inside(args[0], roots)
            ):
                self.events.append(f"{event} {args!r}"[:300])
            elif (
                event == "exec"
                and getattr(args[0], "co_filename", "") == "<string>"
                and "eval" in str(args[0].co_names)
            ):
                self.events.append(f"exec {args[0]!r}"[:300])
            elif event == "import" and args[0].partition(".")[0] in ("antigravity", "this", "canary_module"):
                self.events.append(f"import {args[0]}")
        finally:
            self._roots = roots


def _inside(name: str | bytes, roots: Sequence[Path]) -> bool:
    try:
        path = Path(name if isinstance(name, str) else name.decode(errors="replace")).resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return any(path.is_relative_to(root) for root in roots)
