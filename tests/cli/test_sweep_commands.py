"""`frs sweep` posts a search and shows its settings with intervals and the verdict."""

import json

import pytest
import yaml

from cli import sweeps
from frs_client import Client

GFL = {"architecture": "gfl"}
RATE = "schedule.optimizer.learning_rate"
ROW = {"setting": 1, "values": {RATE: 0.01}, "epochs": None, "seeds": 2, "mAP": 0.42}
DETAILS = {
    "id": "sweep_1",
    "status": "succeeded",
    "error": None,
    "settings": 2,
    "trials_posted": 4,
    "trials_ended": 4,
    "trials_failed": 1,
    "spec": {"space": {RATE: [0.1, 0.01]}},
    "table": [
        ROW | {"interval": {"low": 0.40, "high": 0.44}},
        ROW | {"setting": 0, "values": {RATE: 0.1}, "seeds": 1, "mAP": None, "interval": None},
    ],
    "best": ROW | {"interval": {"low": 0.40, "high": 0.44}},
    "confirmation": {
        "job_id": "job_9",
        "first_seed": 2,
        "seeds": 3,
        "mAP": 0.43,
        "comparison": {"gain": 0.021},
        "verdict": "no_difference",
        "verdict_by": "seeds",
        "interval": {"low": -0.004, "high": 0.046},
        "caveat": "Both are measured on the same validation images.",
    },
}


@pytest.fixture
def spec(tmp_path):
    file = tmp_path / "spec.yaml"
    fields = {"dataset": "shapes", "teacher": GFL, "student": GFL, "schedule": {"epochs": 9}}
    file.write_text(yaml.safe_dump(fields))
    return file


@pytest.fixture
def answered(monkeypatch):
    """Replace the service: the sweep takes these statuses, one per query."""

    def answer(*statuses):
        remaining = list(statuses)
        monkeypatch.setattr(Client, "post", lambda self, path, body: DETAILS | {"status": "searching"})
        monkeypatch.setattr(Client, "get", lambda self, path: DETAILS | {"status": remaining.pop(0)})
        monkeypatch.setattr(sweeps, "POLL_SECONDS", 0)

    return answer


def test_a_sweep_is_posted_listed_stopped_resumed_and_deleted(frs, shapes, spec):
    posted = frs("sweep", spec, "--over", f"{RATE}=0.1,0.01", "--seeds", 1, "--name", "rates", "--json").output
    sweep = json.loads(posted)
    assert (sweep["settings"], sweep["trials_posted"], sweep["spec"]["seeds"]) == (2, 2, 1)
    assert sweep["id"] in frs("sweeps", "list").output
    shown = frs("sweeps", "show", sweep["id"]).output
    assert f"{sweep['id']}  searching: 2 settings, 0 of 2 posted trials have ended." in shown
    assert "stopped" in frs("sweeps", "stop", sweep["id"]).output
    assert "searching" in frs("sweeps", "resume", sweep["id"]).output
    assert "Stop it first" in frs("sweeps", "delete", sweep["id"], "--yes", code=1).output
    frs("sweeps", "stop", sweep["id"])
    assert frs("sweeps", "delete", sweep["id"], "--yes").output == f"Deleted {sweep['id']}.\n"


def test_ranges_and_the_strategy_are_options(frs, shapes, spec):
    over = ["--over", f"{RATE}=log_uniform(1e-4, 1e-2)", "--over", "schedule.batch_size=int_uniform(2,8)"]
    sweep = json.loads(frs("sweep", spec, *over, "--asha", 9, "--max-minutes", 60, "--json").output)
    assert sweep["spec"]["space"] == {
        RATE: {"log_uniform": [1e-4, 1e-2]},
        "schedule.batch_size": {"int_uniform": [2, 8]},
    }
    assert (sweep["spec"]["strategy"], sweep["spec"]["samples"], sweep["spec"]["max_minutes"]) == ("asha", 9, 60)
    frs("sweeps", "stop", sweep["id"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--over", "method"], "expected FIELD=VALUES"),
        (["--over", "method=[frs"], "--over method=[frs is neither YAML nor JSON"),
        (["--over", f"{RATE}=uniform(a,b)"], "the ends of the range are not numbers"),
        (["--over", f"{RATE}=uniform(0,inf)"], "the ends of the range are not numbers"),
        (["--over", f"{RATE}=0.1,.nan"], "nan is not a finite number"),
        (["--over", "dataset=2026-05-01"], "space.dataset"),
        (["--over", f"{RATE}=0.1,-1"], f"space.{RATE}"),
        (["--over", "owner=mallory"], "space.owner: This field cannot be searched."),
        (["--over", "method=frs", "--over", "method=pkd"], "--over method=pkd: the field was given before"),
        (["--over", f"{RATE}=0.1", "--random", "2", "--asha", "2"], "exclude each other"),
    ],
)
def test_an_invalid_option_is_named(frs, shapes, spec, options, message):
    assert message in frs("sweep", spec, *options, code=1).output


def test_waiting_shows_the_settings_and_the_verdict(frs, answered, spec):
    answered("searching", "confirming", "succeeded")
    output = frs("sweep", spec, "--over", f"{RATE}=0.1,0.01", "--wait").output
    assert "sweep_1  confirming: 2 settings, 4 of 4 posted trials have ended, 1 without a result." in output
    assert "40.0 to 44.0" in output
    verdict = "no difference; mAP 43.0, +2.1 points over the baseline (-0.4 to +4.6, over seeds)."
    assert f"Confirmed by job_9 on seeds 2 to 4: {verdict}" in output
    assert "same validation images" in output


def test_a_failed_sweep_sets_the_exit_status(frs, answered, spec):
    answered("failed")
    frs("sweep", spec, "--over", f"{RATE}=0.1,0.01", "--wait", code=1)
