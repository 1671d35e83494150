"""Put a described backbone into the `model` part of an mmdet config, in front of any neck."""

import json
from functools import cache
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import timm
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from frs.backbones import (
    Backbone,
    CSPBackbone,
    EfficientNet,
    MobileNetV2,
    RegNet,
    ResNet,
    TimmBackbone,
)

TORCHVISION_PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
"""Normalisation of pixels with which torchvision and MMPretrain train on ImageNet."""
PYCLS_PIXELS = {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "bgr_to_rgb": False}
"""Normalisation of pixels of RegNet (PyCls) and of RTMDet's CSPNeXt."""
GROUP_NORM = {"type": "GN", "num_groups": 8, "requires_grad": True}


def set_backbone(model: ConfigDict, backbone: Backbone) -> None:
    """Set the backbone, its normalisation of pixels and the neck's input channels.

    The backbone returns as many levels as the neck reads, ending with stride 32.
    """
    if isinstance(backbone, ResNet) and model.backbone.type == "ResNet":
        _set_resnet(model.backbone, backbone)
    else:
        config, pixels = _config(backbone)
        levels = config["out_indices"][-len(model.neck.in_channels) :]
        model.backbone = ConfigDict({**config, "out_indices": levels})
        model.data_preprocessor.update(pixels)
    model.neck.in_channels = list(_output_channels(json.dumps(model.backbone.to_dict())))


def keep_statistics(backbone: nn.Module) -> None:
    """Normalise with fixed running statistics, also in training, as mmdet's `norm_eval` does for its own backbones."""
    backbone.register_forward_pre_hook(_norms_to_eval)


def _norms_to_eval(backbone: nn.Module, _: Any) -> None:
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _set_resnet(config: ConfigDict, backbone: ResNet) -> None:
    """Change a base config's ResNet, which keeps its style (`pytorch` or `caffe`) and frozen stages."""
    config.depth = backbone.depth
    config.base_channels = config.stem_channels = backbone.width
    if backbone.norm == "gn":
        config.norm_cfg = GROUP_NORM
        config.norm_eval = False


def _config(backbone: Backbone) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a backbone's config with levels of strides 4, 8, 16 and 32, and its normalisation of pixels."""
    match backbone:
        case ResNet(depth=depth, width=width, norm=norm):
            norms = {"norm_cfg": GROUP_NORM, "norm_eval": False} if norm == "gn" else {"norm_eval": True}
            sizes = {"depth": depth, "base_channels": width, "stem_channels": width}
            config = {"type": "ResNet", **sizes, **norms, "out_indices": (0, 1, 2, 3)}
            return config, TORCHVISION_PIXELS
        case MobileNetV2(widen_factor=factor):
            config = {"type": "MobileNetV2", "widen_factor": factor, "out_indices": (1, 2, 4, 6)}
            return config, TORCHVISION_PIXELS
        case CSPBackbone(type=name, deepen_factor=deepen, widen_factor=widen):
            factors = {"deepen_factor": deepen, "widen_factor": widen}
            config = {"type": name, **factors, "out_indices": (1, 2, 3, 4)}
            return config, {} if name == "CSPDarknet" else PYCLS_PIXELS
        case EfficientNet(arch=arch):
            config = {"type": "EfficientNet", "arch": arch, "out_indices": (2, 3, 4, 5)}
            return config, TORCHVISION_PIXELS
        case RegNet(arch=arch):
            config = {"type": "RegNet", "arch": arch, "norm_eval": False, "out_indices": (0, 1, 2, 3)}
            return config, PYCLS_PIXELS
        case TimmBackbone(type=name):
            config = {"type": "mmpretrain.TIMMBackbone", "model_name": name, "features_only": True}
            return config | {"out_indices": (-4, -3, -2, -1)}, _timm_pixels(name)


def _timm_pixels(name: str) -> dict[str, Any]:
    """Return the normalisation of pixels with which timm's weights of a network were trained."""
    published = timm.get_pretrained_cfg(name)
    mean, std = ([255 * value for value in values] for values in (published.mean, published.std))
    return {"mean": mean, "std": std, "bgr_to_rgb": True}


@cache
def _output_channels(config: str) -> tuple[int, ...]:
    """Return the channels of each level that the backbone of a config, as JSON, returns."""
    backbone = build_shapes({**json.loads(config), "init_cfg": None})
    backbone.eval()  # without chaining: mmpretrain's `train` returns None
    image = torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device)
    with torch.no_grad():
        return tuple(level.shape[1] for level in backbone(image))


def build_shapes(config: dict[str, Any]) -> nn.Module:
    """Return the module of a config, whose tensors have shapes but, where possible, neither memory nor values."""
    register_all_modules(init_default_scope=True)
    with torch.random.fork_rng([]):
        try:
            with torch.device("meta"):
                return MODELS.build(config)
        except RuntimeError:  # the constructor of EfficientNet reads values
            return MODELS.build(config)
