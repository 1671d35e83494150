"""The repository has two packages, `frs` and `frs-client`, of one version."""

import tomllib
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

ROOT = Path(__file__).parents[2]


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_the_service_needs_the_client_of_its_own_version():
    service, client = (project(folder)["project"] for folder in (ROOT, ROOT / "client"))
    assert client["version"] == service["version"]
    assert f"frs-client=={client['version']}" in service["dependencies"]


@pytest.mark.parametrize(
    ("folder", "packages"),
    [
        (ROOT, {"api", "cli", "frs", "mmcv_torchvision", "store", "web", "worker"}),
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
