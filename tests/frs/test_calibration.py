import pytest
import torch
from test_distiller import batch, distiller

from frs.distillation.calibration import SHARES, calibrate, measure
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import fingerprint


def calibrated(weights: LossWeights) -> Distiller:
    model = distiller(weights=weights)
    model.step = 7
    model.weights = calibrate(model, [batch(), batch()])
    return model


def test_each_terms_gradient_gets_its_share_of_the_tasks() -> None:
    model = calibrated(LossWeights(None, None))
    norms = measure(model, batch())
    assert model.weights.feature is not None and model.weights.logit is not None
    assert model.weights.feature * norms["feature"] == pytest.approx(SHARES["feature"] * norms["task"], rel=0.01)
    assert model.weights.logit * norms["logit"] == pytest.approx(SHARES["logit"] * norms["task"], rel=0.01)


def test_the_ramp_starts_where_the_weights_were_found() -> None:
    assert calibrated(LossWeights(None, None)).weights.ramp_from == 7


def test_a_given_weight_is_kept() -> None:
    assert calibrated(LossWeights(0.5, None)).weights.feature == 0.5
    assert calibrated(LossWeights(None, 0.0)).weights.logit == 0.0


def test_the_student_and_the_random_state_are_left_as_they_were() -> None:
    model = distiller(weights=LossWeights(None, None))
    raw = batch()
    before, random_state = fingerprint(model.student), torch.get_rng_state()
    calibrate(model, [raw])
    assert fingerprint(model.student) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
