from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_distiller import batch, distiller
from test_engine import facts, values
from tiny import Train, job, of

from frs import events
from frs.distillation.calibration import calibrate, measure_gradient_norms
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import fingerprint
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation
from frs.engine.hooks import WeightAdjustmentHook
from frs.engine.loop import LoopState
from frs.errors import NoGradient

AUTO = {"feature_weight": "auto", "logit_weight": "auto"}


def calibrated(weights: LossWeights, **distillation: Any) -> Distiller:
    model = distiller(weights=weights, distillation=Distillation(**distillation))
    model.weights = calibrate(model, [batch(), batch()], step=7)
    return model


def test_each_weighted_term_has_its_target_gradient_ratio_to_the_task_loss() -> None:
    model = calibrated(LossWeights(None, None), feature_ratio=12, logit_ratio=0.5)
    norms = measure_gradient_norms(model, batch())
    assert model.weights.feature is not None and model.weights.logit is not None
    assert model.weights.feature * norms["feature"] == pytest.approx(12 * norms["task"], rel=0.01)
    assert model.weights.logit * norms["logit"] == pytest.approx(0.5 * norms["task"], rel=0.01)


def without_boxes() -> dict[str, Any]:
    raw = batch()
    for sample in raw["data_samples"]:
        sample.gt_instances = sample.gt_instances[:0]
    return raw


def test_batches_without_a_gradient_do_not_change_the_weights() -> None:
    model = distiller(weights=LossWeights(None, None), method="boxes")
    model.weights = calibrate(model, [batch()], step=0)  # the adapter is fitted once
    expected = calibrate(model, [batch(), batch()], step=1)
    assert calibrate(model, [without_boxes(), batch(), batch(), without_boxes()], step=1) == expected


def test_a_term_without_a_gradient_in_any_batch_is_refused() -> None:
    model = distiller(weights=LossWeights(None, 0.1), method="boxes")
    with pytest.raises(NoGradient, match=r"None of the 2 .* feature term"):
        calibrate(model, [without_boxes()] * 2, step=0)
    fixed = distiller(weights=LossWeights(0.1, 0.1), method="boxes")
    assert calibrate(fixed, [without_boxes()], step=0).feature == 0.1


def test_the_ramp_starts_at_the_step_of_the_calibration() -> None:
    assert calibrated(LossWeights(None, None)).weights.ramp_from == 7


def test_calibration_keeps_a_weight_that_the_spec_sets() -> None:
    assert calibrated(LossWeights(0.5, None)).weights.feature == 0.5
    assert calibrated(LossWeights(None, 0.0)).weights.logit == 0.0


def test_calibration_does_not_change_the_student_or_the_random_state() -> None:
    model = distiller(weights=LossWeights(None, None))
    raw = batch()
    before, random_state = fingerprint(model.student), torch.get_rng_state()
    calibrate(model, [raw], step=0)
    assert fingerprint(model.student) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_second_calibration_changes_the_open_weights_alone_and_keeps_adapter_and_ramp() -> None:
    model = calibrated(LossWeights(0.5, None))
    assert model.adapter is not None
    before, first = fingerprint(model.adapter), model.weights
    model.weights = replace(first, logit=99.0)
    second = calibrate(model, [batch(), batch()], step=20)
    assert (second.feature, second.ramp_from, second.calibrated_at) == (0.5, 7, 20)
    assert second.logit == pytest.approx(first.logit, rel=0.01)
    assert fingerprint(model.adapter) == before


def test_a_run_recalibrates_once_after_a_quarter_of_its_steps(train: Train) -> None:
    emitted = train(job(schedule={"max_steps": 12, "epochs": 3}, distillation=AUTO | {"recalibrate": True}))
    lines = [event.message for event in of(events.Log, emitted) if "calibrated at step" in event.message]
    assert [line.split(":")[0] for line in lines] == [
        "Weights calibrated at step 1",
        "Weights calibrated at step 3",
    ]
    assert facts(emitted)["weights"]["calibrated_at"] == 3


@pytest.mark.parametrize(
    ("end", "factors"),
    [(None, [0, 0, 0.5, 1, 1, 1, 1]), (34, [0, 0, 0.5, 1, 0.525, 0.05, 0.05])],
    ids=["constant", "cosine"],
)
def test_the_factor_rises_in_the_ramp_and_then_stays_or_falls_as_a_cosine(
    end: int | None, factors: list[float]
) -> None:
    schedule = WeightSchedule(ramp_steps=4, end=end)
    assert [schedule.factor(step, ramp_from=10) for step in (0, 10, 12, 14, 24, 34, 99)] == pytest.approx(factors)


def test_the_last_step_of_a_cosine_has_a_small_part_of_the_constant_share(train: Train, tmp_path: Path) -> None:
    spec = {"schedule": {"epochs": 4}, "distillation": AUTO | {"feature_ratio": 1, "logit_ratio": 1}}
    constant = values(train(job(**spec), tmp_path / "constant"))
    spec["distillation"] |= {"weight_schedule": "cosine"}
    cosine = values(train(job(**spec), tmp_path / "cosine"))
    last = max(step for step, name in constant if name == "train/share_feature")
    assert cosine[last, "train/share_feature"] < 0.5 * constant[last, "train/share_feature"]


class Runner(SimpleNamespace):
    """A stand-in for mmengine's runner with the attributes that the hook reads."""

    def __init__(self, model: Distiller) -> None:
        super().__init__(model=model, iter=0, train_loop=SimpleNamespace(state=LoopState()))

    def step(self, hook: WeightAdjustmentHook, **shares: float) -> None:
        self.iter += 1
        logs = {f"share_{name}": torch.tensor(share) for name, share in shares.items()}
        hook.after_train_iter(self, 0, outputs=[logs])


def adjusting(**fixed: float) -> tuple[WeightAdjustmentHook, Runner, list[Any]]:
    """Return the hook, a runner of a distiller with weights 1 whose ramp ends at step 4, and the emitted facts."""
    ratios = Distillation(feature_ratio=30, logit_ratio=1)
    model = distiller(weights=LossWeights(fixed.get("feature"), fixed.get("logit")), distillation=ratios)
    model.weights = LossWeights(1.0, 1.0)
    emitted: list[Any] = []
    return WeightAdjustmentHook(SimpleNamespace(facts=emitted.append)), Runner(model), emitted


def test_adaptive_weights_move_once_an_epoch_towards_the_target_ratios() -> None:
    hook, runner, emitted = adjusting()
    for share in (999.0, 999.0, 999.0, 999.0, 15.0, 30.0):  # the first four steps are in the ramp
        runner.step(hook, feature=share, logit=50.0)
    hook.after_train_epoch(runner)
    assert runner.model.weights.feature == pytest.approx(30 / geometric_mean([15.0, 30.0]))
    assert runner.model.weights.logit == 0.5, "the change of an epoch is limited"
    assert runner.train_loop.state.weights == runner.model.weights == emitted[-1].weights
    runner.step(hook, feature=30.0, logit=1.0)
    before = runner.model.weights.feature
    hook.after_train_epoch(runner)
    assert runner.model.weights.feature == pytest.approx(before), "the ratios of the last epoch do not count again"


def test_a_weight_that_the_spec_sets_is_not_moved() -> None:
    hook, runner, _ = adjusting(feature=1.0)
    for _ in range(5):
        runner.step(hook, feature=1.0, logit=2.0)
    hook.after_train_epoch(runner)
    assert runner.model.weights == LossWeights(1.0, 0.5)


@pytest.mark.parametrize("ratio", [0.0, float("nan"), float("inf")])
def test_an_epoch_without_a_positive_ratio_keeps_the_weights(ratio: float) -> None:
    hook, runner, _ = adjusting()
    for _ in range(6):
        runner.step(hook, feature=ratio)
    hook.after_train_epoch(runner)
    assert runner.model.weights == LossWeights(1.0, 1.0)
