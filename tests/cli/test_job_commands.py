"""`frs` commands for jobs, plans, comparisons and the queue; the tests act as the worker."""

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from cli import render, side_by_side, terminal
from cli.arguments import job_ids
from cli.main import app
from frs import events
from store.db.database import Database, open_database
from store.jobs import lifecycle, recording
from store.jobs.lease import Lease
from store.requests import worker_requests
from store.scheduling import worker_registry
from store.states import EndReason, JobStatus

STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16}
SPEC = {"kind": "train", "dataset": "shapes", "student": STUDENT, "schedule": {"epochs": 2, "batch_size": 2}}
ESTIMATE = {
    "ok": True,
    "checks": [{"code": "schedule", "level": "info", "ok": True, "message": "2 steps."}],
    "steps": 2,
    "epochs": 1,
    "seconds_per_step": 0.25,
    "estimated_seconds": 90.0,
    "peak_memory_mb": 512.0,
}
pytestmark = pytest.mark.usefixtures("shapes")


@pytest.fixture
def database(data: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{data / 'frs.db'}")
    yield database
    database.engine.dispose()


@pytest.fixture
def do(database: Database) -> Callable[..., Any]:
    def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    return call


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    def write_spec(**changes: Any) -> Path:
        (tmp_path / "spec.json").write_text(json.dumps(SPEC | changes))
        return tmp_path / "spec.json"

    return write_spec


@pytest.fixture
def submitted(frs: Any, spec: Any) -> Callable[..., str]:
    return lambda **changes: json.loads(frs("submit", spec(**changes), "--json").output)["id"]


@pytest.fixture
def claimed(do: Any, submitted: Any) -> Callable[..., Lease]:
    return lambda **changes: do(lifecycle.claim, "worker", 60.0, submitted(**changes))


def status_of(frs: Any, id: str) -> str:
    return json.loads(frs("job", id, "--json").output)["status"]


def evaluate(do: Any, lease: Lease, mAP: float) -> None:
    names = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
    scores = {"metrics": dict.fromkeys(names, mAP), "per_class": {"circle": mAP}, "images": 2, "detections": 2}
    do(recording.record, lease, [events.Evaluation(role="student", step=2, epoch=1, last=True, **scores)])


def test_a_job_is_paused_and_resumed(frs: Any, submitted: Any) -> None:
    id = submitted()
    assert "paused" in frs("pause", id).output
    assert json.loads(frs("resume", id, "--json").output)["status"] == "queued"
    assert "Allowed now: cancel, pause" in frs("resume", id, code=1).stderr.replace("\n", " ")


def test_a_running_job_is_stopped_and_a_failed_job_retried(frs: Any, do: Any, claimed: Any) -> None:
    lease = claimed()
    assert "running" in frs("stop", lease.job_id).output
    do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED)
    assert json.loads(frs("retry", lease.job_id, "--json").output)["status"] == "queued"


def test_a_job_shows_the_workers_of_its_attempts_and_who_requested_an_action(frs: Any, claimed: Any) -> None:
    lease = claimed()
    frs("cancel", lease.job_id)
    output = frs("job", lease.job_id).output
    assert re.search(r"attempt 1 +on worker, .*Z, running", output)
    assert "cancel by admin" in output


def test_edit_changes_only_the_named_fields(frs: Any, submitted: Any) -> None:
    id = submitted(name="before", tags=["old"])
    output = frs("edit", id, "--name", "after", "--priority", 3).output
    assert "after" in output and "old" in output
    job = json.loads(frs("edit", id, "--tag", "a", "--tag", "b", "--json").output)
    assert (job["name"], job["tags"], job["priority"]) == ("after", ["a", "b"], 3)
    job = json.loads(frs("edit", id, "--name", "", "--tag", "", "--json").output)
    assert (job["name"], job["tags"], job["priority"]) == (None, [], 3)


def test_clean_reports_what_it_would_remove_and_removes_it_with_yes(frs: Any, submitted: Any) -> None:
    id = submitted()
    frs("cancel", id)
    assert "Would remove 1 jobs" in frs("clean", "--older-than", "0h", "--jobs").output
    assert status_of(frs, id) == "cancelled"
    assert "Removed 1 jobs" in frs("clean", "--older-than", "0h", "--jobs", "--yes").output
    assert "job_not_found" in frs("job", id, code=1).stderr


def test_clean_needs_an_age_and_something_to_remove(frs: Any) -> None:
    assert "not an age" in frs("clean", "--older-than", "soon", "--jobs", code=2).stderr
    assert "--checkpoints" in frs("clean", "--older-than", "1d", code=2).stderr


def test_usage_lists_owners_and_disks(frs: Any) -> None:
    output = frs("usage").output
    assert "admin" in output and "disk of artifacts" in output and "200.0 GB" in output


def test_delete_asks_for_confirmation(frs: Any, submitted: Any) -> None:
    id = submitted()
    frs("cancel", id)
    declined = CliRunner().invoke(app, ["delete", id], input="n\n")
    assert declined.exit_code == 1 and id in declined.stderr
    assert status_of(frs, id) == "cancelled"
    accepted = CliRunner().invoke(app, ["delete", id], input="y\n")
    assert accepted.exit_code == 0, accepted.output
    assert "job_not_found" in frs("job", id, code=1).stderr


def test_delete_with_yes_skips_the_confirmation_and_refuses_an_active_job(frs: Any, submitted: Any) -> None:
    id = submitted()
    assert "action_not_allowed" in frs("delete", id, "--yes", code=1).stderr
    frs("cancel", id)
    answer = json.loads(frs("delete", id, "--yes", "--keep-artifacts", "--json").output)
    assert answer == {"deleted": id, "artifacts": "keep"}


def test_a_waiting_job_shows_code_message_and_hint(frs: Any, submitted: Any) -> None:
    output = frs("job", submitted()).output
    for text in ("waiting_for_worker", "No worker is running.", "frs up"):
        assert text in output


def test_plan_prints_its_checks_and_exits_with_1_if_one_fails(frs: Any, spec: Any) -> None:
    output = frs("plan", spec(), "--set", "schedule.epochs=3").output
    assert "schedule" in output and "6 training steps" in output and "waiting_for_worker" in output
    assert json.loads(frs("plan", spec(), "--json").output)["steps"] == 4
    refused = frs("plan", spec(dataset="nowhere", student=STUDENT | {"init": {"weights": "none.pth"}}), code=1).output
    assert "dataset_not_found" in refused and "weights_not_found" in refused
    assert "error" in frs("plan", "shapes_gfl", "--set", "dataset=nowhere", code=1).output


def finish_next_probe(do: Any, **outcome: Any) -> threading.Thread:
    """Start a worker thread that claims the next probe and finishes it with `outcome`."""

    def work() -> None:
        while (lease := do(worker_requests.claim, "worker", 60.0)) is None:
            time.sleep(0.02)
        do(worker_requests.finish, lease, **outcome)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_plan_waits_for_the_probe_and_prints_its_estimate(frs: Any, do: Any, spec: Any) -> None:
    worker = finish_next_probe(do, result=ESTIMATE)
    output = frs("plan", spec(), "--probe").output
    worker.join(20)
    for text in ("2 steps, 1 epochs", "0.25 s", "512 MiB"):
        assert text in output


def test_plan_prints_the_reason_of_a_failed_probe(frs: Any, do: Any, spec: Any) -> None:
    assert "dataset_not_found" in frs("plan", spec(dataset="nowhere"), "--probe", code=1).stderr
    error = events.ErrorInfo(code="out_of_memory", message="It does not fit.", hint="Lower the batch.")
    worker = finish_next_probe(do, error=error)
    output = frs("plan", spec(), "--probe", code=1).stderr
    worker.join(20)
    assert "out_of_memory" in output and "Lower the batch." in output


def test_an_answer_that_this_version_cannot_read_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        terminal.show({"verdict": "a new one"}, render.report, as_json=False)
    assert "is not a Report as this version" in capsys.readouterr().err


def test_compare_marks_the_best_scores(frs: Any, do: Any, claimed: Any) -> None:
    a, b = claimed(name="one"), claimed(name="two", schedule={"epochs": 2, "batch_size": 4})
    evaluate(do, a, 0.25)
    evaluate(do, b, 0.5)
    do(recording.record, a, [events.Metrics(step=2, epoch=1, values={"train/loss": 1.5})])
    output = frs("compare", a.job_id, b.job_id).output
    for text in ("schedule.batch_size", "train/loss", "1.5", "25.0", "50.0 *", "circle"):
        assert text in output
    assert "25.0 *" not in output
    answer = json.loads(frs("compare", a.job_id, b.job_id, "--keys", "train/none", "--json").output)
    assert answer["curves"] == []
    assert "invalid_request" in frs("compare", a.job_id, code=1).stderr


def test_compare_says_that_scores_on_different_data_sets_cannot_be_compared() -> None:
    job = dict.fromkeys(("name", "status", "kind", "method", "parameters", "flops", "latency_ms")) | {"id": "job_1"}
    answer = {"jobs": [job], "differences": [], "curves": [], "evaluations": [], "comparable": False}
    console = Console(width=140, record=True)
    console.print(side_by_side.draw(answer))
    assert "different data sets: their scores cannot be compared" in console.export_text()


def test_the_queue_and_the_workers_are_shown(frs: Any, do: Any, submitted: Any, claimed: Any) -> None:
    first, running = submitted(name="urgent", priority=100), claimed(name="busy")
    gpu = {"index": 0, "name": "A GPU", "memory_total": 8 << 30, "memory_used": 2 << 30, "utilization": 50}
    missing = [{"key": "ds_1", "owner": "admin", "message": "lacks cells/val of data set cells."}]
    do(
        worker_registry.register,
        "worker",
        host="nearby",
        version="1.0",
        concurrency=2,
        gpus=[gpu],
        nodes=2,
        draining=True,
        missing=missing,
    )
    queue, workers = frs("queue").output, frs("workers").output
    assert "no estimate: No worker that claims jobs is running." in queue
    assert queue.index(first) < queue.index(f"running {running.job_id}")
    assert "urgent" in queue and "waiting_for_worker" in queue
    for text in (
        "nearby, first of 2 hosts",
        "A GPU, 2.0 of 8 GiB, 50 %",
        "draining",
        "nearby lacks cells/val of data set cells.",
    ):
        assert text in workers
    answer = json.loads(frs("queue", "--limit", 1, "--json").output)
    assert answer["data"][0]["job_id"] == first
    assert json.loads(frs("workers", "--json").output)["data"][0]["running"] >= 1
    assert "jobs in a row" not in workers
    do(worker_registry.deregister, "worker")


NO_TRAINING = {"epoch": 0, "epochs": 0, "step": 0, "steps": 0, "fraction": 0.0, "eta_seconds": None}
TRAINING = NO_TRAINING | {"epoch": 1, "epochs": 3, "step": 61, "steps": 260}


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, ""),
        (NO_TRAINING, ""),
        (NO_TRAINING | {"phase_fraction": 0.25}, "checking 25%"),
        (TRAINING, "epoch 1/3, step 61/260"),
        (TRAINING | {"eta_seconds": 75.0}, "epoch 1/3, step 61/260, 1:15 left"),
        (TRAINING | {"stale": True}, "epoch 1/3, step 61/260, stale: the worker does not respond"),
    ],
)
def test_the_queue_shows_the_progress_of_running_jobs(progress: Any, shown: str) -> None:
    row = {"job_id": "job_1", "phase": "checking", "name": "n", "progress": progress}
    answer = {"data": [], "running": [row], "counts": {}, "empty_at": "soon"}
    console = Console(file=io.StringIO(), width=200)
    console.print(render.queue(answer))
    assert f"running job_1  checking  n  {shown}".rstrip() in [
        line.rstrip() for line in console.file.getvalue().splitlines()
    ]


@pytest.mark.parametrize(
    ("requested", "shown"),
    [
        ({"devices": 8, "nodes": 2}, "8 on each of 2 hosts"),
        ({"devices": None, "nodes": 2}, "2 hosts"),
        ({"devices": 8, "nodes": 1}, "8"),
        ({"devices": None, "nodes": 1}, ""),
    ],
)
def test_the_queue_shows_the_gpus_and_hosts_that_a_job_requests(requested: Any, shown: str) -> None:
    row = {"position": 1, "job_id": "job_1", "priority": 0, "status_reason": {"code": "waiting_for_nodes"}, "name": "n"}
    row |= {"created_at": "2026-01-01T00:00:00Z"} | requested
    console = Console(file=io.StringIO(), width=200)
    console.print(render.queue({"data": [row], "running": [], "counts": {}, "empty_at": "soon"}))
    line = next(line for line in console.file.getvalue().splitlines() if "job_1" in line)
    assert " ".join(line.split()).startswith(f"1 job_1 0 {shown} waiting_for_nodes".replace("  ", " "))


def test_the_queue_names_the_jobs_that_its_estimate_leaves_out() -> None:
    reason = "No job of kind `compare` has succeeded recently."
    answer = {"data": [], "running": [], "counts": {}, "empty_at": "noon", "empty_at_reason": reason}
    console = Console(file=io.StringIO(), width=200)
    console.print(render.queue(answer))
    assert f"empty at about noon, others left out: {reason}" in console.file.getvalue()


def test_the_workers_table_names_a_worker_that_fails_job_after_job() -> None:
    row = {"name": "w1", "host": "h", "version": "1", "running": 0, "concurrency": 1, "gpus": [], "draining": False}
    row |= {"seen_at": "2026-01-01T00:00:00Z", "missing": [], "failures_in_a_row": 3, "nodes": 1}
    console = Console(file=io.StringIO(), width=200)
    console.print(render.workers([row]))
    assert "w1 failed on 3 jobs in a row: check its log, driver and disk." in console.file.getvalue()


def test_a_table_in_a_pipe_is_not_cut(frs: Any, submitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    id = submitted(name="a name of some length that a narrow terminal would cut")
    monkeypatch.setattr(terminal.stdout, "width", 40)
    output = frs("jobs").output
    assert id in output and "a name of some length that a narrow terminal would cut" in output


def test_a_table_that_a_narrow_terminal_cuts_ends_in_an_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=40, force_terminal=True, file=io.StringIO())
    monkeypatch.setattr(terminal, "stdout", console)
    row = {"id": "ds_1", "name": "n" * 60, "status": "ready", "counts": None, "classes": None, "issue_count": 0}
    terminal.show({"data": [row]}, terminal.render_rows(render.datasets), as_json=False)
    assert "\N{HORIZONTAL ELLIPSIS}" in console.file.getvalue()


def test_log_lines_have_a_time(frs: Any, do: Any, claimed: Any) -> None:
    lease = claimed(name="logged")
    do(recording.record, lease, [events.Log(level="info", message="first line")])
    [line] = frs("logs", lease.job_id).output.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ first line", line)


def test_job_ids_are_completed(frs: Any, submitted: Any) -> None:
    id = submitted()
    assert id in job_ids("job_")
    assert job_ids("nothing") == []


def test_cancel_lists_the_jobs_that_fail_without_the_student(frs: Any, submitted: Any) -> None:
    teacher = submitted()
    student = submitted(name="student", kind="distill", teacher={"job": teacher})
    assert f"1 jobs, which fail without its student: student ({student})" in frs("job", teacher).output
    output = frs("cancel", teacher).output
    assert "cancelled" in output and f"student ({student})" in output
    assert status_of(frs, student) == "failed"
