"""Time of a distillation step on a GPU relative to stock mmdet, and GPU utilisation with a real data loader.

    python benchmarks/gpu.py                  all four detectors, 800x1344, batches of 8, within eight minutes
    python benchmarks/gpu.py --tiny           small and on the CPU, to test the script

Random weights and drawn images: nothing is downloaded. Steps are interleaved in one process; medians are compared:

    stock        stock mmdet's student step in fp32, torch's defaults (the TF32 state is printed)
    plain        the student step of frs: bf16, channels last, fused optimizer
    distilled    the same with a teacher; `compiled` with --compile

`busy` is the fraction of the time with a real loader in which a kernel runs, from the profiler; `busy_nvml` is that of
nvidia-smi. Each detector's line is printed when it is complete; a detector is skipped if the time left is not enough.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pairs
import torch
from mmengine.optim import OptimWrapper
from torch.profiler import ProfilerActivity, profile

from frs.dataset.coco import read
from frs.dataset.shapes.drawing import draw_dataset
from frs.dataset.trainable import labelled_images
from frs.detectors import builder
from frs.engine.trainer import silence_libraries
from frs.recipes import RECIPES
from frs.schedule_spec import Schedule
from frs.training.acceleration import optimizer_options, to_device
from frs.training.batches import DetectionImages, TrainingLoaders, training_pipeline
from frs.training.precision import AutocastOptimWrapper

RATE = 1e-6
CLASSES = 4
"""Number of classes of the drawn images and of the synthetic batches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", choices=pairs.RECIPE_OF, default=[*pairs.RECIPE_OF])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", action="store_true", help="also measure compiled backbones and necks")
    parser.add_argument("--benchmark-cudnn", action="store_true", help="set cudnn.benchmark")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=450, help="time limit in seconds")
    options = parser.parse_args()
    silence_libraries()
    deadline = time.monotonic() + options.seconds
    torch.backends.cudnn.benchmark = options.benchmark_cudnn
    print(json.dumps(environment(options.tiny)), flush=True)
    slowest = 0.0
    for name in options.detectors:
        if time.monotonic() + slowest > deadline:
            print(json.dumps({"detector": name, "left_out": "no time left"}), flush=True)
            continue
        started = time.monotonic()
        result = measure(name, options.tiny, options.repeats, deadline, options.compile)
        print(json.dumps({"detector": name} | result), flush=True)
        slowest = max(slowest, time.monotonic() - started)


def environment(tiny: bool) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if _device(tiny).type == "cuda" else "CPU",
        "torch": torch.__version__,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def measure(detector: str, tiny: bool, repeats: int, deadline: float, compiled: bool = False) -> dict[str, Any]:
    """Return step times (median, seconds) and peak memory (bytes) per variant, ratios, and the GPU utilisation."""
    size, images = ((96, 128), 2) if tiny else ((800, 1344), 8)
    device, data = _device(tiny), pairs.batch(size, images, CLASSES)
    makers = {"stock": _stock, "plain": _plain, "distilled": _distilled} | ({"compiled": _compiled} if compiled else {})
    steps, peaks = {}, {}
    for name, make in makers.items():
        steps[name] = make(detector, tiny, device)
        peaks[f"{name}_peak_bytes"] = _warm_up(steps[name], data, device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        if time.monotonic() > deadline and all(seconds.values()):
            break
        for name, step in steps.items():
            seconds[name].append(_time_step(step, data, device))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    distilled = medians["distilled"]  # the defaults; `compiled` is optional
    ratios = {"over_stock": distilled / medians["stock"], "over_plain": distilled / medians["plain"]}
    utilisation = (
        {} if time.monotonic() > deadline else _measure_utilisation(steps["distilled"], tiny, device, deadline)
    )
    return medians | ratios | peaks | utilisation


Step = Callable[[Any], Any]


def _stock(detector: str, tiny: bool, device: torch.device) -> Step:
    student = pairs.student(detector, tiny, CLASSES).to(device)
    wrapper = OptimWrapper(torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9))
    return lambda data: student.train().train_step(data, wrapper)


def _plain(detector: str, tiny: bool, device: torch.device) -> Step:
    return _accelerated_step(to_device(pairs.student(detector, tiny, CLASSES), device), device)


def _distilled(detector: str, tiny: bool, device: torch.device) -> Step:
    student, teacher = (to_device(make(detector, tiny, CLASSES), device) for make in (pairs.student, pairs.teacher))
    return _accelerated_step(to_device(pairs.distiller(student, teacher), device), device)


def _compiled(detector: str, tiny: bool, device: torch.device) -> Step:
    student, teacher = (to_device(make(detector, tiny, CLASSES), device) for make in (pairs.student, pairs.teacher))
    compile_in_place(student, hooked=True)
    compile_in_place(teacher, hooked=False)
    return _accelerated_step(to_device(pairs.distiller(student, teacher), device), device)


def _accelerated_step(model: Any, device: torch.device) -> Step:
    options = optimizer_options(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, **options)
    wrapper = AutocastOptimWrapper("bf16", device.type, optimizer=optimizer)
    return lambda data: model.train().train_step(data, wrapper)


def _warm_up(step: Step, data: Any, device: torch.device, times: int = 3) -> int:
    """Run warm-up steps and return the growth of the peak GPU memory in bytes; 0 on the CPU."""
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(times):
        _time_step(step, data, device)
    return torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0


def _time_step(step: Step, data: Any, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    step(data)
    _wait(device)
    return time.perf_counter() - started


def _measure_utilisation(step: Step, tiny: bool, device: torch.device, deadline: float) -> dict[str, Any]:
    kind = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with tempfile.TemporaryDirectory() as folder:
        batches = iter(_loaders(Path(folder), tiny)(0, 400))
        for batch in itertools.islice(batches, 3):  # loader processes start, new shapes occur
            step(batch)
        _wait(device)
        with _utilisation(device) as samples, profile(activities=[kind]) as profiler:
            started, steps_done = time.perf_counter(), 0
            while steps_done < (2 if tiny else 40) and time.monotonic() < deadline:
                step(next(batches))
                steps_done += 1
            _wait(device)
            wall = time.perf_counter() - started
        kernels = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
        return {
            "busy": kernels / wall if device.type == "cuda" else None,
            "busy_nvml": statistics.mean(samples) / 100 if samples else None,
            "loaded_steps": steps_done,
            "loaded_seconds_per_step": wall / max(steps_done, 1),
        }


@contextmanager
def _utilisation(device: torch.device) -> Iterator[list[int]]:
    """Sample the GPU utilisation of nvidia-smi, in percent, four times per second; the list is filled on exit."""
    samples: list[int] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "250"]
    if device.type != "cuda" or shutil.which(command[0]) is None:
        yield samples
        return
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield samples
    finally:
        process.terminate()
        samples += [int(line) for line in process.communicate()[0].split() if line.isdigit()]


def _loaders(folder: Path, tiny: bool) -> TrainingLoaders:
    """Return loaders of drawn JPEG images, resized as in the recipes."""
    size = (96, 128) if tiny else (800, 1344)
    draw_dataset(folder, train=8 if tiny else 64, val=2, size=96 if tiny else 640)
    schedule = Schedule(image_size=(size[1], size[0]), batch_size=2 if tiny else 8)
    coco = read(folder / "annotations" / "instances_train.json")
    base_config = builder.load_base_config(RECIPES[pairs.RECIPE_OF["gfl"]].spec.student)
    images = DetectionImages(
        coco, folder / "train", training_pipeline(schedule, base_config), 0, labelled_images(coco, ())
    )
    return TrainingLoaders(images, schedule, 0 if tiny else min(12, os.cpu_count() or 1))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device(tiny: bool) -> torch.device:
    return torch.device("cpu" if tiny else "cuda")


def compile_in_place(detector: Any, *, hooked: bool) -> None:
    """Compile the backbone, and also the neck unless it is `hooked`: a new hook at each step would recompile it.

    Names in the state dict do not change. Each new input shape is compiled once.
    """
    for part in [detector.backbone] if hooked else [detector.backbone, detector.neck]:
        part.compile(dynamic=False)


if __name__ == "__main__":
    main()
