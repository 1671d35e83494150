"""`make docs`: run every `$ ` command of docs/api.md and docs/export.md and update its output.

Needs curl and jq. The commands of a page run against a temporary service and share one shell; `$U` is the URL of the
service, `$K` the file with curl's key header.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cli.demo import LOOPBACK, free_port
from cli.up import LocalService
from frs.dataset.shapes.drawing import draw_dataset

PAGES = [Path(__file__).with_name(name) for name in ("api.md", "export.md")]
FENCE = re.compile(r"```console\n(.*?)```", re.DOTALL)
END = "--- end of output ---"


def main() -> None:
    for page in [path for path in PAGES if path.name in (sys.argv[1:] or [path.name])]:
        refresh(page)


def refresh(page: Path) -> None:
    """Run the commands of a page on a new service."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_dataset(data / "datasets" / "shapes", train=60, val=20, size=96)
        with LocalService(data, LOOPBACK, free_port(), None, None) as service:
            text = page.read_text()
            with Shell(service, Path(folder)) as shell:
                blocks = [shell.run_block(match[1]) for match in FENCE.finditer(text)]
    new_blocks = iter(blocks)
    page.write_text(FENCE.sub(lambda _: f"```console\n{next(new_blocks)}```", text))


class Shell:
    """One bash process for all blocks, so that variables persist."""

    def __init__(self, service: LocalService, folder: Path) -> None:
        key = (service.data / "api-key").read_text().strip()
        (folder / "key").write_text(f"Authorization: Bearer {key}\n")
        variables = {"U": service.url, "K": "@key", "FRS_DATA": str(service.data), "COLUMNS": "120"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.key, self.url = key, service.url
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=os.environ | variables | {"PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def run_block(self, text: str) -> str:
        return "".join(f"$ {command}\n{self.run(command)}" for command in commands(text))

    def run(self, command: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(f"$ {command}", file=sys.stderr)
        self.process.stdin.write(f"{command}\necho; echo '{END}'\n")
        self.process.stdin.flush()
        output = "".join(iter(self.process.stdout.readline, f"{END}\n")).rstrip("\n")
        redacted = output.replace(self.key, "frs_...").replace(self.url, "http://localhost:8000")
        return redacted + "\n" if redacted else ""


def commands(block: str) -> Iterator[str]:
    """Yield each command after `$ `, with its continuation lines (backslash, open quote or here-document)."""
    lines = iter(block.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while is_open(command):
                command += "\n" + next(lines)
            yield command


def is_open(command: str) -> bool:
    here_document = "<<" in command and not command.endswith("\nEOF")
    return here_document or command.endswith("\\") or command.count("'") % 2 == 1


if __name__ == "__main__":
    main()
