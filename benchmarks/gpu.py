"""The distilled step on a GPU, against the stock student's, and how busy a real data loader keeps the GPU.

    python benchmarks/gpu.py                  all four detectors, 800x1344, batches of 8, within eight minutes
    python benchmarks/gpu.py --tiny           on the CPU, small: to see that the script works

Random weights and drawn pictures: nothing is downloaded. Steps are interleaved in one process, medians are compared:

    stock        stock mmdet's student step in fp32, torch's defaults (the TF32 state is printed)
    plain        our student step: bf16, channels last, fused optimizer
    distilled    the same under its teacher; `compiled` with --compile

`busy` is the time with a kernel running over the time with a real loader, by the profiler; `busy_nvml` is nvidia-smi's.
Each detector's line is printed as soon as it is known; no detector is begun that the time left will not do for.
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
from frs.spec import Schedule
from frs.training.acceleration import optimizer_options, to_device
from frs.training.batches import DetectionImages, TrainingLoaders, training_pipeline
from frs.training.precision import AutocastOptimWrapper

RATE = 1e-6
CLASSES = 4
"""Of the drawn pictures; the synthetic batches have as many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", choices=pairs.RECIPE_OF, default=[*pairs.RECIPE_OF])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", action="store_true", help="also measure compiled backbones and necks")
    parser.add_argument("--benchmark-cudnn", action="store_true", help="let cuDNN try out its algorithms")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=450, help="time to stop by")
    asked = parser.parse_args()
    silence_libraries()
    deadline = time.monotonic() + asked.seconds
    torch.backends.cudnn.benchmark = asked.benchmark_cudnn
    print(json.dumps(circumstances(asked.tiny)), flush=True)
    slowest = 0.0
    for name in asked.detectors:
        if time.monotonic() + slowest > deadline:
            print(json.dumps({"detector": name, "left_out": "no time left"}), flush=True)
            continue
        started = time.monotonic()
        found = measure(name, asked.tiny, asked.repeats, deadline, asked.compile)
        print(json.dumps({"detector": name} | found), flush=True)
        slowest = max(slowest, time.monotonic() - started)


def circumstances(tiny: bool) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if _device(tiny).type == "cuda" else "CPU",
        "torch": torch.__version__,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def measure(detector: str, tiny: bool, repeats: int, deadline: float, compiled: bool = False) -> dict[str, Any]:
    """Median seconds of a step for each variant, ratios, peak bytes, and how busy a real loader keeps the GPU."""
    size, images = ((96, 128), 2) if tiny else ((800, 1344), 8)
    device, data = _device(tiny), pairs.batch(size, images, CLASSES)
    makers = {"stock": _stock, "plain": _plain, "distilled": _distilled} | (
        {"compiled": _compiled} if compiled else {}
    )
    steps, peaks = {}, {}
    for name, make in makers.items():
        steps[name] = make(detector, tiny, device)
        peaks[f"{name}_peak_bytes"] = _warmed(steps[name], data, device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        if time.monotonic() > deadline and all(seconds.values()):
            break
        for name, step in steps.items():
            seconds[name].append(_timed(step, data, device))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians["distilled"]  # our defaults; compiled, which is no default, stands beside it
    ratios = {"over_stock": ours / medians["stock"], "over_plain": ours / medians["plain"]}
    kept_busy = {} if time.monotonic() > deadline else _busy(steps["distilled"], tiny, device, deadline)
    return medians | ratios | peaks | kept_busy


Step = Callable[[Any], Any]


def _stock(detector: str, tiny: bool, device: torch.device) -> Step:
    student = pairs.student(detector, tiny, CLASSES).to(device)
    wrapper = OptimWrapper(torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9))
    return lambda data: student.train().train_step(data, wrapper)


def _plain(detector: str, tiny: bool, device: torch.device) -> Step:
    return _ours(to_device(pairs.student(detector, tiny, CLASSES), device), device)


def _distilled(detector: str, tiny: bool, device: torch.device) -> Step:
    student, teacher = (to_device(make(detector, tiny, CLASSES), device) for make in (pairs.student, pairs.teacher))
    return _ours(to_device(pairs.distiller(student, teacher), device), device)


def _compiled(detector: str, tiny: bool, device: torch.device) -> Step:
    student, teacher = (to_device(make(detector, tiny, CLASSES), device) for make in (pairs.student, pairs.teacher))
    compile_in_place(student, tapped=True)
    compile_in_place(teacher, tapped=False)
    return _ours(to_device(pairs.distiller(student, teacher), device), device)


def _ours(model: Any, device: torch.device) -> Step:
    options = optimizer_options(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, **options)
    wrapper = AutocastOptimWrapper("bf16", device.type, optimizer=optimizer)
    return lambda data: model.train().train_step(data, wrapper)


def _warmed(step: Step, data: Any, device: torch.device, times: int = 3) -> int:
    """Peak bytes on the GPU over what was there; on the CPU 0."""
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(times):
        _timed(step, data, device)
    return torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0


def _timed(step: Step, data: Any, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    step(data)
    _wait(device)
    return time.perf_counter() - started


def _busy(step: Step, tiny: bool, device: torch.device, deadline: float) -> dict[str, Any]:
    kind = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with tempfile.TemporaryDirectory() as folder:
        batches = iter(_loaders(Path(folder), tiny)(0, 400))
        for batch in itertools.islice(batches, 3):  # the loader's processes start, new shapes are met
            step(batch)
        _wait(device)
        with _utilisation(device) as samples, profile(activities=[kind]) as seen:
            started, done = time.perf_counter(), 0
            while done < (2 if tiny else 40) and time.monotonic() < deadline:
                step(next(batches))
                done += 1
            _wait(device)
            wall = time.perf_counter() - started
        kernels = sum(event.self_device_time_total for event in seen.key_averages()) / 1e6
        return {
            "busy": kernels / wall if device.type == "cuda" else None,
            "busy_nvml": statistics.mean(samples) / 100 if samples else None,
            "loaded_steps": done,
            "loaded_seconds_per_step": wall / max(done, 1),
        }


@contextmanager
def _utilisation(device: torch.device) -> Iterator[list[int]]:
    """What nvidia-smi says of the GPU during the block, in percent, four times a second; filled at its end."""
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
    """Drawn JPEGs, resized as the recipes do."""
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


def compile_in_place(detector: Any, *, tapped: bool) -> None:
    """Compiles the backbone, and the neck where it is not `tapped`: a hook that is new at every step would mean a new
    compilation at every step. Names in the state dict stay. A shape not seen before costs a compilation.
    """
    for part in [detector.backbone] if tapped else [detector.backbone, detector.neck]:
        part.compile(dynamic=False)


if __name__ == "__main__":
    main()
