"""How much longer a distilled step takes than the plain student's: medians of interleaved repeats in one process.

    python benchmarks/step.py --detector gfl --json

ResNet-101 to ResNet-50 from stock configs with random weights, 256 pixels, 3x3 adapter, fp32. `authors` is the original
formulation: the student's head runs twice, the teacher's whole head runs, box branch and all.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frs.prelude  # noqa: F401

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from frs import detectors
from frs.distiller import Distiller, Weights
from frs.heads import dense_head
from frs.precision import AutocastOptimWrapper
from frs.recipes import RECIPES
from frs.spec import Distillation
from frs.teacher import Teacher
from frs.trainer import quiet

RECIPE_OF = {
    "retinanet": "retinanet_r101_r50_2x",
    "gfl": "gfl_r101_r50_1x",
    "faster_rcnn": "faster_rcnn_r101_r50_1x",
    "fcos": "fcos_r101_r50_2x",
}
CLASSES = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=RECIPE_OF, default="gfl")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    quiet()
    measured = measure(asked.detector, asked.size, asked.batch, asked.repeats)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value:.3g}" for name, value in measured.items()))


def measure(detector: str, size: int, batch_size: int, repeats: int) -> dict[str, float]:
    """Median seconds of a step for each variant, and their ratios to the plain one."""
    spec = RECIPES[RECIPE_OF[detector]].spec
    student, teacher = (_build(ref) for ref in (spec.student, spec.teacher))
    distiller = Distiller(student, Teacher(teacher), Distillation(), Weights(1e-3, 1e-2, ramp_from=-1), ramp_steps=1)
    data = _batch(size, batch_size)
    variants: dict[str, Callable[[], Any]] = {
        "plain": _step(student, student, data),
        "distilled": _step(distiller, distiller, data),
        "authors": _step(distiller, _Authors(distiller), data),
    }
    seconds = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, step in variants.items():
            started = time.perf_counter()
            step()
            if repeat:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    plain = medians["plain"]
    return medians | {"ratio": medians["distilled"] / plain, "ratio_authors": medians["authors"] / plain}


class _Authors:
    """The same terms the original way."""

    def __init__(self, distiller: Distiller) -> None:
        self.distiller = distiller

    def train_step(self, data: Any, wrapper: Any) -> None:
        ours, teacher = self.distiller, self.distiller.teacher.detector
        batch = ours.data_preprocessor(data, True)
        losses = ours.student(**batch, mode="loss")
        pyramid = ours.student.extract_feat(batch["inputs"])
        logits = dense_head(ours.student)(pyramid)[0]
        with torch.no_grad():
            seen = teacher.extract_feat(batch["inputs"])
            seen_logits = dense_head(teacher)(seen)[0]
        levels = [dict(zip(ours.strides, tensors, strict=True)) for tensors in (pyramid, logits, seen, seen_logits)]
        task, _ = ours.student.parse_losses(losses)
        wrapper.update_params(task + ours.weigh(ours.terms(*levels)))


def _step(parameters: Any, model: Any, data: Any) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(parameters.parameters(), lr=1e-6)
    wrapper = AutocastOptimWrapper("fp32", "cpu", optimizer=optimizer)
    parameters.train()
    return lambda: model.train_step(data, wrapper)


def _build(ref: Any) -> Any:
    return detectors.build(ref.model_copy(update={"init": "random"}), CLASSES, Path())


def _batch(size: int, images: int) -> dict[str, Any]:
    return {
        "inputs": [torch.randint(0, 255, (3, size, size), dtype=torch.uint8) for _ in range(images)],
        "data_samples": [_sample(size) for _ in range(images)],
    }


def _sample(size: int) -> DetDataSample:
    sample = DetDataSample(metainfo={"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)})
    corners = torch.rand(8, 2) * size * 0.6
    boxes = torch.cat([corners, corners + size * 0.3], dim=1)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(0, CLASSES, (8,)))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample


if __name__ == "__main__":
    main()
