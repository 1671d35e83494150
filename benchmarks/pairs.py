"""Teachers and students with random weights, and synthetic batches, for the benchmarks."""

from functools import partial
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from frs.detector_spec import DescribedDetector
from frs.detectors import builder
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation
from frs.recipes import RECIPES

RECIPE_OF = {
    "retinanet": "retinanet_r101_r50_2x",
    "gfl": "gfl_r101_r50_1x",
    "faster_rcnn": "faster_rcnn_r101_r50_1x",
    "fcos": "fcos_r101_r50_2x",
}
"""Recipes of the paper, by architecture."""
EDGE = "edge"
"""Name of the pair of the recipes `edge_teacher` and `edge_student`: EfficientNet-Lite2 to -Lite0."""
CLASSES = 80


def student(detector: str, tiny: bool = False, classes: int = CLASSES) -> Any:
    """Return the recipe's student; with `tiny`, a very small one of the same architecture."""
    return build(describe(detector, 16) if tiny else _described(detector, "student"), classes)


def teacher(detector: str, tiny: bool = False, classes: int = CLASSES) -> Any:
    """Return the recipe's teacher; with `tiny`, a very small one of the same architecture."""
    return build(describe(detector, 32) if tiny else _described(detector, "teacher"), classes)


def _described(detector: str, role: str) -> Any:
    if detector != EDGE:
        return getattr(RECIPES[RECIPE_OF[detector]].spec, role)
    described = RECIPES[f"edge_{role}"].spec.student
    return described.model_copy(update={"backbone": described.backbone.model_copy(update={"norm": "frozen_bn"})})


def distiller(student: Any, teacher: Any) -> Distiller:
    """Return a distiller with both loss terms whose `train_step` repeats a step without a diagnosis."""
    distiller = Distiller(student, Teacher(teacher), Distillation(), LossWeights(1e-4, 1e-2), WeightSchedule(1))
    distiller.train_step = partial(distiller.train_step, step=1)
    return distiller


def build(ref: Any, classes: int) -> Any:
    return builder.build(ref.model_copy(update={"init": "random"}), classes, Path())


def describe(detector: str, channels: int) -> DescribedDetector:
    backbone = {"depth": 18, "width": 8, "norm": "frozen_bn"}
    architecture = "gfl" if detector == EDGE else detector
    shape = {"architecture": architecture, "backbone": backbone, "neck_channels": channels, "stacked_convs": 1}
    return DescribedDetector.model_validate(shape)


def batch(size: tuple[int, int], images: int, classes: int = CLASSES) -> dict[str, Any]:
    """Return a batch as from the data loader: noise of size (height, width) with eight boxes per image."""
    return {
        "inputs": [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for _ in range(images)],
        "data_samples": [_sample(size, classes) for _ in range(images)],
    }


def _sample(size: tuple[int, int], classes: int) -> DetDataSample:
    sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)})
    extent = torch.tensor([size[1], size[0]])
    corners = torch.rand(8, 2) * extent * 0.6
    boxes = torch.cat([corners, corners + extent * 0.3], dim=1)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(0, classes, (8,)))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample
