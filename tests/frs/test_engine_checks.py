from collections import namedtuple

from frs.cli import doctor
from frs.published_weights import PublishedFile

Usage = namedtuple("Usage", "total used free")


def test_the_engine_of_this_installation_has_no_error(tmp_path):
    checks = {check.name: check for check in doctor.check_engine(tmp_path)}
    assert {"packages", "detector", "weights"} <= checks.keys()
    assert [check for check in checks.values() if check.status == "error"] == []
    assert "torch 2." in checks["packages"].message


def test_without_imagenet_weights_the_next_step_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(PublishedFile, "find", lambda *_: None)
    [check] = doctor.check_weights(tmp_path)
    assert (check.status, "frs models pull" in check.hint) == ("warning", True)


def test_little_shared_memory_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(64 << 20, 0, 64 << 20))
    [check] = doctor.check_shared_memory()
    assert check.status == "warning" and "--shm-size" in check.hint


def test_a_package_that_does_not_import_ends_the_checks_with_the_next_step(tmp_path, monkeypatch):
    def fail():
        raise ImportError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(doctor, "_check_packages", fail)
    [check] = doctor.check_engine(tmp_path)
    assert check.status == "error" and "libcudnn" in check.message and "make setup" in check.hint
