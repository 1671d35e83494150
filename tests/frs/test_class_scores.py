"""The distilled logits of every head are those of the scores that it predicts, YOLOX's with its objectness."""

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from test_distiller import batch, detector
from torch import Tensor

from frs.detectors.heads import class_logits, dense_head, logit_of_product, logits_of_outputs
from frs.distillation.distiller import Distiller
from frs.distillation.losses import richness
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation
from frs.facts import LossWeights

WITHOUT_CENTERNESS = ("gfl", "retinanet", "tood", "vfnet", "rtmdet", "yolox")
"""Architectures whose predicted scores are class scores; those of FCOS and ATSS are multiplied by the centerness."""


def sigmoid(logits: Tensor) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits.detach().double().numpy()))
    return result


def widened(architecture: str) -> Any:
    """Return a detector whose class scores differ from location to location, as those of a trained one."""
    model = detector(architecture).eval()
    for name, parameter in model.bbox_head.named_parameters():
        if name.endswith("weight") and parameter.dim() == 4:
            parameter.data *= 3
    return model


def test_the_logit_of_a_product_is_that_of_numpy() -> None:
    classes, objectness = 4 * torch.randn(2, 5, 3, 3), 4 * torch.randn(2, 1, 3, 3)
    product = sigmoid(classes) * sigmoid(objectness)
    np.testing.assert_allclose(logit_of_product(classes, objectness), np.log(product / (1 - product)), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logit_of_a_product_and_its_gradient_are_finite_for_extreme_logits(dtype: torch.dtype) -> None:
    extremes = torch.tensor([-3e4, -100.0, -1.0, 0.0, 1.0, 100.0, 3e4], dtype=dtype)
    classes, objectness = (grid.clone().requires_grad_() for grid in torch.meshgrid(extremes, extremes, indexing="ij"))
    logits = logit_of_product(classes, objectness)
    logits.sum().backward()
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
    for factor in (classes, objectness):
        assert factor.grad is not None and torch.isfinite(factor.grad).all() and (factor.grad >= 0).all()


def test_the_richness_of_yolox_is_the_highest_product_of_class_and_objectness() -> None:
    model = widened("yolox")
    pyramid = model.extract_feat(torch.randn(2, 3, 96, 96))
    classes, _, objectness = model.bbox_head(pyramid)
    for level, logits in enumerate(class_logits(model, pyramid)):
        expected = (sigmoid(classes[level]) * sigmoid(objectness[level])).max(axis=1, keepdims=True)
        np.testing.assert_allclose(richness(logits), expected, rtol=1e-4)


@pytest.mark.parametrize("architecture", WITHOUT_CENTERNESS)
def test_the_highest_richness_is_the_score_of_the_best_detection(architecture: str) -> None:
    model = widened(architecture)
    model.bbox_head.test_cfg.update(score_thr=0.0, min_bbox_size=-1)  # untrained boxes may be empty
    meta = {"img_shape": (96, 96), "ori_shape": (96, 96), "scale_factor": (1.0, 1.0)}
    image = {"inputs": [torch.rand(3, 96, 96) * 255], "data_samples": [DetDataSample(metainfo=meta)]}
    with torch.no_grad():
        [sample] = model.test_step(image)
    _, logits = Teacher(model).observe(image["inputs"])
    highest = max(float(richness(level).max()) for level in logits.values())
    assert float(sample.pred_instances.scores.max()) == pytest.approx(highest, rel=1e-4)


def test_the_probabilities_of_tood_are_converted_to_logits() -> None:
    model = widened("tood")
    head, pyramid = dense_head(model), model.extract_feat(torch.randn(1, 3, 96, 96))
    outputs = head(pyramid)
    for logits, probability in zip(logits_of_outputs(head, outputs), outputs[0], strict=True):
        torch.testing.assert_close(logits.sigmoid(), probability, rtol=1e-4, atol=1e-5)
    certain = [torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)]
    assert torch.isfinite(logits_of_outputs(head, (certain, certain))[0]).all()


@pytest.mark.parametrize("teacher", ["gfl", "yolox"])
def test_the_logit_term_trains_class_and_objectness_of_a_yolox_student(teacher: str) -> None:
    model = Distiller(
        detector("yolox"), Teacher(widened(teacher)), Distillation(), LossWeights(0.0, 1.0), WeightSchedule(1)
    )
    model.train().forward_both(batch()).terms["logit"].backward()
    head = model.student.bbox_head
    for branch in (head.multi_level_conv_cls, head.multi_level_conv_obj):
        assert all(convolution.weight.grad.abs().sum() > 0 for convolution in branch)


def test_an_objectness_of_1_leaves_the_class_logits() -> None:
    classes = 4 * torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(logit_of_product(classes, torch.full((1, 1, 6, 6), 50.0)), classes)
