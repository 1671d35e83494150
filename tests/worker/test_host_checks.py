"""`python -m worker.doctor`: what it finds on a host, and the next steps."""

import sys
from types import SimpleNamespace

import pytest

from frs.host_check import HostCheck
from store.db import schema
from store.settings import Settings
from worker import doctor


def by_name(settings: Settings) -> dict[str, HostCheck]:
    return {check.name: check for check in doctor.check_service(settings)}


@pytest.fixture
def settings(harness):
    return harness.settings


def test_a_host_that_is_set_up_has_no_error(settings):
    checks = by_name(settings)
    assert {"folders", "disk", "database", "broker", "artifacts", "isolation"} <= checks.keys()
    assert [check for check in checks.values() if check.status == "error"] == []
    assert list(settings.artifacts_root.rglob("uploads/*")) == []


def test_a_data_folder_that_does_not_exist_is_not_created(tmp_path):
    check = by_name(Settings(data=tmp_path / "data"))["folders"]
    assert (check.status, "frs up" in (check.hint or "")) == ("warning", True)
    assert not (tmp_path / "data").exists()


def test_an_older_database_names_the_command_that_upgrades_it(settings, harness):
    schema.downgrade(harness.database, "0004")
    check = by_name(settings)["database"]
    assert check.status == "error" and "revision 0004" in check.message
    assert "python -m store init" in check.hint


def test_a_broker_that_does_not_answer_is_an_error_with_its_setting(settings):
    check = by_name(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1"}))["broker"]
    assert (check.status, "FRS_BROKER_URL" in check.hint) == ("error", True)


def test_a_folder_that_cannot_be_written_is_an_error(settings):
    settings.work_root.rmdir()
    settings.work_root.write_text("a file")
    assert by_name(settings)["folders"].status == "error"


def test_a_full_disk_is_an_error(settings):
    check = by_name(settings.model_copy(update={"min_free_mb": 1 << 40}))["disk"]
    assert check.status == "error" and "free disk space" in check.message


def test_clocks_that_differ_are_a_warning(settings, monkeypatch):
    monkeypatch.setattr(doctor, "time", SimpleNamespace(time=lambda: 0.0))
    assert by_name(settings)["clock"].status == "warning"


def test_invalid_settings_are_the_only_check(monkeypatch):
    monkeypatch.setenv("FRS_LEASE_SECONDS", "1")
    [check] = doctor.check_host()
    assert (check.name, check.status) == ("settings", "error")
    assert "heartbeat_seconds < fence_seconds < lease_seconds" in check.message


def test_a_misspelt_setting_is_a_warning_and_a_missing_engine_an_error(settings, monkeypatch):
    monkeypatch.setenv("FRS_DATA", str(settings.data))
    monkeypatch.setenv("FRS_LEASE_SECOND", "1")
    monkeypatch.setattr(doctor, "COMMAND", (sys.executable, "-m", "no_such_engine"))
    checks = list(doctor.check_host())
    assert "did you mean FRS_LEASE_SECONDS?" in checks[0].message
    assert (checks[-1].name, checks[-1].status) == ("engine", "error")
    assert "make setup" in checks[-1].hint
