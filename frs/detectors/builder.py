"""Build mmengine configs and modules from descriptions of detectors. Nothing is downloaded."""

import difflib
from functools import cache
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import mmdet
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from torch import nn

import frs.detectors.fp32_losses  # noqa: F401 - changes two heads of mmdet
from frs import published_weights
from frs.backbones import Backbone, CSPBackbone, ResNet
from frs.detector_spec import Architecture, ConfigDetector, DescribedDetector, InitFromBackbone
from frs.detectors import imagenet
from frs.detectors.backbone_config import GROUP_NORM, build_shapes, keep_statistics, set_backbone
from frs.detectors.unsupported import unsupported_on_error
from frs.errors import InvalidSpec, UnsupportedDetector
from frs.resolved import weights_file
from frs.spec import MAX_DETECTIONS

Description = ConfigDetector | DescribedDetector

BASE_CONFIG: dict[Architecture, str] = {
    "retinanet": "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
    "gfl": "mmdet::gfl/gfl_r50_fpn_1x_coco.py",
    "fcos": "mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "atss": "mmdet::atss/atss_r50_fpn_1x_coco.py",
    "tood": "mmdet::tood/tood_r50_fpn_1x_coco.py",
    "vfnet": "mmdet::vfnet/vfnet_r50_fpn_1x_coco.py",
    "rtmdet": "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "yolox": "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py",
    "faster_rcnn": "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
}
"""Base config of each architecture; it has the values that a description does not set."""
GROUP_NORM_HEADS = ("GFLHead", "FCOSHead", "ATSSHead", "TOODHead", "VFNetHead")
"""Heads whose norm is group norm if their config names none."""

PAD_DIVISOR = 32
"""Divisor of the image size for configs that name none: the coarsest stride of their necks."""


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


def model_config(
    description: Description,
    classes: int,
    max_detections: int = MAX_DETECTIONS,
    frozen_stages: int | None = None,
) -> ConfigDict:
    """Return the `model` part of a config for `classes` classes, without settings that would download weights.

    For `max_detections` see `frs.spec.EvaluationSettings`, for `frozen_stages` see `frs.schedule_spec.Schedule`. Raises
    InvalidSpec if the backbone cannot freeze stages.
    """
    base_config = _described_config(description)
    model = base_config.model
    if description.init == "random":
        _unfreeze(model.backbone)
    if frozen_stages is not None:
        _set_frozen_stages(model.backbone, frozen_stages)
    model.backbone.init_cfg = None
    _drop_published_weights(model)
    _set_batch_shape(base_config)
    set_classes(model, classes)
    if max_detections != MAX_DETECTIONS and "test_cfg" in model:
        _set_max_detections(model.test_cfg, max_detections)
    return model


def build(
    description: Description,
    classes: int,
    models: Path,
    max_detections: int = MAX_DETECTIONS,
    frozen_stages: int | None = None,
) -> nn.Module:
    """Return the detector with random weights from torch's global generator, or with those of a file in the backbone.

    Raises WeightsNotFound if that file is not in the folder `models`, or where `frs.detectors.imagenet` looks.
    """
    register_all_modules(init_default_scope=True)
    config = model_config(description, classes, max_detections, frozen_stages)
    frozen = f" with `schedule.frozen_stages: {frozen_stages}`" if frozen_stages else ""
    with unsupported_on_error(f"{base_config_name(description)} cannot be built{frozen}"):
        detector = MODELS.build(config)
        detector.init_weights()
    if description.init == "imagenet":
        imagenet.load(detector.backbone, imagenet_source(description), models)
    elif isinstance(description.init, InitFromBackbone):
        imagenet.load_file(detector.backbone, weights_file(models, description.init.backbone))
    if _keeps_statistics(description):
        keep_statistics(detector.backbone)
    return detector


def imagenet_source(description: Description) -> str:
    """Return the source of the backbone's ImageNet weights, such as `torchvision://resnet50`; empty: it has none."""
    if isinstance(description, DescribedDetector):
        return published_weights.imagenet_source(description)
    init = load_base_config(description).model.backbone.get("init_cfg") or {}
    return str(init.get("checkpoint", ""))


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


def _described_config(description: Description) -> Config:
    """Return the base config with the values that the description sets."""
    base_config = load_base_config(description)
    if isinstance(description, DescribedDetector):
        _apply_description(base_config.model, description)
    return base_config


def _apply_description(model: ConfigDict, description: DescribedDetector) -> None:
    channels = description.neck_channels or model.neck.out_channels
    model.neck.out_channels = channels
    if description.backbone is not None:
        set_backbone(model, description.backbone)
        _adapt_neck(model.neck, description.backbone)
    for head in [model.get("bbox_head"), model.get("rpn_head")]:
        if head:
            head.in_channels = head.feat_channels = channels
            _set_groups(head, channels, default=head.type in GROUP_NORM_HEADS)
    if "roi_head" in model:
        model.roi_head.bbox_roi_extractor.out_channels = channels
        model.roi_head.bbox_head.in_channels = channels
        model.roi_head.bbox_head.fc_out_channels = 4 * channels
    if description.stacked_convs is not None:
        head, key = (model.rpn_head, "num_convs") if "rpn_head" in model else (model.bbox_head, "stacked_convs")
        head[key] = description.stacked_convs


def _adapt_neck(neck: ConfigDict, backbone: Backbone) -> None:
    """Set the norm and the depth of a neck that follow from the backbone.

    A neck of CSP blocks (RTMDet, YOLOX) has layers as wide as the backbone's, which 8 groups always divide.
    """
    has_blocks = "num_csp_blocks" in neck
    if isinstance(backbone, ResNet) and backbone.norm == "gn":
        groups = GROUP_NORM["num_groups"] if has_blocks else group_norm_groups(neck.out_channels)
        neck.norm_cfg = {"type": "GN", "num_groups": groups, "requires_grad": True}
    if has_blocks and isinstance(backbone, CSPBackbone):
        neck.num_csp_blocks = max(1, round(3 * backbone.deepen_factor))


def _keeps_statistics(description: Description) -> bool:
    """Return whether training keeps the running statistics of a described backbone's batch norms.

    The statistics of small batches would replace those of ImageNet; random weights have none to keep. A ResNet's config
    says it itself.
    """
    if not isinstance(description, DescribedDetector) or isinstance(description.backbone, ResNet | None):
        return False
    norm = description.backbone.norm
    return norm == "frozen_bn" or (norm is None and description.init != "random")


def _unfreeze(backbone: ConfigDict) -> None:
    """Train the whole backbone.

    Frozen random weights are never trained, and the last norm of every block starts at 0, which blocks the gradient
    of the layers before it.
    """
    _set_frozen_stages(backbone, 0)
    if backbone.get("norm_cfg"):
        backbone.norm_cfg = {**backbone.norm_cfg, "requires_grad": True}


def _set_frozen_stages(backbone: ConfigDict, stages: int) -> None:
    """Set the stages that are not trained. Raise InvalidSpec if the backbone cannot freeze any."""
    backbone.pop("frozen_stages", None)  # no backbone of mmdet freezes stages by default; "none" is -1 or 0
    if not stages:
        return
    register_all_modules(init_default_scope=True)
    constructors = [parent.__init__ for parent in MODELS.get(backbone.type).__mro__]
    if not any("frozen_stages" in signature(constructor).parameters for constructor in constructors):
        raise InvalidSpec(
            f"The backbone {backbone.get('model_name', backbone.type)} cannot freeze stages.",
            "Remove `schedule.frozen_stages`, or use another backbone; ResNet, RegNet, MobileNetV2, EfficientNet, "
            "CSPNeXt and CSPDarknet can.",
        )
    backbone.frozen_stages = stages


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
    if "max_per_img" in last:
        last.max_per_img = max_detections
    else:  # YOLOX returns all that its NMS returns
        last.nms.max_num = max_detections
