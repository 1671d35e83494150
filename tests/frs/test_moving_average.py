"""The moving average of the student's weights: it is evaluated, delivered and resumed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import assert_equal, newest_checkpoint, values
from tiny import Train, job, of

from frs import events
from frs.detectors import weights
from frs.training.stop_request import Interrupted

EMA: dict[str, Any] = {"ema": 0.9, "epochs": 1}


@pytest.mark.parametrize("arm", [{}, {"kind": "train", "teacher": None}], ids=["distilled", "baseline"])
def test_the_average_is_delivered_and_resumed(train: Train, tmp_path: Path, arm: dict[str, Any]) -> None:
    spec = job(schedule=EMA, **arm)
    whole = train(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(spec, tmp_path / "parts", stop_at=2)
    parts = train(spec, tmp_path / "parts")
    checkpoint = newest_checkpoint(tmp_path / "whole")
    assert_equal(checkpoint, newest_checkpoint(tmp_path / "parts"))
    delivered = [[e.sha256 for e in of(events.Checkpoint, run) if "last" in e.labels] for run in (whole, parts)]
    assert delivered[0] == delivered[1]
    [file] = [event for event in of(events.Checkpoint, whole) if "last" in event.labels]
    student = weights.read(tmp_path / "whole" / file.path)["state_dict"]
    average = {key.removeprefix("module."): value for key, value in checkpoint["average"].items() if key != "steps"}
    assert_equal(dict(student), average)
    trained = {key.removeprefix("student."): value for key, value in checkpoint["model"].items()}
    assert not torch.equal(student["bbox_head.gfl_cls.weight"], trained["bbox_head.gfl_cls.weight"])


def test_an_average_does_not_change_the_training(train: Train, tmp_path: Path) -> None:
    def losses(emitted: list[events.Event]) -> dict[Any, Any]:
        return {key: value for key, value in values(emitted).items() if key[1].startswith("train/")}

    plain = train(job(schedule={"epochs": 1}), tmp_path / "plain")
    averaged = train(job(schedule=EMA), tmp_path / "averaged")
    assert losses(averaged) == losses(plain)
    models = [newest_checkpoint(tmp_path / name)["model"] for name in ("plain", "averaged")]
    assert_equal(*models)


def test_the_average_starts_at_the_weights_of_the_first_step_and_follows_them(train: Train, tmp_path: Path) -> None:
    train(job(schedule=EMA | {"checkpoint_every": 1, "max_steps": 2}))
    first, second = (weights.read(path) for path in sorted((tmp_path / "run" / "checkpoints").iterdir()))
    rise = 1 - math.exp(-2 / 10)  # of the decay, at the second step of an average over 10
    for key, value in first["average"].items():
        if key != "steps":
            start, end = (content["model"][key.replace("module.", "student.", 1)] for content in (first, second))
            assert torch.equal(value, start), key
            torch.testing.assert_close(second["average"][key], 0.9 * rise * start + (1 - 0.9 * rise) * end)
