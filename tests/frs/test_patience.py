"""Training ends after `schedule.patience` evaluations without a new highest mAP."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_engine import assert_equal, facts, newest_checkpoint, series
from tiny import Train, job, of

from frs import events
from frs.evaluation.coco_scores import NAMES, Scores
from frs.preflight.context import RunContext
from frs.training.stop_request import Interrupted

SPEC = job(kind="train", teacher=None, schedule={"epochs": 6, "batch_size": 7, "patience": 2})  # 2 steps an epoch


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the mAPs that the next evaluations have, in order; 0.5 after these."""
    planned: list[float] = []

    def evaluate(*_: Any) -> tuple[Scores, Any]:
        metrics = dict.fromkeys(NAMES, planned.pop(0) if planned else 0.5)
        return Scores(metrics, {}, images=4, detections=0), np.zeros((0, 7))

    monkeypatch.setattr(RunContext, "evaluate", evaluate)
    return planned


@pytest.mark.parametrize(
    ("planned", "steps"),
    [([], 6), ([0.1, 0.2, 0.3], 12), ([0.9, 0.5, 0.95], 10)],
    ids=["never better", "at the last epoch", "better in time"],
)
def test_training_ends_without_a_new_highest_map(
    train: Train, scores: list[float], planned: list[float], steps: int
) -> None:
    scores += planned
    emitted = train(SPEC)
    assert max(series(emitted)["train/loss"]) == steps
    ended = "no_improvement" if steps < 12 else "completed"
    assert emitted[-1].end_reason == ended
    warned = any(f"Training ended at step {steps} of 12" in text for text in facts(emitted).get("warnings", ()))
    assert warned is (ended == "no_improvement")
    assert [event.step for event in of(events.Checkpoint, emitted) if "last" in event.labels] == [steps]


@pytest.mark.parametrize("stop_at", [4, 5], ids=["before an evaluation", "after an evaluation"])
def test_a_resumed_run_counts_the_evaluations_before_it(
    train: Train, scores: list[float], tmp_path: Path, stop_at: int
) -> None:
    train(SPEC, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(SPEC, tmp_path / "parts", stop_at=stop_at)
    assert train(SPEC, tmp_path / "parts")[-1].end_reason == "no_improvement"
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))


def test_a_run_that_ended_ends_again_at_the_same_step(train: Train, scores: list[float], tmp_path: Path) -> None:
    train(SPEC)
    emitted = train(SPEC)
    assert "train/loss" not in series(emitted) and emitted[-1].end_reason == "no_improvement"
    assert series(emitted)["val/bbox_mAP"] == [6, 6]
