"""The repository has two packages, `frs-distill` and `frs-client`, of one version. `make dist` builds them."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "frs", "mmcv_torchvision", "store", "web", "worker")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Return the folder with the files of a release."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, ROOT / ".ci" / "dist.py", target], check=True, capture_output=True, cwd=ROOT)
    return target


@pytest.fixture(scope="module")
def frs(dist, tmp_path_factory) -> Path:
    """Return the `frs` command of an environment with both wheels, whose other packages are those of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    wheels = sorted(dist.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site]
    subprocess.run([*install, *wheels], check=True, cwd=folder)
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    _, _, code = (site / "bin" / "frs").read_text().partition("\n")  # the first line names another Python
    script = folder / "bin" / "frs"
    script.write_text(f"#!{folder}/bin/python\n{code}")
    script.chmod(0o755)
    return script


def test_the_command_of_the_wheels_runs_outside_the_checkout(frs, tmp_path):
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    where = (
        "import api, cli, frs, frs_client, store, worker; print({m.__file__ for m in (api, cli, frs, store, worker)})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    printed = subprocess.run([frs.with_name("python"), "-c", where], env=environment, **run).stdout
    assert str(ROOT) not in printed
    assert VERSION in subprocess.run([frs, "--version"], env=environment, **run).stdout
    engine = [frs.with_name("python"), "-m", "frs"]
    subprocess.run([*engine, "shapes", "drawn", "--train", "4", "--val", "4"], env=environment, **run)
    split = ["drawn/val", "drawn/annotations/instances_val.json", "--json"]
    checked = json.loads(subprocess.run([*engine, "check", *split], env=environment, **run).stdout)
    assert checked["counts"]["images"] == 4


def test_every_file_of_the_packages_is_in_the_wheel(dist):
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    packed = set(zipfile.ZipFile(dist / f"frs_distill-{VERSION}-py3-none-any.whl").namelist())
    assert set(tracked.stdout.splitlines()) - packed == {"web/tsconfig.json"}


@pytest.mark.parametrize("name", ["frs_distill", "frs_client"])
def test_a_wheel_contains_the_licence(dist, name):
    packed = zipfile.ZipFile(dist / f"{name}-{VERSION}-py3-none-any.whl").namelist()
    assert f"{name}-{VERSION}.dist-info/licenses/LICENSE" in packed


@pytest.mark.parametrize("image", ["api", "worker"])
def test_an_sbom_lists_the_packages_of_the_image(dist, image):
    document = json.loads((dist / f"frs-{image}-{VERSION}.cdx.json").read_text())
    listed = {f"{component['name']}=={component['version']}" for component in document["components"]}
    lock = (ROOT / "docker" / f"{image}.lock").read_text().splitlines()
    assert listed == {line.split()[0] for line in lock if "==" in line and not line.startswith("#")}
    assert all(component["purl"].startswith("pkg:pypi/") for component in document["components"])


def test_the_checksums_are_those_of_the_files(dist):
    sums = dict(reversed(line.split("  ")) for line in (dist / "SHA256SUMS").read_text().splitlines())
    files = [file for file in dist.iterdir() if file.name != "SHA256SUMS"]
    assert sums == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_publish_builds_and_pushes_both_images_with_the_version_as_tag(tmp_path):
    calls = tmp_path / "calls"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" "$FRS_API_IMAGE" "$FRS_WORKER_IMAGE" >> {calls}\n')
    docker.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    publish = ["make", "publish", "REGISTRY=registry.example.org/team"]
    subprocess.run(publish, cwd=ROOT, env=environment, check=True, capture_output=True)
    images = f"registry.example.org/team/frs-api:{VERSION} registry.example.org/team/frs-worker:{VERSION}"
    assert f"compose build api worker {images}" in calls.read_text()
    assert f"compose push api worker {images}" in calls.read_text()


def test_publish_asks_for_a_registry():
    refused = subprocess.run(["make", "publish", "REGISTRY="], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode
    assert "REGISTRY is not set: make publish REGISTRY=" in refused.stdout


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_the_service_needs_the_client_of_its_own_version():
    service, client = (project(folder)["project"] for folder in (ROOT, ROOT / "client"))
    assert client["version"] == service["version"]
    assert f"frs-client=={client['version']}" in service["dependencies"]


@pytest.mark.parametrize(
    ("folder", "packages"),
    [
        (ROOT, set(PACKAGES)),
        (ROOT / "client", {"frs_client"}),
    ],
)
def test_each_wheel_has_its_own_packages(folder, packages):
    include = project(folder)["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.partition(".")[0] for name in find_namespace_packages(folder, include=include)} == packages


def test_the_client_depends_on_httpx2_and_pydantic_alone():
    assert [name.partition(">")[0] for name in project(ROOT / "client")["project"]["dependencies"]] == [
        "httpx2",
        "pydantic",
    ]
