"""Writes requirements.lock: what constraints.txt pins, each with the sha256 of every file that pip may take for it.

For Linux on x86-64 and the Pythons below; the one that runs this has to be the first of them. With `--fits`: whether
the lock is for the Python that runs this. The images' locks are parts of it, whole in themselves: install them with
`--no-deps`.
"""

import json
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
IMAGES = {"api.lock": ".", "worker.lock": ".[engine]", "build.lock": "setuptools"}
"""What goes into each image, and what makes our wheel."""
NOT_IN_IMAGES = {"opencv-python"}
"""opencv-python-headless brings the same module, and no libraries of a desktop."""
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.11", "3.12", "3.13")
HEAD = """# Written by `make lock` from constraints.txt, for Linux on x86-64 with CPython {pythons}.
# pip install --require-hashes --requirement requirements.lock
"""
OURSELVES = "frs"
Found = dict[str, set[str]]
"""sha256 by `name==version`."""


def main() -> None:
    if sys.argv[1:] == ["--fits"]:
        sys.exit(not fits(sys.platform, platform.machine(), RUNNING))
    if PYTHONS[0] != RUNNING:
        sys.exit(f"make lock needs Python {PYTHONS[0]}")
    resolved = report("--constraint", "constraints.txt", ".[engine,dev]")
    found = hashes(resolved)
    sources = {pin for pin, file in files(resolved) if not file["url"].endswith(".whl")}
    for python in PYTHONS[1:]:
        wheels = ("--no-deps", "--only-binary", ":all:", "--python-version", python, "--target", "none")
        for pin, more in hashes(report(*wheels, *(pin for pin in found if pin not in sources))).items():
            found[pin] |= more
    write(LOCK, found)
    for name, what in IMAGES.items():
        pins = [pin for pin, _ in files(report("--constraint", "constraints.txt", what))]
        write(ROOT / "docker" / name, {pin: found[pin] for pin in pins if pin.partition("==")[0] not in NOT_IN_IMAGES})


def write(path: Path, found: Found) -> None:
    path.write_text(text(found))
    print(f"{len(found)} packages, {sum(map(len, found.values()))} files: {path.relative_to(ROOT)}")


def fits(system: str, machine: str, python: str) -> bool:
    return (system, machine) == ("linux", "x86_64") and python in PYTHONS


def report(*arguments: str) -> dict[str, Any]:
    """What pip would install: https://pip.pypa.io/en/stable/reference/installation-report/"""
    with tempfile.NamedTemporaryFile() as file:
        options = ("--dry-run", "--ignore-installed", "--quiet", "--report", file.name)
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *arguments], check=True, cwd=ROOT)
        told: dict[str, Any] = json.load(file)
    return told


def files(report: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for package in report["install"]:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        if name != OURSELVES:
            yield f"{name}=={version}", package["download_info"]


def hashes(report: Mapping[str, Any]) -> Found:
    found: Found = defaultdict(set)
    for pin, file in files(report):
        found[pin].add(file["archive_info"]["hashes"]["sha256"])
    return found


def text(found: Found) -> str:
    lines = [
        " \\\n".join([pin, *(f"    --hash=sha256:{sha256}" for sha256 in sorted(found[pin]))])
        for pin in sorted(found, key=str.lower)
    ]
    return HEAD.format(pythons=", ".join(PYTHONS)) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
