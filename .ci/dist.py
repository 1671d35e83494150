"""`make dist`: write the files of a release into build/dist, or into the folder that is given.

These are sdist and wheel of `frs-distill` and `frs-client`, each wheel built from its sdist, a CycloneDX SBOM of the
Python packages of each image, and SHA256SUMS.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from frs import __version__

ROOT = Path(__file__).parents[1]
IMAGES = ("api", "worker")
NOT_COPIED = ("build", "demo", "runs", "bench", "datasets", "models", "backup", "docs", "tests")
"""Folders of the checkout that are no sources of a package; some are large, or change while tests run."""


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "dist"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for project in (ROOT / "client", ROOT):
        build(project, target)
    for image in IMAGES:
        lock = (ROOT / "docker" / f"{image}.lock").read_text()
        (target / f"frs-{image}-{__version__}.cdx.json").write_text(sbom(f"frs-{image}", lock))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    print("\n".join(sums))


def build(project: Path, target: Path) -> Path:
    """Build the sdist of the project and, from it, its wheel. Return the path of the wheel.

    The working tree stays as it is: setuptools writes beside the sources, so they are copied first.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        shutil.copytree(project, source, ignore=partial(_ignored, project))
        sdist = target / _run_backend("build_sdist", source, target)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        return target / _run_backend("build_wheel", Path(folder, sdist.name.removesuffix(".tar.gz")), target)


def _ignored(project: Path, folder: str, names: list[str]) -> set[str]:
    """Return which names of the folder are not copied; for `shutil.copytree`."""
    others = {*NOT_COPIED} if Path(folder) == project else set()
    return others | {
        name for name in names if name.startswith(".") or name == "__pycache__" or name.endswith(".egg-info")
    }


def _run_backend(function: str, source: Path, target: Path) -> str:
    """Call a function of setuptools' PEP 517 backend; return the name of the file that it wrote."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{function}(sys.argv[1]))"
    command = [sys.executable, "-c", code, target.resolve()]
    completed = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if completed.returncode:
        sys.exit(f"{function} failed in {source.name}.\n{completed.stderr[-2000:]}")
    return completed.stdout.splitlines()[-1]


def sbom(name: str, lock: str) -> str:
    """Return the CycloneDX document of an image's Python packages: those of the lock, with known licences."""
    bom = Bom()
    bom.metadata.component = Component(name=name, version=__version__, type=ComponentType.CONTAINER)
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE):
        purl = PackageURL("pypi", name=package.lower(), version=version)
        component = Component(name=package, version=version, purl=purl, licenses=_licences(package))
        bom.components.add(component)
        bom.register_dependency(bom.metadata.component, [component])
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _licences(package: str) -> Iterator[License]:
    """Yield the licences in the metadata of the installed package, if it is installed."""
    try:
        found = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return
    if expression := found.get("License-Expression"):
        yield LicenseFactory().make_from_string(expression)
        return
    for classifier in found.get_all("Classifier", []):
        if classifier.startswith("License ::"):
            yield LicenseFactory().make_from_string(classifier.rpartition(" :: ")[2])


if __name__ == "__main__":
    main()
