from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import Train, job, of

from frs import events
from frs.engine import hooks
from frs.training.stop_request import STOP_FILE, Interrupted


def end_reason(emitted: list[events.Event]) -> str | None:
    return of(events.Outcome, emitted)[0].end_reason


def test_a_stop_request_ends_the_run_at_that_step_with_a_student_and_its_scores(train: Train, tmp_path: Path) -> None:
    emitted = train(job(), tmp_path / "run", stop_early_at=2)
    assert end_reason(emitted) == "stopped_early"
    assert [event.step for event in of(events.Metrics, emitted) if "train/loss" in event.values] == [1, 2]
    assert [(event.step, event.last) for event in of(events.Evaluation, emitted) if event.role == "student"] == [
        (2, True)
    ]
    checkpoints = [(event.kind, event.step, event.labels) for event in of(events.Checkpoint, emitted)]
    assert checkpoints == [("training", 2, ()), ("student", 2, ("best", "last"))]


def test_a_stopped_run_that_ends_before_its_evaluation_resumes_with_the_evaluation(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(job(), tmp_path / "run", stop_at=2)
    (tmp_path / "run" / STOP_FILE).touch()
    emitted = train(job(), tmp_path / "run")
    assert end_reason(emitted) == "stopped_early"
    assert [event.step for event in of(events.Metrics, emitted) if "train/loss" in event.values] == []
    assert [event.step for event in of(events.Evaluation, emitted) if event.last and event.role == "student"] == [2]


def test_a_stop_requested_before_the_first_step_trains_one_step(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STOP_FILE).touch()
    emitted = train(job(), tmp_path / "run")
    assert [event.step for event in of(events.Metrics, emitted) if "train/loss" in event.values] == [1]


def test_a_run_stopped_at_its_last_step_is_completed(train: Train, tmp_path: Path) -> None:
    emitted = train(job(), tmp_path / "run", stop_early_at=8)
    assert end_reason(emitted) == "completed"


class SlowSteps(list[events.Event]):
    """Events of a run whose steps take 25 s each on the clock of the hooks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(hooks, "time", SimpleNamespace(monotonic=lambda: self.now))

    def append(self, event: events.Event) -> None:
        super().append(event)
        if isinstance(event, events.Metrics) and "train/loss" in event.values:
            self.now += 25.0


def trained_steps(emitted: list[events.Event]) -> list[int]:
    return [event.step for event in of(events.Metrics, emitted) if "train/loss" in event.values]


def test_the_time_limit_ends_the_run_with_a_student(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted = train(job(resources={"max_minutes": 1}), emitted=SlowSteps(monkeypatch))
    assert (end_reason(emitted), trained_steps(emitted)) == ("time_limit", [1, 2, 3])


def test_the_time_limit_counts_the_attempts_before(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        train(job(resources={"max_minutes": 1}), stop_at=2, emitted=SlowSteps(monkeypatch))
    emitted = train(job(resources={"max_minutes": 1}), emitted=SlowSteps(monkeypatch))
    assert (end_reason(emitted), trained_steps(emitted)) == ("time_limit", [3])
