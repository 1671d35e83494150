"""Settings in effect, and variables that are no settings."""

import subprocess
import sys

import pytest

from store.settings import Settings
from store.settings_report import report, unknown_variables


def store(command, **variables):
    return subprocess.run(
        [sys.executable, "-m", "store", command], env=variables, capture_output=True, text=True, check=False
    )


def test_a_misspelt_setting_is_reported_with_the_closest_one():
    [message] = unknown_variables({"FRS_FENSE_SECONDS": "40", "FRS_FENCE_SECONDS": "40", "PATH": "/bin"})
    assert (
        message == "The variable FRS_FENSE_SECONDS is not a setting and has no effect; did you mean FRS_FENCE_SECONDS?"
    )


def test_an_unknown_setting_without_a_similar_one_refers_to_the_list():
    [message] = unknown_variables({"FRS_XYZ": "1"})
    assert "docs/settings.md" in message


def test_variables_of_compose_and_of_the_command_line_are_known():
    assert list(unknown_variables({"FRS_SHM_SIZE": "8g", "FRS_URL": "", "FRS_TRAINER_NETWORK": "1"})) == []


def test_the_report_has_every_setting_with_its_source(monkeypatch):
    monkeypatch.setenv("FRS_POLL_SECONDS", "3")
    monkeypatch.setenv("FRS_ALLOWED_HOSTS", "a,b")
    rows = {line.split()[0]: line.split()[1:] for line in report(Settings(), {}).splitlines()}
    assert len(rows) == len(Settings.model_fields)
    assert rows["FRS_POLL_SECONDS"] == ["environment", "3.0"] and rows["FRS_ALLOWED_HOSTS"] == ["environment", "a,b"]
    assert rows["FRS_REAP_SECONDS"] == ["default", "15.0"]


def test_the_report_contains_no_password():
    settings = Settings(
        database_url="postgresql://frs:hunter2@x@db:5432/frs?sslpassword=hunter2&a=b",
        broker_url="redis://:hunter2@redis/0",
        mlflow_url="https://frs:hunter2@mlflow.example.org",
        mlflow_token="hunter2",
        wandb_api_key="hunter2",
    )
    text = report(settings, {})
    assert "postgresql://frs:***@db:5432/frs?sslpassword=***&a=b" in text and "redis://:***@redis/0" in text
    assert "https://***@mlflow.example.org" in text
    assert "hunter2" not in text + repr(settings)


@pytest.mark.parametrize("user", ["hunter2", "hunter2:", "hunter2:x-oauth-basic", "a:hunter2"])
def test_a_token_as_user_name_is_masked(user):
    assert "https://***@mlflow.example.org/a" in report(Settings(mlflow_url=f"https://{user}@mlflow.example.org/a"), {})


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("FRS_REQUESTS_PER_MINUTE", "")
    assert Settings().requests_per_minute is None


def test_the_command_prints_settings_and_names_an_invalid_one():
    assert "FRS_FENCE_SECONDS " in store("settings", FRS_POLL_SECONDS="3").stdout
    failed = store("settings", FRS_POLL_SECONDS="soon")
    assert failed.returncode == 1 and failed.stderr.startswith("FRS_POLL_SECONDS: ")


def test_init_reports_unknown_variables(tmp_path):
    completed = store("init", FRS_DATA=str(tmp_path), FRS_DATASET_ROOT="/x")
    assert completed.returncode == 0 and "did you mean FRS_DATASETS_ROOT?" in completed.stderr
