"""Fraction of a training step spent waiting for data, with the default number of loader processes.

    python benchmarks/loader.py --data DATA/bccd --json

The `small_student` recipe (GFL, ResNet-18 of width 16, 320 pixels, batches of 8) distils on a data set from disk, by
default drawn shapes. `share` is the wait for a batch divided by the step time.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pairs
import torch

from frs.dataset.coco import CocoFile, read
from frs.dataset.shapes.drawing import draw_dataset
from frs.dataset.trainable import labelled_images
from frs.detectors import builder
from frs.engine.trainer import silence_libraries
from frs.recipes import RECIPES
from frs.spec import Resources
from frs.training.batches import DetectionImages, TrainingLoaders, training_pipeline
from frs.training.devices import choose_device, loader_workers
from frs.training.precision import AutocastOptimWrapper

STEPS, WARM_UP_STEPS = 24, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=_default_data(), help="folder of a data set in COCO layout")
    parser.add_argument("--workers", type=int, help="loader processes; the default is the engine's")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    silence_libraries()
    result = measure(options.data, options.workers, options.steps)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(data: Path | None, workers: int | None = None, steps: int = STEPS) -> dict[str, Any]:
    """Return the median wait and step time in seconds, and their ratio `share`."""
    with tempfile.TemporaryDirectory() as drawn:
        if data is None:
            draw_dataset(Path(drawn), train=64, val=2, size=320)
        return _measure(data or Path(drawn), workers, steps) | {"data": data.name if data else "drawn shapes"}


def _measure(folder: Path, workers: int | None, steps: int) -> dict[str, Any]:
    device = choose_device(Resources())
    workers = loader_workers(Resources(), device) if workers is None else workers
    coco = read(folder / "annotations" / "instances_train.json")
    student, teacher = (
        pairs.build(RECIPES[name].spec.student, len(coco.classes)).to(device)
        for name in ("small_student", "small_teacher")
    )
    distiller = pairs.distiller(student, teacher).to(device)
    wrapper = AutocastOptimWrapper("fp32", device.type, optimizer=torch.optim.AdamW(distiller.parameters(), lr=1e-5))
    waits, steps_seconds = [], []
    batches = iter(_loaders(coco, folder / "train", workers)(0, WARM_UP_STEPS + steps))
    for _ in range(WARM_UP_STEPS + steps):
        requested = time.perf_counter()
        batch = next(batches)
        received = time.perf_counter()
        distiller.train().train_step(batch, wrapper)["loss"].item()
        waits.append(received - requested)
        steps_seconds.append(time.perf_counter() - received)
    wait, step = statistics.median(waits[WARM_UP_STEPS:]), statistics.median(steps_seconds[WARM_UP_STEPS:])
    return {"workers": workers, "wait": wait, "step": step, "share": wait / step}


def _loaders(coco: CocoFile, images: Path, workers: int) -> TrainingLoaders:
    spec = RECIPES["small_student"].spec
    pipeline = training_pipeline(spec.schedule, builder.load_base_config(spec.student))
    return TrainingLoaders(
        DetectionImages(coco, images, pipeline, 0, labelled_images(coco, ())), spec.schedule, workers
    )


def _default_data() -> Path | None:
    folder = Path(os.environ.get("FRS_TEST_DATA", "absent")) / "bccd"
    return folder if folder.is_dir() else None


if __name__ == "__main__":
    main()
