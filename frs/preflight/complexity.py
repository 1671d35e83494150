"""How heavy a detector is: parameters, FLOPs and latency."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch.utils.flop_counter import FlopCounterMode

from frs.detectors.heads import Detector
from frs.training.preserve_state import preserve_state

REPEATS = 5
REPEATS_END_AFTER = 3.0
"""Seconds in which predictions are repeated for their median."""


@dataclass(frozen=True)
class Complexity:
    parameters: int
    flops: int
    """Of one prediction, a multiply-add counted as one, as in mmdet's and the papers' tables: torch counts two.
    Convolutions and matrix products only. The second stage is counted for the proposals that the first makes of noise."""
    latency_ms: float
    """Median of a few predictions for one image, from raw pixels to boxes, on the detector's device."""

    def facts(self, role: str) -> dict[str, object]:
        return {f"{role}_{name}": value for name, value in vars(self).items()}


@torch.no_grad()
def complexity(detector: Detector, size: tuple[int, int]) -> Complexity:
    """Of predictions at the image size [width, height]. Leaves the detector as it was."""
    image = _noise(size)
    with preserve_state(detector):
        detector.eval()
        with FlopCounterMode(display=False) as counter:
            detector.test_step(image)
        latency = _latency(detector, image)
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    return Complexity(parameters, counter.get_total_flops() // 2, latency)


def _noise(size: tuple[int, int]) -> dict[str, Any]:
    width, height = size
    pixels = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shape = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
    return {"inputs": [pixels], "data_samples": [DetDataSample(metainfo=shape)]}


def _latency(detector: Detector, image: dict[str, Any]) -> float:
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < REPEATS and time.perf_counter() - started < REPEATS_END_AFTER:
        before = time.perf_counter()
        detector.test_step(image)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - before)
    return 1000 * median(taken)
