"""A distilled step whose teacher's outputs come from disk, over one whose teacher looks: medians of interleaved repeats.

    python benchmarks/teacher_cache.py --detector gfl --json

ResNet-101 to ResNet-50 from base configs with random weights, 256 pixels, fp32. The largest difference between the two in
what the student is told is given as well.
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
    parser.add_argument("--tiny", action="store_true", help="detectors that take a step in a blink, to try the script")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    silence_libraries()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(asked.detector, Path(folder), asked.size, asked.batch, asked.repeats, asked.tiny)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value:.3g}" for name, value in measured.items()))


def measure(detector: str, folder: Path, size: int, images: int, repeats: int, tiny: bool = False) -> dict[str, float]:
    model = pairs.distiller(pairs.student(detector, tiny), pairs.teacher(detector, tiny)).train()
    data, caches = (
        _named(pairs.batch((size, size), images)),
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
    seen = []
    for model.cache in caches.values():
        features, logits = model.observe(data)
        seen.append([*features.values(), *logits.values()])
    return max(float((one - other).abs().max()) for one, other in zip(*seen, strict=True))


def _named(data: dict[str, Any]) -> dict[str, Any]:
    """With the names by which the data loader's images are known."""
    for number, sample in enumerate(data["data_samples"]):
        sample.set_metainfo({"img_path": f"{number}.jpg", "flip": False})
    return data


if __name__ == "__main__":
    main()
