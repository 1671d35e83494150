"""An audit hook that writes down what a process does to the world: what it opens, starts, connects to and imports."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTS = (
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
CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
FILES = (
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
OURS = (CODE, Path(sys.prefix), Path(sys.base_prefix), Path("/usr/share/zoneinfo"), Path("/dev/null"), Path("/usr/lib"))  # fmt: skip


class AuditHook:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self._roots: tuple[Path, ...] | None = None
        self._modules: frozenset[str] = frozenset()
        self._bystanders: frozenset[int | None] = frozenset()
        sys.addaudithook(self._hear)

    def ignore_who_is_here(self) -> None:
        """Threads that other tests have left: what they do is not what is watched for."""
        others = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
        self._bystanders = frozenset(thread.ident for thread in others)

    @contextmanager
    def watching(self, roots: Sequence[Path]) -> Iterator[list[str]]:
        """What happens that should not: files outside `roots` and of the program's own code are among it."""
        self.seen, self._modules = [], frozenset(sys.modules)
        self._roots = (*OURS, *(root.resolve() for root in roots))
        try:
            yield self.seen
        finally:
            self._roots = None

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._roots is None or threading.get_ident() in self._bystanders:
            return
        roots, self._roots = self._roots, None  # what follows is ours
        try:
            if (
                event in STARTS
                or event in CONNECTS
                or event in FILES
                and isinstance(args[0], str | bytes)
                and not _inside(args[0], roots)
            ):
                self.seen.append(f"{event} {args!r}"[:300])
            elif (
                event == "exec"
                and getattr(args[0], "co_filename", "") == "<string>"
                and "eval" in str(args[0].co_names)
            ):
                self.seen.append(f"exec {args[0]!r}"[:300])
            elif event == "import" and args[0].partition(".")[0] in ("antigravity", "this", "canary_module"):
                self.seen.append(f"import {args[0]}")
        finally:
            self._roots = roots


def _inside(name: str | bytes, roots: Sequence[Path]) -> bool:
    try:
        path = Path(name if isinstance(name, str) else name.decode(errors="replace")).resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return any(path.is_relative_to(root) for root in roots)
