"""What makes a step faster on a GPU and changes nothing on the CPU."""

from typing import Any

import torch
from torch import nn


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """On the device; on a GPU with channels last, which its convolutions are made for."""
    if device.type == "cuda":
        return module.to(device).to(memory_format=torch.channels_last)
    return module.to(device)


def optimizer_options(device: torch.device) -> dict[str, Any]:
    """One kernel for all parameters of an optimizer, on a GPU."""
    return {"fused": True} if device.type == "cuda" else {}


def compile_in_place(detector: Any, *, tapped: bool) -> None:
    """Compiles the backbone, and the neck where it is not `tapped`: a hook that is new at every step would mean a new
    compilation at every step. Names in the state dict stay. A shape not seen before costs a compilation.
    """
    for part in [detector.backbone] if tapped else [detector.backbone, detector.neck]:
        part.compile(dynamic=False)
