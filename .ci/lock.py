"""Write requirements.lock: the pins of constraints.txt with the SHA-256 of every file that pip may install for them.

The lock is for Linux on x86-64 and the Python versions in `PYTHONS`; run this script with the first of them. With
`--fits`, only exit with 0 if the lock is for the running Python and platform, else with 1. The locks of the images in
docker/ are complete subsets: install them with `--no-deps`.
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
IMAGES = {
    "api.lock": ("./client", ".[predict]"),
    "worker.lock": ("./client", ".[engine,imagenet,export,wandb]"),
    "build.lock": ("setuptools",),
}
"""The requirements of each image lock; build.lock is for building the wheels."""
NOT_IN_IMAGES = {"opencv-python"}
"""opencv-python-headless provides the same module without desktop libraries."""
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.11", "3.12", "3.13")
HEAD = """# Written by `make lock` from constraints.txt, for Linux on x86-64 with CPython {pythons}.
# pip install --require-hashes --requirement requirements.lock
"""
PROJECTS = {"frs-distill", "frs-client"}
"""The packages of this repository, which are not locked."""
Hashes = dict[str, set[str]]
"""SHA-256 hashes by pin, `name==version`."""


def main() -> None:
    if sys.argv[1:] == ["--fits"]:
        sys.exit(not fits(sys.platform, platform.machine(), RUNNING))
    if PYTHONS[0] != RUNNING:
        sys.exit(f"make lock needs Python {PYTHONS[0]}")
    resolved = report("--constraint", "constraints.txt", "./client", ".[engine,imagenet,export,tensorboard,wandb,dev]")
    pin_hashes = hashes(resolved)
    sources = {pin for pin, file in files(resolved) if not file["url"].endswith(".whl")}
    for python in PYTHONS[1:]:
        wheels = ("--no-deps", "--only-binary", ":all:", "--python-version", python, "--target", "none")
        for pin, added in hashes(report(*wheels, *(pin for pin in pin_hashes if pin not in sources))).items():
            pin_hashes[pin] |= added
    write(LOCK, pin_hashes)
    for name, requirements in IMAGES.items():
        pins = [pin for pin, _ in files(report("--constraint", "constraints.txt", *requirements))]
        write(
            ROOT / "docker" / name,
            {pin: pin_hashes[pin] for pin in pins if pin.partition("==")[0] not in NOT_IN_IMAGES},
        )


def write(path: Path, pin_hashes: Hashes) -> None:
    path.write_text(text(pin_hashes))
    print(f"{len(pin_hashes)} packages, {sum(map(len, pin_hashes.values()))} files: {path.relative_to(ROOT)}")


def fits(system: str, machine: str, python: str) -> bool:
    return (system, machine) == ("linux", "x86_64") and python in PYTHONS


def report(*arguments: str) -> dict[str, Any]:
    """Return pip's installation report: https://pip.pypa.io/en/stable/reference/installation-report/"""
    with tempfile.NamedTemporaryFile() as file:
        options = ("--dry-run", "--ignore-installed", "--quiet", "--report", file.name)
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *arguments], check=True, cwd=ROOT)
        content: dict[str, Any] = json.load(file)
    return content


def files(report: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for package in report["install"]:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        if name not in PROJECTS:
            yield f"{name}=={version}", package["download_info"]


def hashes(report: Mapping[str, Any]) -> Hashes:
    pin_hashes: Hashes = defaultdict(set)
    for pin, file in files(report):
        pin_hashes[pin].add(file["archive_info"]["hashes"]["sha256"])
    return pin_hashes


def text(pin_hashes: Hashes) -> str:
    lines = [
        " \\\n".join([pin, *(f"    --hash=sha256:{sha256}" for sha256 in sorted(pin_hashes[pin]))])
        for pin in sorted(pin_hashes, key=str.lower)
    ]
    return HEAD.format(pythons=", ".join(PYTHONS)) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
