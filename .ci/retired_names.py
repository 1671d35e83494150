"""Fail if a retired name of `.ci/retired_names.txt` is an identifier, or a word of prose, in a tracked file."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / ".ci" / "retired_names.txt"
EXEMPT = (
    ".ci/retired_names.txt",
    "CHANGELOG.md",
    "store/db/migrations/versions/",
    "tests/faults/test_faults_old_revision.py",
    "tests/ci/test_docs.py",
    "tests/store/test_initialising.py",
)
"""The list itself, and files that describe earlier versions."""
SUFFIXES = (".py", ".md", ".toml", ".yml", ".yaml", ".json", ".example", "Dockerfile", "Makefile")


def main() -> None:
    names = retired(LIST.read_text())
    lines = list(uses(names))
    print("\n".join(lines) or f"no use of {len(names)} retired names")
    sys.exit(bool(lines))


def retired(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def uses(names: list[str]) -> Iterator[str]:
    """Yield one message for each line of a tracked file that has a retired name as a whole word."""
    pattern = pattern_of(names)
    for file in tracked():
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
            if match := pattern.search(line):
                yield f"{file}:{number}: `{match[0]}` is retired; see the glossary in CONTRIBUTING.md"


def pattern_of(names: list[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, names))})(?![A-Za-z0-9])")


def tracked() -> list[str]:
    output = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [
        file
        for file in output.splitlines()
        if file.endswith(SUFFIXES) and not file.startswith(EXEMPT) and (ROOT / file).is_file()
    ]


if __name__ == "__main__":
    main()
