"""The cost of a detector: parameters, FLOPs and latency."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.structures import DetDataSample
from torch.utils.flop_counter import FlopCounterMode

from frs.cpu_load import cpu_load, mean_load
from frs.detectors.heads import Detector
from frs.training.preserve_state import preserve_state

REPEATS = 5
MAX_SECONDS = 3.0
"""Time after which no further prediction is timed."""


@dataclass(frozen=True)
class Complexity:
    """The cost of a detector's prediction for one image."""

    parameters: int
    flops: int
    """FLOPs of the convolutions and matrix products; a multiply-add counts as one, as in the tables of mmdet and of
    papers (torch counts two). The second stage is counted for the proposals that the first makes of a noise image."""
    latency_ms: float
    """Median time of a prediction in ms, from raw pixels to boxes, on the detector's device."""
    load: float | None = None
    """Mean load of the CPUs meanwhile; None if unknown."""


@torch.no_grad()
def complexity(detector: Detector, size: tuple[int, int]) -> Complexity:
    """Return the cost of a prediction at the image size [width, height]. The detector's state is preserved."""
    image = noise_image(size)
    with preserve_state(detector):
        detector.eval()
        with FlopCounterMode(display=False) as counter:
            detector.test_step(image)
        latency_ms, load = _measure_latency_ms(detector, image)
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    return Complexity(parameters, counter.get_total_flops() // 2, latency_ms, load)


def noise_image(size: tuple[int, int]) -> dict[str, Any]:
    """Return a raw batch of one image of noise of the size [width, height], the same at every call."""
    width, height = size
    pixels = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shape = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
    return {"inputs": [pixels], "data_samples": [DetDataSample(metainfo=shape)]}


def _measure_latency_ms(detector: Detector, image: dict[str, Any]) -> tuple[float, float | None]:
    """Return the median time, and the mean load of the CPUs."""
    seconds, loads = list[float](), list[float | None]()
    started = time.perf_counter()
    while len(seconds) < REPEATS and time.perf_counter() - started < MAX_SECONDS:
        before = time.perf_counter()
        detector.test_step(image)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - before)
        loads.append(cpu_load())
    return 1000 * median(seconds), mean_load(loads)
