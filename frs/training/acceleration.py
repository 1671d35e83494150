"""What makes a step faster on a GPU and changes nothing on the CPU."""

from typing import Any

import torch
from torch import nn


def to_device(module: nn.Module, device: torch.device) -> nn.Module:
    """On the device; on a GPU with channels last, which its convolutions are made for."""
    if device.type == "cuda":
        return module.to(device).to(memory_format=torch.channels_last)
    return module.to(device)


def optimizer_options(device: torch.device) -> dict[str, Any]:
    """One kernel for all parameters of an optimizer, on a GPU."""
    return {"fused": True} if device.type == "cuda" else {}
