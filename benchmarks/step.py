"""Time of a distillation step relative to a plain training step: medians of interleaved repeats in one process.

    python benchmarks/step.py --detector gfl --json

ResNet-101 to ResNet-50 from base configs, or the recipes `edge_teacher` and `edge_student`; random weights, 256 pixels,
3x3 adapter, fp32. `plain` is a training step of mmdet's student with the same optimizer. `cached` is a distillation
step that reads the teacher's outputs from disk, `teacher` its forward pass alone. `authors` is the original
formulation: the student's head runs twice, and the teacher's whole head runs, including its box branch. `*_bytes` is
the peak memory of each in its own process, including weights, minus the memory after the imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pairs
import torch

from frs.detectors.heads import dense_head
from frs.distillation.capture_output import capture_output
from frs.distillation.distiller import Distiller
from frs.distillation.outputs import TeacherLevel
from frs.distillation.teacher_cache import TeacherCache
from frs.engine.trainer import silence_libraries
from frs.training.precision import AutocastOptimWrapper

VARIANTS = ("plain", "distilled", "authors")
PEAK_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=[*pairs.RECIPE_OF, pairs.EDGE], default="gfl")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--peak", choices=VARIANTS, help="print only the peak memory of this variant in this process, in bytes"
    )
    parser.add_argument("--tiny", action="store_true", help="very small detectors, to test the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    silence_libraries()
    if options.peak:
        print(peak(options.peak, options.detector, options.size, options.batch, options.tiny))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.detector, Path(folder), options.size, options.batch, options.repeats, options.tiny)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value:.3g}" for name, value in result.items()))


def measure(
    detector: str, folder: Path, size: int = 256, batch_size: int = 2, repeats: int = 7, tiny: bool = False
) -> dict[str, float]:
    """Return the median step time of each variant in seconds, its ratio to `plain`, and its peak memory in bytes.

    `folder`, which is empty, holds the cached outputs of the teacher.
    """
    student = pairs.student(detector, tiny)
    distiller = pairs.distiller(student, pairs.teacher(detector, tiny))
    data = pairs.batch((size, size), batch_size)
    for number, sample in enumerate(data["data_samples"]):
        sample.set_metainfo({"img_path": f"{number}.jpg", "flip": False})  # by which the cache names an image
    steps = {name: _variant(name, student, distiller, data) for name in VARIANTS}
    steps["cached"] = _cached_step(distiller, data, folder)
    steps["teacher"] = lambda: distiller.teacher.observe(data["inputs"])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if repeat:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    plain = medians["plain"]
    ratios = {f"ratio_{name}": medians[name] / plain for name in ("authors", "cached", "teacher")}
    return (
        medians
        | {"ratio": medians["distilled"] / plain}
        | ratios
        | {f"{name}_bytes": peak_in_subprocess(name, detector, size, batch_size, tiny) for name in VARIANTS}
    )


def peak(variant: str, detector: str, size: int, batch_size: int, tiny: bool = False) -> int:
    """Return the growth of the peak memory of this process, in bytes, weights included."""
    before = _peak_bytes()
    student = pairs.student(detector, tiny)
    distiller = pairs.distiller(student, pairs.teacher(detector, tiny)) if variant != "plain" else None
    step = _variant(variant, student, distiller, pairs.batch((size, size), batch_size))
    for _ in range(PEAK_STEPS):
        step()
    return _peak_bytes() - before


def peak_in_subprocess(variant: str, detector: str, size: int, batch_size: int, tiny: bool) -> int:
    command = [sys.executable, __file__, "--detector", detector, "--size", str(size), "--batch", str(batch_size)]
    command += ["--peak", variant, *(["--tiny"] if tiny else [])]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(completed.stdout.splitlines()[-1])


def _peak_bytes() -> int:
    """Return the peak memory of this process in bytes. `ru_maxrss` is not usable: Linux inherits it from the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


class AuthorsFormulation:
    """The same loss terms, computed as in the authors' code."""

    def __init__(self, distiller: Distiller) -> None:
        self.distiller = distiller

    def train_step(self, data: Any, wrapper: Any) -> None:
        distiller, teacher = self.distiller, self.distiller.teacher.detector
        batch = distiller.data_preprocessor(data, True)
        with capture_output(distiller.student.neck) as neck:
            losses = distiller.student(**batch, mode="loss")
        pyramid = neck.output
        logits = dense_head(distiller.student)(pyramid)[0]
        with torch.no_grad():
            features = teacher.extract_feat(batch["inputs"])
            teacher_logits = dense_head(teacher)(features)[0]
        levels = {
            s: TeacherLevel(f, z, [], s) for s, f, z in zip(distiller.strides, features, teacher_logits, strict=True)
        }
        student_outputs = [dict(zip(distiller.strides, tensors, strict=True)) for tensors in (pyramid, logits)]
        task, _ = distiller.student.parse_losses(losses)
        wrapper.update_params(task + distiller.weigh(distiller.compare(*student_outputs, levels)))


def _variant(name: str, student: Any, distiller: Any, data: Any) -> Callable[[], Any]:
    match name:
        case "plain":
            return _step(student, student, data)
        case "distilled":
            return _step(distiller, distiller, data)
    return _step(distiller, AuthorsFormulation(distiller), data)


def _cached_step(distiller: Any, data: Any, folder: Path) -> Callable[[], Any]:
    cache, step = TeacherCache(distiller.teacher, folder), _step(distiller, distiller, data)

    def run() -> None:
        distiller.cache = cache
        step()
        distiller.cache = None

    return run


def _step(parameters: Any, model: Any, data: Any) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(parameters.parameters(), lr=1e-6)
    wrapper = AutocastOptimWrapper("fp32", "cpu", optimizer=optimizer)
    parameters.train()
    return lambda: model.train_step(data, wrapper)


if __name__ == "__main__":
    main()
