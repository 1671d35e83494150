"""Time of a distillation step with cached teacher outputs relative to one with a teacher forward pass.

    python benchmarks/teacher_cache.py --detector gfl --json

ResNet-101 to ResNet-50 from base configs with random weights, 256 pixels, fp32; medians of interleaved
repeats. `difference` is the largest absolute difference of the teacher outputs.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pairs
import torch

from frs.distillation.distiller import Distiller
from frs.distillation.teacher_cache import TeacherCache
from frs.engine.trainer import silence_libraries
from frs.training.precision import AutocastOptimWrapper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=pairs.RECIPE_OF, default="gfl")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="very small detectors, to test the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    silence_libraries()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.detector, Path(folder), options.size, options.batch, options.repeats, options.tiny)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value:.3g}" for name, value in result.items()))


def measure(detector: str, folder: Path, size: int, images: int, repeats: int, tiny: bool = False) -> dict[str, float]:
    """Return the median step times in seconds, their ratio, bytes per image in the cache, and `difference`."""
    model = pairs.distiller(pairs.student(detector, tiny), pairs.teacher(detector, tiny)).train()
    data, caches = (
        _with_image_names(pairs.batch((size, size), images)),
        {"looked": None, "cached": TeacherCache(model.teacher, folder)},
    )
    wrapper = AutocastOptimWrapper("fp32", "cpu", optimizer=torch.optim.SGD(model.parameters(), lr=1e-6))
    seconds: dict[str, list[float]] = {name: [] for name in caches}
    for repeat in range(repeats + 1):
        for name, model.cache in caches.items():
            started = time.perf_counter()
            model.train_step(data, wrapper)
            if repeat:  # the first fills the cache and warms up
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    stored = sum(file.stat().st_size for file in folder.iterdir()) / images
    ratio = medians["cached"] / medians["looked"]
    return medians | {"ratio": ratio, "bytes_per_image": stored, "difference": _difference(model, caches, data)}


def _difference(model: Distiller, caches: dict[str, Any], data: dict[str, Any]) -> float:
    outputs = []
    for model.cache in caches.values():
        features, logits = model.observe(data)
        outputs.append([*features.values(), *logits.values()])
    return max(float((first - second).abs().max()) for first, second in zip(*outputs, strict=True))


def _with_image_names(data: dict[str, Any]) -> dict[str, Any]:
    """Return the batch with the image names that the data loader sets."""
    for number, sample in enumerate(data["data_samples"]):
        sample.set_metainfo({"img_path": f"{number}.jpg", "flip": False})
    return data


if __name__ == "__main__":
    main()
