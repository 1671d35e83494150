"""Build mmengine configs and modules from descriptions of detectors. Nothing is downloaded."""

import difflib
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import mmdet
import mmengine
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from torch import nn

from frs.detectors.unsupported import unsupported_on_error
from frs.detectors.weights import load_backbone
from frs.errors import InvalidSpec, UnsupportedDetector, WeightsNotFound, WeightsUnreadable
from frs.files import digest
from frs.resolved import weights_file
from frs.spec import MAX_DETECTIONS, Architecture, Backbone, ConfigDetector, DescribedDetector, InitFromBackbone

Description = ConfigDetector | DescribedDetector

BASE_CONFIG: dict[Architecture, str] = {
    "retinanet": "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
    "gfl": "mmdet::gfl/gfl_r50_fpn_1x_coco.py",
    "fcos": "mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "faster_rcnn": "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
}
"""Base config of each architecture; it has the values that a description does not set."""

TORCHVISION_SHA256_PREFIXES = {
    "resnet18": "f37072fd",
    "resnet34": "b627a593",
    "resnet50": "0676ba61",
    "resnet101": "63fe2227",
}
"""First 8 hex digits of the SHA-256 of torchvision's first ImageNet weights, as in their file names."""
PAD_DIVISOR = 32
"""Divisor of the image size for configs that name none: the coarsest stride of their necks."""
BOTTLENECK_EXPANSION = {18: 1, 34: 1, 50: 4, 101: 4}
"""Output channels of a residual block divided by its inner channels, by depth of the ResNet."""


class ClassLayer(NamedTuple):
    """The first dimension of a tensor of a class layer: `per_class` x classes + `others` rows."""

    per_class: int
    """Number of anchors, or of box coordinates."""
    others: int
    """Rows that do not depend on the number of classes: the background's."""


def load_base_config(description: Description) -> Config:
    """Return the complete mmdet config of a description: model, pipelines and schedule.

    Raises InvalidSpec if mmdet has no config of that name, UnsupportedDetector if it is not that of a detector.
    """
    name = base_config_name(description)
    if name not in base_config_names():
        similar = difflib.get_close_matches(name, base_config_names(), n=3)
        raise InvalidSpec(f"mmdet has no config {name!r}.", f"Similar names: {', '.join(similar)}." if similar else "")
    with unsupported_on_error(f"{name} cannot be read"):
        config = get_config(name)
    if missing := [reason for reason, present in _required_parts(config.get("model", {})).items() if not present]:
        raise UnsupportedDetector(f"{name} {missing[0]}.")
    return config


def _required_parts(model: ConfigDict) -> dict[str, bool]:
    """Return whether a config's `model` meets each requirement, by what is wrong if it does not."""
    return {
        "is not the config of a detector": bool(model),
        "has no backbone of its own": "backbone" in model and "data_preprocessor" in model,
        "has no head for boxes and their classes": "bbox_head" in model or "bbox_head" in model.get("roi_head", {}),
        "loads a teacher of its own": "teacher_ckpt" not in model,
    }


def base_config_name(description: Description) -> str:
    """Return the name of the mmdet config behind a description."""
    return description.config if isinstance(description, ConfigDetector) else BASE_CONFIG[description.architecture]


@cache
def base_config_names() -> frozenset[str]:
    """Return the names of all configs that mmdet ships, such as `mmdet::gfl/gfl_r50_fpn_1x_coco.py`."""
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    return frozenset(f"mmdet::{path.relative_to(folder)}" for path in folder.glob("[a-z]*/*.py"))


def model_config(description: Description, classes: int, max_detections: int = MAX_DETECTIONS) -> ConfigDict:
    """Return the `model` part of a config for `classes` classes, without settings that would download weights.

    For `max_detections` see `frs.spec.EvaluationSettings`.
    """
    base_config = load_base_config(description)
    model = base_config.model
    if isinstance(description, DescribedDetector):
        _apply_description(model, description)
    if description.init == "random":
        _unfreeze(model.backbone)
    model.backbone.init_cfg = None
    _drop_published_weights(model)
    _set_batch_shape(base_config)
    set_classes(model, classes)
    if max_detections != MAX_DETECTIONS and "test_cfg" in model:
        _set_max_detections(model.test_cfg, max_detections)
    return model


def build(description: Description, classes: int, models: Path, max_detections: int = MAX_DETECTIONS) -> nn.Module:
    """Return the detector with random weights from torch's global generator, or with those of a file in the backbone.

    Raises WeightsNotFound if that file is not in the folder `models`.
    """
    register_all_modules(init_default_scope=True)
    config = model_config(description, classes, max_detections)
    with unsupported_on_error(f"{base_config_name(description)} cannot be built"):
        detector = MODELS.build(config)
        detector.init_weights()
    if description.init == "imagenet":
        load_backbone(detector.backbone, checked_imagenet_file(description, models))
    elif isinstance(description.init, InitFromBackbone):
        load_backbone(detector.backbone, weights_file(models, description.init.backbone))
    return detector


def build_shapes(model: ConfigDict) -> nn.Module:
    """Return the module of a model config, whose tensors have shapes but, where possible, neither memory nor values."""
    register_all_modules(init_default_scope=True)
    with torch.random.fork_rng([]):
        try:
            with torch.device("meta"):
                return MODELS.build(model)
        except RuntimeError:  # the constructor of EfficientNet reads values
            return MODELS.build(model)


def set_classes(model: ConfigDict, classes: int) -> None:
    """Set the number of classes of the `model` part of a config."""
    head = model.roi_head.bbox_head if "roi_head" in model else model.bbox_head
    for part in head if isinstance(head, list) else [head]:
        part.num_classes = classes


def class_layers(description: Description, classes: int) -> dict[str, ClassLayer]:
    """Return the tensors whose shape depends on the number of classes, by key, such as `bbox_head.gfl_cls.weight`."""
    state, other = (build_shapes(model_config(description, n)).state_dict() for n in (classes, classes + 1))
    layers = {}
    for key, tensor in state.items():
        if tensor.shape != other[key].shape:
            per_class = len(other[key]) - len(tensor)
            layers[key] = ClassLayer(per_class, len(tensor) - per_class * classes)
    return layers


def imagenet_file(description: Description, models: Path) -> Path:
    """Return the path of the backbone's published ImageNet weights in `models`, such as `resnet50-0676ba61.pth`.

    Raises WeightsNotFound if there are none for this backbone, or if the file is missing.
    """
    init = load_base_config(description).model.backbone.get("init_cfg") or {}
    published = str(init.get("checkpoint", ""))
    if isinstance(description, DescribedDetector):
        published = published.replace("resnet50", f"resnet{description.backbone.depth}")
    name = _published_files().get(published)
    if name is None:
        raise WeightsNotFound(
            f"No ImageNet weights are published for this backbone ({published or 'its config names none'}).",
            "Set `init: random`, or choose a backbone with published weights.",
        )
    if not (models / name).is_file():
        raise WeightsNotFound(
            f"The models folder has no ImageNet weights {name}.",
            "Put that published file into the folder, or set `init: random` to start from random weights.",
        )
    return models / name


def checked_imagenet_file(description: Description, models: Path) -> Path:
    """Return `imagenet_file`. Raises WeightsUnreadable if its hash is not the one in its name."""
    file = imagenet_file(description, models)
    if not digest(file).startswith(file.stem.rpartition("-")[2]):
        raise WeightsUnreadable(
            f"{file.name} is not the published file: its sha256 does not begin with the digits in its name.",
            "Download it again. For weights of your own, set `init: {backbone: FILE}`.",
        )
    return file


def _published_files() -> dict[str, str]:
    """Return file names by their URL in configs: `torchvision://...` (first version) and `open-mmlab://...`."""
    openmmlab = json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text())
    torchvision = {f"torchvision://{name}": f"{name}-{sha}.pth" for name, sha in TORCHVISION_SHA256_PREFIXES.items()}
    return torchvision | {f"open-mmlab://{name}": url.rpartition("/")[2] for name, url in openmmlab.items()}


def _apply_description(model: ConfigDict, description: DescribedDetector) -> None:
    channels = description.neck_channels
    model.neck.out_channels = channels
    _apply_backbone(model, description.backbone)
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


def _apply_backbone(model: ConfigDict, backbone: Backbone) -> None:
    model.backbone.depth = backbone.depth
    model.backbone.base_channels = model.backbone.stem_channels = backbone.width
    expansion = BOTTLENECK_EXPANSION[backbone.depth]
    model.neck.in_channels = [backbone.width * expansion * 2**stage for stage in range(4)]
    if backbone.norm == "gn":
        model.backbone.norm_cfg = {"type": "GN", "num_groups": 8, "requires_grad": True}
        model.backbone.norm_eval = False
        model.neck.norm_cfg = {
            "type": "GN",
            "num_groups": group_norm_groups(model.neck.out_channels),
            "requires_grad": True,
        }


def _unfreeze(backbone: ConfigDict) -> None:
    """Train the whole backbone.

    Frozen random weights are never trained, and the last norm of every block starts at 0, which blocks the gradient
    of the layers before it.
    """
    backbone.pop("frozen_stages", None)  # no backbone of mmdet freezes stages by default; "none" is -1 or 0
    if backbone.get("norm_cfg"):
        backbone.norm_cfg = {**backbone.norm_cfg, "requires_grad": True}


def _drop_published_weights(part: ConfigDict) -> None:
    """Remove from a config and all its parts what loads published weights."""
    if (part.get("init_cfg") or {}).get("type") == "Pretrained":
        part.init_cfg = None
    part.pop("pretrained", None)
    for inner in part.values():
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, ConfigDict):
                _drop_published_weights(item)


def _set_batch_shape(base_config: Config) -> None:
    """Replace what a base config does to the shape of a batch with what works with our transforms.

    A config that pads in its pipeline, which ours replaces, pads to a multiple of its coarsest stride in the data
    preprocessor. Sizes drawn for a batch become sizes drawn for an image (`frs.training.batches`): a teacher sees them,
    too, and a resumed run repeats them.
    """
    preprocessor = base_config.model.data_preprocessor
    preprocessor.pop("batch_augments", None)
    pads = any(transform.type == "Pad" for transform in base_config.get("test_pipeline", ()))
    if pads and preprocessor.get("pad_size_divisor", 1) == 1:
        preprocessor.pad_size_divisor = PAD_DIVISOR


def _set_groups(head: ConfigDict, channels: int, default: bool) -> None:
    """Set the groups of a head with group norm: mmdet has 32 for 256 channels; narrower heads get fewer groups."""
    norm = head.get("norm_cfg") or ({"type": "GN", "num_groups": 32, "requires_grad": True} if default else None)
    if norm and norm["type"] == "GN":
        head.norm_cfg = {**norm, "num_groups": group_norm_groups(channels)}


def group_norm_groups(channels: int) -> int:
    """Return the largest number of groups, at most 32, that divides `channels` into at least 4 channels each."""
    return max(groups for groups in range(1, 33) if channels % groups == 0 and channels // groups >= 4)


def _set_max_detections(test_cfg: ConfigDict, max_detections: int) -> None:
    """Set the number of detections on an image; a higher one raises the candidates before NMS in proportion."""
    last = test_cfg.get("rcnn", test_cfg)
    factor = max(1.0, max_detections / last.get("max_per_img", MAX_DETECTIONS))
    first, names = (test_cfg.rpn, ("nms_pre", "max_per_img")) if "rpn" in test_cfg else (test_cfg, ("nms_pre",))
    for name in names:
        if name in first:
            first[name] = round(factor * first[name])
    last.max_per_img = max_detections
