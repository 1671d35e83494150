from pathlib import Path

import pytest
from tiny import Train, job, of

from frs import events
from frs.training.stop_request import STOP_FILE, Interrupted


def ends(told: list[events.Event]) -> str | None:
    return of(events.Outcome, told)[0].end_reason


def test_a_run_asked_to_stop_ends_at_that_step_with_a_student_and_its_scores(train: Train, tmp_path: Path) -> None:
    told = train(job(), tmp_path / "run", stop_early_at=2)
    assert ends(told) == "stopped_early"
    assert [event.step for event in of(events.Metrics, told) if "train/loss" in event.values] == [1, 2]
    assert [(event.step, event.last) for event in of(events.Evaluation, told) if event.role == "student"] == [(2, True)]
    kept = [(event.kind, event.step, event.labels) for event in of(events.Checkpoint, told)]
    assert kept == [("training", 2, ()), ("student", 2, ("best", "last"))]


def test_a_stopped_run_that_dies_before_its_evaluation_trains_no_further(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(job(), tmp_path / "run", stop_at=2)
    (tmp_path / "run" / STOP_FILE).touch()
    told = train(job(), tmp_path / "run")
    assert ends(told) == "stopped_early"
    assert [event.step for event in of(events.Metrics, told) if "train/loss" in event.values] == []
    assert [event.step for event in of(events.Evaluation, told) if event.last and event.role == "student"] == [2]


def test_a_stop_asked_for_before_the_first_step_leaves_one_step_learned(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STOP_FILE).touch()
    told = train(job(), tmp_path / "run")
    assert [event.step for event in of(events.Metrics, told) if "train/loss" in event.values] == [1]


def test_a_stop_at_the_last_step_is_a_completed_run(train: Train, tmp_path: Path) -> None:
    told = train(job(), tmp_path / "run", stop_early_at=8)
    assert ends(told) == "completed"
