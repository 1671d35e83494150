"""Optimize a frozen backbone for inference on the CPU: fold norms into convolutions, use oneDNN's weight layout.

Both change the output only by rounding (about 1e-6 of the largest value). They are used for the teacher's outputs
during training, not for evaluation.
"""

import copy

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.models import ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils import mkldnn

SUPPORTED_LAYERS = (nn.Conv2d, nn.Identity, nn.ReLU, nn.MaxPool2d)
"""Layers that run on tensors in oneDNN's layout."""


class BlockedBackbone(nn.Module):
    """A folded ResNet on the CPU whose activations stay in oneDNN's layout from the first to the last convolution."""

    def __init__(self, folded: ResNet) -> None:
        super().__init__()
        self.blocked = mkldnn.to_mkldnn(folded)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the feature levels (N, C, H, W) of normalised images (N, 3, H, W)."""
        return tuple(level.to_dense() for level in self.blocked(pixels.to_mkldnn()))


def optimize_backbone(backbone: nn.Module) -> nn.Module:
    """Return a faster backbone with the same output in fp32 on the CPU; `backbone` itself if it is not supported.

    `backbone` is not changed: its convolutions are copied, because the loaded ones are hashed and evaluated.
    """
    on_cpu = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in backbone.parameters())
    if type(backbone) is not ResNet or backbone.training or not on_cpu or not torch.backends.mkldnn.is_available():
        return backbone
    folded = fold_batch_norms(backbone)
    leaves = (module for module in folded.modules() if not [*module.children()])
    return BlockedBackbone(folded) if all(type(leaf) in SUPPORTED_LAYERS for leaf in leaves) else backbone


def fold_batch_norms(backbone: ResNet) -> ResNet:
    """Return a copy in eval mode in which batch norms are folded into the convolutions before them.

    The copy shares all other tensors with `backbone`.
    """
    shared = {id(tensor): tensor for tensor in [*backbone.parameters(), *backbone.buffers()]}
    folded = copy.deepcopy(backbone, shared)
    for module in [*folded.modules()]:
        for convolution, norm in _convolution_norm_pairs(module):
            _fold_pair(module, convolution, norm)
    return folded


def _convolution_norm_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return the names of a module's children that may be a convolution and its norm.

    mmdet's ResNets hold the names of their norms in `norm1_name`, `norm2_name` and `norm3_name`.
    """
    if isinstance(module, nn.Sequential):
        names = [*module._modules]
        return [*zip(names, names[1:], strict=False)]
    return [(f"conv{n}", getattr(module, f"norm{n}_name")) for n in (1, 2, 3) if hasattr(module, f"norm{n}_name")]


def _fold_pair(module: nn.Module, convolution: str, norm: str) -> None:
    """Fold the norm into the convolution, if the two children are a plain convolution and a batch norm."""
    before, after = getattr(module, convolution, None), getattr(module, norm, None)
    if type(before) is nn.Conv2d and isinstance(after, _BatchNorm) and after.track_running_stats:
        setattr(module, convolution, fuse_conv_bn_eval(before, after))
        setattr(module, norm, nn.Identity())
