"""`make lock`: the format and scope of requirements.lock."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("ci_lock", Path(__file__).parents[2] / ".ci" / "lock.py")
assert _spec and _spec.loader
lock = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lock)


def package(name, version, sha256, url="https://files.example/x.whl"):
    file = {"url": url, "archive_info": {"hashes": {"sha256": sha256}}}
    return {"metadata": {"name": name, "version": version}, "download_info": file}


PROJECTS = [
    {"metadata": {"name": name, "version": "0.1.0"}, "download_info": {"url": "file:///here", "dir_info": {}}}
    for name in ("frs-distill", "frs-client")
]


def test_all_packages_but_those_of_this_repository_are_locked_by_hash_without_urls():
    pin_hashes = lock.hashes(
        {"install": [*PROJECTS, package("b", "2", "22"), package("A", "1", "11", "file:///wheels/a.whl")]}
    )
    pin_hashes["b==2"].add("21")
    lines = lock.text(pin_hashes).splitlines()[2:]
    assert lines == [
        "A==1 \\",
        "    --hash=sha256:11",
        "b==2 \\",
        "    --hash=sha256:21 \\",
        "    --hash=sha256:22",
    ]


def test_a_package_without_a_hash_is_an_error():
    bare = package("a", "1", "11")
    bare["download_info"]["archive_info"] = {}
    with pytest.raises(KeyError):
        lock.hashes({"install": [bare]})


@pytest.mark.parametrize(
    ("platform", "fits"),
    [
        (("linux", "x86_64", "3.11"), True),
        (("linux", "x86_64", "3.13"), True),
        (("linux", "x86_64", "3.14"), False),
        (("linux", "aarch64", "3.11"), False),
        (("darwin", "arm64", "3.11"), False),
    ],
)
def test_the_lock_fits_linux_x86_64_and_supported_pythons(platform, fits):
    assert lock.fits(*platform) == fits
