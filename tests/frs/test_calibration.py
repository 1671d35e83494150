import pytest
import torch
from test_distiller import batch, distiller

from frs.distillation.calibration import TARGET_GRADIENT_RATIOS, calibrate, measure_gradient_norms
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import fingerprint


def calibrated(weights: LossWeights) -> Distiller:
    model = distiller(weights=weights)
    model.weights = calibrate(model, [batch(), batch()], step=7)
    return model


def test_each_weighted_term_has_its_target_gradient_ratio_to_the_task_loss() -> None:
    model = calibrated(LossWeights(None, None))
    norms = measure_gradient_norms(model, batch())
    assert model.weights.feature is not None and model.weights.logit is not None
    assert model.weights.feature * norms["feature"] == pytest.approx(
        TARGET_GRADIENT_RATIOS["feature"] * norms["task"], rel=0.01
    )
    assert model.weights.logit * norms["logit"] == pytest.approx(
        TARGET_GRADIENT_RATIOS["logit"] * norms["task"], rel=0.01
    )


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
