"""What ran where: for the report."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = ("frs", "torch", "torchvision", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "faster-coco-eval")


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
