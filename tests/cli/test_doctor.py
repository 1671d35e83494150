"""`frs doctor`: the checks of a service, and of this machine if no other host is named."""

import json
from pathlib import Path

import pytest
from scripted_server import Answer, answer, serve
from typer.testing import CliRunner, Result

from cli.main import app
from frs import __version__, host_check

VERSION = answer({"frs": __version__, "python": "3.11"})


def doctor(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> Result:
    """Run `frs doctor` against a service on another host that gives these answers."""
    with serve(*answers) as server:
        monkeypatch.setenv("FRS_URL", server.url)
        monkeypatch.setenv("FRS_API_KEY", "frs_key")
        return CliRunner().invoke(app, ["doctor", "--json"])


def test_a_service_with_a_worker_is_fine_and_the_machine_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, VERSION, answer({"data": [{"name": "worker-1"}]}))
    [check] = map(json.loads, result.output.splitlines())
    assert (result.exit_code, check["status"], "1 worker" in check["message"]) == (0, "ok", True)


def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cli.doctor._check_machine", lambda data: iter([host_check.ok("machine", "checked")]))
    monkeypatch.setenv("FRS_URL", "")
    monkeypatch.delenv("FRS_API_KEY", raising=False)
    result = CliRunner().invoke(app, ["doctor", "--json", "--data", str(tmp_path)])
    checks = [json.loads(line) for line in result.output.splitlines()]
    assert [(check["name"], check["status"]) for check in checks] == [("machine", "ok"), ("service", "warning")]


def test_a_service_without_a_worker_is_an_error_that_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, VERSION, answer({"data": []}))
    check = json.loads(result.output.splitlines()[-1])
    assert (result.exit_code, check["status"]) == (1, "error")
    assert "python -m worker" in check["hint"]


def test_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, answer({"frs": "9.9.9", "python": "3.11"}), answer({"data": [{"name": "worker-1"}]}))
    checks = [json.loads(line) for line in result.output.splitlines()]
    assert (result.exit_code, [check["status"] for check in checks]) == (0, ["warning", "ok"])
    assert "9.9.9" in checks[0]["message"]


def test_a_refused_key_is_an_error_with_the_service_s_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"detail": "This API key is unknown.", "hint": "Send another.", "code": "unknown_key", "errors": []}
    result = doctor(monkeypatch, answer(problem, 401, **{"Content-Type": "application/problem+json"}))
    check = json.loads(result.output)
    assert (result.exit_code, check["status"], check["hint"]) == (1, "error", "Send another.")
