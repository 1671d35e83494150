"""From a detector's description to its mmengine config and to the module. Nothing is downloaded."""

import difflib
import json
from functools import cache
from pathlib import Path

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import mmdet
import mmengine
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from torch import nn

from frs.detectors.weights import load_backbone
from frs.errors import InvalidSpec, WeightsNotFound
from frs.spec import Architecture, Backbone, ConfigDetector, DescribedDetector

Description = ConfigDetector | DescribedDetector

BASE_CONFIG: dict[Architecture, str] = {
    "retinanet": "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
    "gfl": "mmdet::gfl/gfl_r50_fpn_1x_coco.py",
    "fcos": "mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "faster_rcnn": "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
}
"""Whatever a description does not say is as in these."""

TORCHVISION = {"resnet18": "f37072fd", "resnet34": "b627a593", "resnet50": "0676ba61", "resnet101": "63fe2227"}
"""First 8 of the sha256 of torchvision's first ImageNet weights, as in their file names."""
BOTTLENECK_EXPANSION = {18: 1, 34: 1, 50: 4, 101: 4}


def load_base_config(description: Description) -> Config:
    """The stock mmdet config behind a description, whole: model, pipelines, schedule. Raises InvalidSpec."""
    name = description.config if isinstance(description, ConfigDetector) else BASE_CONFIG[description.architecture]
    if name not in base_config_names():
        near = difflib.get_close_matches(name, base_config_names(), n=3)
        raise InvalidSpec(f"mmdet has no config {name!r}.", f"Near: {', '.join(near)}." if near else "")
    return get_config(name)


@cache
def base_config_names() -> frozenset[str]:
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    return frozenset(f"mmdet::{path.relative_to(folder)}" for path in folder.glob("[a-z]*/*.py"))


def model_config(description: Description, classes: int) -> ConfigDict:
    """The `model` part of a config for so many classes, without anything that would fetch weights."""
    model = load_base_config(description).model
    if isinstance(description, DescribedDetector):
        _describe(model, description)
    if description.init == "random":
        _unfreeze(model.backbone)
    model.backbone.init_cfg = None
    _set_classes(model, classes)
    return model


def build(description: Description, classes: int, models: Path) -> nn.Module:
    """The detector with its initial weights: random (from torch's global generator), or ImageNet's in the backbone.

    Raises WeightsNotFound when the ImageNet file is not under `models`.
    """
    register_all_modules(init_default_scope=True)
    detector = MODELS.build(model_config(description, classes))
    detector.init_weights()
    if description.init == "imagenet":
        load_backbone(detector.backbone, imagenet_file(description, models))
    return detector


def class_layers(description: Description, classes: int) -> list[str]:
    """Keys of the tensors whose shape follows the number of classes, such as `bbox_head.gfl_cls.weight`."""
    with torch.random.fork_rng([]), torch.device("meta"):
        one, more = (MODELS.build(model_config(description, n)).state_dict() for n in (classes, classes + 1))
    return [key for key, tensor in one.items() if tensor.shape != more[key].shape]


def imagenet_file(description: Description, models: Path) -> Path:
    """The backbone's published ImageNet weights, e.g. `resnet50-0676ba61.pth`, under `models`. Raises WeightsNotFound."""
    init = load_base_config(description).model.backbone.get("init_cfg") or {}
    published = str(init.get("checkpoint", ""))
    if isinstance(description, DescribedDetector):
        published = published.replace("resnet50", f"resnet{description.backbone.depth}")
    name = _published_files().get(published)
    if name is None:
        raise WeightsNotFound(f"No ImageNet weights are published for this backbone ({published or 'none named'}).")
    if not (models / name).is_file():
        raise WeightsNotFound(
            f"No ImageNet weights {name} in the models folder.",
            "Put that published file there, or set `init: random` to start from random weights on purpose.",
        )
    return models / name


@cache
def _published_files() -> dict[str, str]:
    """File names by the way configs name them: `torchvision://...` (the first version) and `open-mmlab://...`."""
    listed = json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text())
    ours = {f"torchvision://{name}": f"{name}-{sha}.pth" for name, sha in TORCHVISION.items()}
    return ours | {f"open-mmlab://{name}": url.rpartition("/")[2] for name, url in listed.items()}


def _describe(model: ConfigDict, description: DescribedDetector) -> None:
    channels = description.neck_channels
    model.neck.out_channels = channels
    _describe_backbone(model, description.backbone)
    for head in [model.get("bbox_head"), model.get("rpn_head")]:
        if head:
            head.in_channels = head.feat_channels = channels
            _set_groups(head, channels, default=head.type in ("GFLHead", "FCOSHead"))
    if "roi_head" in model:
        model.roi_head.bbox_roi_extractor.out_channels = channels
        model.roi_head.bbox_head.in_channels = channels
        model.roi_head.bbox_head.fc_out_channels = 4 * channels
    if description.stacked_convs is not None:
        head, key = (model.rpn_head, "num_convs") if "rpn_head" in model else (model.bbox_head, "stacked_convs")
        head[key] = description.stacked_convs


def _describe_backbone(model: ConfigDict, backbone: Backbone) -> None:
    model.backbone.depth = backbone.depth
    model.backbone.base_channels = model.backbone.stem_channels = backbone.width
    expansion = BOTTLENECK_EXPANSION[backbone.depth]
    model.neck.in_channels = [backbone.width * expansion * 2**stage for stage in range(4)]
    if backbone.norm == "gn":
        model.backbone.norm_cfg = {"type": "GN", "num_groups": 8, "requires_grad": True}
        model.backbone.norm_eval = False
        model.neck.norm_cfg = {"type": "GN", "num_groups": groups(model.neck.out_channels), "requires_grad": True}


def _unfreeze(backbone: ConfigDict) -> None:
    """Frozen random weights never learn; and the last norm of every block starts at 0, which blocks what is before it."""
    backbone.frozen_stages = -1
    backbone.norm_cfg = {**backbone.norm_cfg, "requires_grad": True}


def _set_groups(head: ConfigDict, channels: int, default: bool) -> None:
    """Mmdet's heads with group norm have 32 groups for 256 channels; narrower ones keep 4 channels a group at least."""
    norm = head.get("norm_cfg") or ({"type": "GN", "num_groups": 32, "requires_grad": True} if default else None)
    if norm and norm["type"] == "GN":
        head.norm_cfg = {**norm, "num_groups": groups(channels)}


def groups(channels: int) -> int:
    """Groups of 4 channels at least, and 32 at most."""
    return max(g for g in range(1, 33) if channels % g == 0 and channels // g >= 4)


def _set_classes(model: ConfigDict, classes: int) -> None:
    head = model.roi_head.bbox_head if "roi_head" in model else model.bbox_head
    for part in head if isinstance(head, list) else [head]:
        part.num_classes = classes
