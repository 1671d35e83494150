"""Gradient accumulation: a step has several batches, whose gradients are averaged."""

from pathlib import Path

import pytest
import torch
from test_engine import assert_equal, newest_checkpoint, series, values
from tiny import Train, job, of

from frs import events
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import Interrupted

ACCUMULATE = {
    "accumulate": 3,
    "epochs": 2,
}  # 14 images are 4 batches of 4: each epoch has a step of 3 batches and one of 1


@pytest.mark.parametrize(("gradients", "weight"), [([2.0, 6.0], -4.0), ([6.0], -6.0)], ids=["complete", "rest"])
def test_a_step_uses_the_mean_gradient_of_its_batches(gradients: list[float], weight: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    wrapper = AutocastOptimWrapper(
        "fp32", "cpu", optimizer=torch.optim.SGD(model.parameters(), lr=1.0), accumulative_counts=2
    )
    for _ in range(2):
        wrapper.initialize_count_status(model, 0, len(gradients))
        for gradient in gradients:
            wrapper.update_params(gradient * model.weight.sum())
    assert model.weight.item() == 2 * weight


def test_an_epoch_has_every_image_once_and_its_last_step_the_batches_that_remain(train: Train) -> None:
    emitted = train(job(schedule=ACCUMULATE, unlabelled="tiny", distillation={"feature_weight": "auto"}))
    assert series(emitted)["train/loss"] == [1, 2, 3, 4]
    assert series(emitted)["val/bbox_mAP"] == [2, 4]
    progress = of(events.Progress, emitted)[-1]
    assert (progress.step, progress.steps, progress.epoch, progress.fraction) == (4, 4, 2, 1.0)


def test_a_step_of_one_batch_is_that_of_a_run_without_accumulation(train: Train, tmp_path: Path) -> None:
    spec = {"batch_size": 14, "max_steps": 2}
    one = train(job(schedule=spec), tmp_path / "one")
    assert values(train(job(schedule=spec | {"accumulate": 4}), tmp_path / "four")) == values(one)


def test_a_run_with_accumulation_resumes_at_any_step(train: Train, tmp_path: Path) -> None:
    train(job(schedule=ACCUMULATE), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(job(schedule=ACCUMULATE), tmp_path / "parts", stop_at=1)
    train(job(schedule=ACCUMULATE), tmp_path / "parts")
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))
