"""A frozen backbone for reading only: norms folded into convolutions, weights in oneDNN's own layout.

Both change a result by rounding alone (some 1e-6 of the largest value), so they are for looking, never for scoring.
"""

import copy

import torch
from mmdet.models import ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils import mkldnn

BLOCKED = (nn.Conv2d, nn.Identity, nn.ReLU, nn.MaxPool2d)
"""What runs on tensors in oneDNN's layout."""


class BlockedBackbone(nn.Module):
    """A folded ResNet on the CPU: activations stay in oneDNN's layout from the first to the last convolution."""

    def __init__(self, folded: ResNet) -> None:
        super().__init__()
        self.blocked = mkldnn.to_mkldnn(folded)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(level.to_dense() for level in self.blocked(pixels.to_mkldnn()))


def fit_for_reading(backbone: nn.Module) -> nn.Module:
    """A faster backbone of the same output in fp32 on the CPU; `backbone` itself where that is not known to hold.

    `backbone` stays as it is. Convolutions are copied, once: the loaded ones are what is hashed and scored.
    """
    on_cpu = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in backbone.parameters())
    if type(backbone) is not ResNet or backbone.training or not on_cpu or not torch.backends.mkldnn.is_available():
        return backbone
    folded = fold(backbone)
    leaves = (module for module in folded.modules() if not [*module.children()])
    return BlockedBackbone(folded) if all(type(leaf) in BLOCKED for leaf in leaves) else backbone


def fold(backbone: ResNet) -> ResNet:
    """A copy in eval mode whose batch norms are part of the convolutions before them; it shares all other tensors."""
    shared = {id(tensor): tensor for tensor in [*backbone.parameters(), *backbone.buffers()]}
    folded = copy.deepcopy(backbone, shared)
    for module in [*folded.modules()]:
        for convolution, norm in _pairs(module):
            _fold_pair(module, convolution, norm)
    return folded


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's children that are a convolution and its norm: mmdet's ResNets name their norms in `norm1_name`."""
    if isinstance(module, nn.Sequential):
        names = [*module._modules]
        return [*zip(names, names[1:], strict=False)]
    return [(f"conv{n}", getattr(module, f"norm{n}_name")) for n in (1, 2, 3) if hasattr(module, f"norm{n}_name")]


def _fold_pair(module: nn.Module, convolution: str, norm: str) -> None:
    before, after = getattr(module, convolution, None), getattr(module, norm, None)
    if type(before) is nn.Conv2d and isinstance(after, _BatchNorm) and after.track_running_stats:
        setattr(module, convolution, fuse_conv_bn_eval(before, after))
        setattr(module, norm, nn.Identity())
