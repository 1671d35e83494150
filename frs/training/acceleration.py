"""Adapt modules and optimizers to the device that trains them."""

from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from frs.training import process_group


def to_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Return `module` on `device`; on a GPU in channels-last format, which its convolutions are fastest in.

    On the CPU, each of several processes normalises its own part of the batch: torch synchronises batch norms on GPUs
    only.
    """
    if device.type == "cuda":
        return module.to(device).to(memory_format=torch.channels_last)
    if process_group.world_size() > 1:
        module = revert_sync_batchnorm(module)
    return module.to(device)


def optimizer_options(device: torch.device) -> dict[str, Any]:
    """Return extra optimizer arguments: on a GPU, one fused kernel for all parameters."""
    return {"fused": True} if device.type == "cuda" else {}
