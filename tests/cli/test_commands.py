"""The `frs` command against an API without a worker: jobs stay queued."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from cli import render, watching
from cli.main import app
from frs import __version__
from frs.cli import report_text
from frs.cli.main import app as engine_app
from frs.evaluation.report import Row, Scores, build
from frs_client import Client, ServiceError

STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16}

DISTILL = {"dataset": "shapes", "student": STUDENT, "teacher": STUDENT | {"init": "random"}}


def submit(frs: Any, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    spec = {"kind": "train", "dataset": "shapes", "student": STUDENT} | changes
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    return json.loads(frs("submit", tmp_path / "spec.yaml", "--json").output)


def test_datasets_add_registers_a_data_set_and_prints_its_issues(frs: Any) -> None:
    assert "has_problems" in (output := frs("datasets", "add", "incomplete").output)
    assert "image_missing" in output
    assert "circle" in frs("datasets", "list").output
    assert json.loads(frs("datasets", "check", "incomplete").output)


def test_datasets_delete_removes_a_data_set_and_frees_its_name(frs: Any, shapes: None) -> None:
    assert frs("datasets", "delete", "shapes", "--yes").output == "Deleted shapes.\n"
    assert "dataset_not_found" in frs("datasets", "delete", "shapes", "--yes", code=1).stderr
    assert "ready" in frs("datasets", "add", "shapes").output


def test_datasets_delete_asks_first(frs: Any, shapes: None) -> None:
    frs("datasets", "delete", "shapes", code=1)
    assert "shapes" in frs("datasets", "list").output


def test_a_job_is_submitted_listed_shown_and_cancelled(frs: Any, shapes: None, tmp_path: Path) -> None:
    job = submit(frs, tmp_path, name="one")
    assert job["status"] == "queued"
    assert job["id"] in frs("jobs").output
    assert "waiting_for_worker" in frs("job", job["id"]).output
    assert "cancelled" in frs("cancel", job["id"]).output
    assert "action_not_allowed" in frs("cancel", job["id"], code=1).stderr
    assert json.loads(frs("jobs", "--status", "cancelled", "--json").output)["data"]


def test_submit_wait_fails_if_a_run_of_the_group_does_not_succeed(
    frs: Any, shapes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = iter(["succeeded", "failed"])
    monkeypatch.setattr(watching, "follow", lambda client, id, console: {"id": id, "status": next(ended)})
    monkeypatch.setattr(render, "job", lambda job: job["status"])
    (tmp_path / "spec.yaml").write_text(json.dumps(DISTILL | {"baseline": True}))
    assert frs("submit", tmp_path / "spec.yaml", "--wait", code=1).output == "succeeded\n"
    assert next(ended, None) is None, "the baseline's failure was seen"


def test_no_help_text_contains_markup() -> None:
    """Typer takes brackets for markup and prints nothing of them; `show_default` prints a default in words."""
    commands = [*_commands(typer.main.get_command(app)), *_commands(typer.main.get_command(engine_app))]
    texts = [parameter.help or "" for command in commands for parameter in command.params if hasattr(parameter, "help")]
    assert len(texts) > 50
    assert not [text for text in texts if "[" in text]


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from _commands(child)


def test_submit_with_set_overrides_a_spec_field(frs: Any, shapes: None, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps({"kind": "train", "dataset": "shapes", "student": STUDENT}))
    answer = frs(
        "submit", tmp_path / "spec.yaml", "--set", "schedule.max_steps=3", "--set", "name=three", "--json"
    ).output
    spec = json.loads(answer)["spec"]
    assert (spec["schedule"]["max_steps"], spec["name"]) == (3, "three")


def test_submit_names_the_invalid_spec_field(frs: Any, shapes: None, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("{dataset: shapes, kind: train, student: {architecture: yolo}}")
    assert "student.architecture" in frs("submit", tmp_path / "spec.yaml", code=1).stderr


def test_submit_prints_each_invalid_field_once(frs: Any, shapes: None, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "{dataset: nowhere, kind: train, student: {architecture: gfl}, schedule: {epochs: 0, batch_size: 0}}"
    )
    lines = frs("submit", tmp_path / "spec.yaml", code=1).stderr.splitlines()
    assert [line.partition(": Input")[0] for line in lines[:2]] == [
        "invalid_request: schedule.epochs",
        "schedule.batch_size",
    ]
    (tmp_path / "spec.yaml").write_text("{dataset: nowhere, kind: train, student: {architecture: gfl}}")
    error, *others = frs("submit", tmp_path / "spec.yaml", code=1).stderr.splitlines()
    assert error.startswith("dataset_not_found: dataset: ")
    assert not any(line in error or "dataset: " in line for line in others)


def test_the_audit_trail_lists_who_changed_what(frs: Any, shapes: None, tmp_path: Path) -> None:
    job_id = submit(frs, tmp_path)["id"]
    frs("cancel", job_id)
    output = frs("audit", "--target", job_id).output
    assert [action in output for action in ("job.submit", "job.cancel", "127.0.0.1", "admin")] == [True] * 4
    entries = json.loads(frs("audit", "--action", "job.cancel", "--limit", 1, "--json").output)["data"]
    assert [entry["target"] for entry in entries] == [job_id]
    assert "cancel by admin" in frs("job", job_id).output


def test_recipes_are_listed_and_printed(frs: Any) -> None:
    assert "44.9" in frs("recipes").output
    assert json.loads(frs("recipes", "gfl_r101_r50_1x").output)["schedule"]["epochs"] == 12
    assert "not_found" in frs("recipes", "nonsense", code=1).stderr


def test_a_queued_job_has_no_student_report_metrics_or_logs(frs: Any, shapes: None, tmp_path: Path) -> None:
    job = submit(frs, tmp_path)
    assert "no student yet" in frs("pull", job["id"], "--output", tmp_path, code=1).stderr
    assert "Partial" in frs("report", job["id"]).output
    assert json.loads(frs("metrics", job["id"], "--json").output)["series"] == []
    assert frs("logs", job["id"]).output.strip() == ""


def test_an_unknown_job_prints_an_error_without_a_traceback(frs: Any) -> None:
    assert "job_not_found" in frs("job", "job_00000000000000000000000000", code=1).stderr


def test_without_a_service_the_error_suggests_frs_up(frs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRS_URL", "http://127.0.0.1:9")
    assert "frs up" in frs("jobs", code=1).stderr


def test_without_a_key_the_error_names_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRS_API_KEY", raising=False)
    with pytest.raises(ServiceError, match="api-key"):
        Client(data=tmp_path)


def test_the_version_is_printed(frs: Any) -> None:
    assert frs("--version").output == f"frs {__version__}\n"


def test_up_refuses_a_port_in_use(frs: Any, data: Path) -> None:
    port = (data / "url").read_text().rpartition(":")[2]
    assert "another --port" in frs("up", "--data", data, "--port", port, code=1).stderr


def test_the_report_table_is_in_percent_with_a_signed_gain() -> None:
    metrics = dict.fromkeys(report_text.NUMBERS.values(), 0.25) | {"bbox_mAP_l": None}
    student_report = build([Scores(metrics=metrics, per_class={})], None, [], pairs=0, expects_teacher=False, facts={})
    gain_report = student_report.model_copy(update={"rows": [Row(role="gain", metrics=metrics)]})
    table = report_text.table(gain_report)
    assert [list(column.cells) for column in table.columns][1:] == [["+25.0"]] * 5 + [["-"]]
    console = Console(width=80, record=True)
    console.print(render.report(gain_report.model_dump(mode="json")))
    assert "no_baseline" in console.export_text()


def test_a_key_is_created_used_and_revoked(frs: Any, shapes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    output = frs("keys", "add", "alice", "--scope", "read", "--expires-days", "1").output
    token, key_id = output.splitlines()[0], output.split("Key ")[1].split()[0]
    assert token.startswith("frs_") and "FRS_API_KEY" in output
    key_list = frs("keys", "list").output
    assert key_id in key_list and token not in key_list
    monkeypatch.setenv("FRS_API_KEY", token)
    assert "shapes" not in frs("datasets", "list").output, "data sets of another owner are hidden"
    assert "scope_missing" in frs("datasets", "add", "shapes", code=1).stderr
    assert "scope_missing" in frs("keys", "list", code=1).stderr
    monkeypatch.delenv("FRS_API_KEY")
    assert "revoked" in frs("keys", "revoke", key_id).output
    scopes = ("--scope", "submit", "--scope", "priority", "--json")
    assert json.loads(frs("keys", "add", "bob", *scopes).output)["scopes"] == ["submit", "priority"]
    assert json.loads(frs("keys", "add", "carol", "--json").output)["scopes"] == ["submit"]
    assert "last_admin_key" in frs("keys", "revoke", first_key_id(frs), code=1).stderr


def first_key_id(frs: Any) -> str:
    rows = json.loads(frs("keys", "list", "--json").output)["data"]
    return next(row["id"] for row in rows if row["name"] == "first key")
