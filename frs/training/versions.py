"""Versions of the software and the name of the device, for the report."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from frs import __version__

_PACKAGES = ("torch", "torchvision", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "faster-coco-eval")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages; "absent" for a package that is not installed."""
    own = {"python": platform.python_version(), "frs": __version__}
    return own | {name: _version(name) for name in _PACKAGES}


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
