"""The `frs` command against a real API without a worker: jobs stay in the queue."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli import render
from cli.client import Client, ServiceError
from frs.cli import report_text
from frs.evaluation.report import Row, Scores, build

STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16}


def submitted(frs: Any, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    spec = {"kind": "train", "dataset": "shapes", "student": STUDENT} | changes
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    return json.loads(frs("submit", tmp_path / "spec.yaml", "--json").output)


def test_a_data_set_is_registered_and_what_is_wrong_is_shown(frs: Any) -> None:
    assert "has_problems" in (output := frs("datasets", "add", "holed").output)
    assert "image_missing" in output
    assert "circle" in frs("datasets", "list").output
    assert json.loads(frs("datasets", "check", "holed").output)


def test_a_job_is_posted_listed_shown_and_cancelled(frs: Any, shapes: None, tmp_path: Path) -> None:
    job = submitted(frs, tmp_path, name="one")
    assert job["status"] == "queued"
    assert job["id"] in frs("jobs").output
    assert "waiting_for_worker" in frs("job", job["id"]).output
    assert "cancelled" in frs("cancel", job["id"]).output
    assert "action_not_allowed" in frs("cancel", job["id"], code=1).stderr
    assert json.loads(frs("jobs", "--status", "cancelled", "--json").output)["data"]


def test_set_changes_a_field(frs: Any, shapes: None, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps({"kind": "train", "dataset": "shapes", "student": STUDENT}))
    answer = frs(
        "submit", tmp_path / "spec.yaml", "--set", "schedule.max_steps=3", "--set", "name=three", "--json"
    ).output
    spec = json.loads(answer)["spec"]
    assert (spec["schedule"]["max_steps"], spec["name"]) == (3, "three")


def test_a_refused_spec_names_its_field(frs: Any, shapes: None, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("{dataset: shapes, kind: train, student: {architecture: yolo}}")
    assert "student.architecture" in frs("submit", tmp_path / "spec.yaml", code=1).stderr


def test_recipes_are_listed_and_printed(frs: Any) -> None:
    assert "44.9" in frs("recipes").output
    assert json.loads(frs("recipes", "gfl_r101_r50_1x").output)["schedule"]["epochs"] == 12
    assert "not_found" in frs("recipes", "nonsense", code=1).stderr


def test_what_a_job_has_not_made_yet_is_said(frs: Any, shapes: None, tmp_path: Path) -> None:
    job = submitted(frs, tmp_path)
    assert "no student yet" in frs("pull", job["id"], "--output", tmp_path, code=1).stderr
    assert "Partial" in frs("report", job["id"]).output
    assert json.loads(frs("metrics", job["id"], "--json").output)["series"] == []
    assert frs("logs", job["id"]).output.strip() == ""


def test_an_unknown_job_is_no_traceback(frs: Any) -> None:
    assert "job_not_found" in frs("job", "job_00000000000000000000000000", code=1).stderr


def test_without_a_service_the_next_step_is_named(frs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRS_URL", "http://127.0.0.1:9")
    assert "frs up" in frs("jobs", code=1).stderr


def test_without_a_key_the_next_step_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRS_API_KEY", raising=False)
    with pytest.raises(ServiceError, match="api-key"):
        Client.here(tmp_path)


def test_up_refuses_a_port_that_is_taken(frs: Any, data: Path) -> None:
    port = (data / "url").read_text().rpartition(":")[2]
    assert "another --port" in frs("up", "--data", data, "--port", port, code=1).stderr


def test_the_reports_table_is_in_percent_with_a_signed_gain() -> None:
    metrics = dict.fromkeys(report_text.NUMBERS.values(), 0.25) | {"bbox_mAP_l": None}
    alone = build([Scores(metrics=metrics, per_class={})], None, [], pairs=0, wants_teacher=False, facts={})
    gain = alone.model_copy(update={"rows": [Row(role="gain", metrics=metrics)]})
    table = report_text.table(gain)
    assert [list(column.cells) for column in table.columns][1:] == [["+25.0"]] * 5 + [["-"]]
    console = Console(width=80, record=True)
    console.print(render.report(gain.model_dump(mode="json")))
    assert "no_baseline" in console.export_text()


def test_a_key_is_made_used_and_revoked(frs: Any, shapes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    output = frs("keys", "add", "alice", "--scope", "read", "--expires-days", "1").output
    token, key_id = output.splitlines()[0], output.split("Key ")[1].split()[0]
    assert token.startswith("frs_") and "FRS_API_KEY" in output
    listed = frs("keys", "list").output
    assert key_id in listed and token not in listed
    monkeypatch.setenv("FRS_API_KEY", token)
    assert "shapes" not in frs("datasets", "list").output, "these are another owner's"
    assert "scope_missing" in frs("datasets", "add", "shapes", code=1).stderr
    assert "scope_missing" in frs("keys", "list", code=1).stderr
    monkeypatch.delenv("FRS_API_KEY")
    assert "revoked" in frs("keys", "revoke", key_id).output
    assert "last_admin_key" in frs("keys", "revoke", first_key(frs), code=1).stderr


def first_key(frs: Any) -> str:
    rows = json.loads(frs("keys", "list", "--json").output)["data"]
    return next(row["id"] for row in rows if row["name"] == "first key")
