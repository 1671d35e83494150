"""Write client/frs_client/sync, the synchronous client, from the asynchronous one in client/frs_client/aio.

Only names differ: `async` and `await` are left out, and `RENAMED` has the others. With `--check`, only fail if a file
is not what this script would write.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "client" / "frs_client"
HEAD = "# Written by `make client` from {source}: change that file.\n"
RENAMED = {
    "AsyncIterator": "Iterator",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "a_run": "run",
    "a_sleep": "sleep",
    "aclose": "close",
    "aio": "sync",
    "aiter_lines": "iter_lines",
    "aiter_raw": "iter_raw",
    "aread": "read",
}
_PATTERN = re.compile(r"\basync (?=def|for|with)|\bawait |\bAsync(?=[A-Z])|\b(?:" + "|".join(RENAMED) + r")\b")


def main() -> None:
    files = {PACKAGE / "sync" / source.name: translate(source) for source in sorted((PACKAGE / "aio").glob("*.py"))}
    if sys.argv[1:] == ["--check"]:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"client/frs_client/sync is not up to date: {', '.join(stale)}. Run `make client`." if stale else 0)
    for path, text in files.items():
        path.write_text(text)


def translate(source: Path) -> str:
    """Return the synchronous form of a file, linted and formatted."""
    text = _PATTERN.sub(lambda match: RENAMED.get(match[0], ""), source.read_text())
    head = HEAD.format(source=f"aio/{source.name}")
    for command in (["check", "--fix-only", "--unsafe-fixes"], ["format"]):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--quiet",
            "--stdin-filename",
            PACKAGE / "sync" / source.name,
            "-",
        ]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return head + text


if __name__ == "__main__":
    main()
