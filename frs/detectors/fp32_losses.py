"""Compute the losses of some heads in fp32: mmdet cannot compute them under autocast."""

from functools import wraps
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.models import TOODHead, VFNetHead
from torch import Tensor

FP32_HEADS = (TOODHead, VFNetHead)
"""TOOD's losses are binary cross-entropies of probabilities, which torch forbids under autocast on a GPU; VFNet's write
fp32 values into a tensor of the precision of the logits."""


def compute_losses_in_fp32(head: type[Any]) -> None:
    """Let `head.loss_by_feat` run without autocast and on fp32 outputs; in fp32 training nothing changes."""
    loss_by_feat = head.loss_by_feat

    @wraps(loss_by_feat)
    def in_fp32(self: Any, *outputs: Any, **others: Any) -> Any:
        with torch.autocast(outputs[0][0].device.type, enabled=False):
            return loss_by_feat(self, *(_to_fp32(output) for output in outputs), **others)

    head.loss_by_feat = in_fp32


def _to_fp32(output: Any) -> Any:
    """Return a head's output with its levels (N, C, H, W) in fp32; labels and metadata are returned unchanged."""
    is_output = isinstance(output, list | tuple) and all(isinstance(level, Tensor) for level in output)
    return [level.float() for level in output] if is_output else output


for _head in FP32_HEADS:
    compute_losses_in_fp32(_head)
