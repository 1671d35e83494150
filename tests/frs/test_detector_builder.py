from pathlib import Path
from typing import Any

import pytest
import torch
from test_distiller import batch, detector
from tiny import ARCHITECTURES, described

from frs import published_weights
from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors import builder, imagenet, weights
from frs.detectors.backbone_config import build_shapes
from frs.errors import WeightsNotFound, WeightsUnreadable
from frs.published_weights import PublishedFile


def csp(architecture: str, backbone: str, deepen_factor: float, widen_factor: float) -> dict[str, Any]:
    """Return the description of RTMDet or YOLOX in one of its sizes."""
    factors = {"type": backbone, "deepen_factor": deepen_factor, "widen_factor": widen_factor}
    return {"architecture": architecture, "backbone": factors, "neck_channels": round(256 * widen_factor)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_of_a_random_backbone_receives_a_gradient(architecture: str) -> None:
    model = detector(architecture, backbone={"depth": 50, "width": 8})
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):  # the last norm of a block starts at 0, which blocks the gradient in the first step
        optimizer.zero_grad()
        data = model.data_preprocessor(batch(), True)
        model.parse_losses(model(**data, mode="loss"))[0].backward()
        optimizer.step()
    untrained = [name for name, p in model.backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untrained == []


@pytest.mark.parametrize("channels", range(16, 513, 16))
def test_group_norm_groups_divide_every_neck_width(channels: int) -> None:
    groups = builder.group_norm_groups(channels)
    assert channels % groups == 0 and channels // groups >= 4 and groups <= 32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_detector_with_an_unusual_neck_width_builds(architecture: str) -> None:
    description = DescribedDetector.model_validate(described(architecture, neck_channels=144))
    assert builder.build(description, 3, Path()).neck.out_channels == 144


@pytest.mark.parametrize(
    ("described_detector", "config"),
    [
        ({"architecture": "atss"}, "atss/atss_r50_fpn_1x_coco"),
        ({"architecture": "tood", "backbone": {"depth": 101}}, "tood/tood_r101_fpn_ms-2x_coco"),
        ({"architecture": "vfnet", "backbone": {"depth": 101}}, "vfnet/vfnet_r101_fpn_1x_coco"),
        ({"architecture": "rtmdet"}, "rtmdet/rtmdet_tiny_8xb32-300e_coco"),
        (csp("rtmdet", "CSPNeXt", 0.33, 0.5), "rtmdet/rtmdet_s_8xb32-300e_coco"),
        (csp("rtmdet", "CSPNeXt", 0.67, 0.75), "rtmdet/rtmdet_m_8xb32-300e_coco"),
        ({"architecture": "yolox"}, "yolox/yolox_tiny_8xb8-300e_coco"),
        (csp("yolox", "CSPDarknet", 0.33, 0.5), "yolox/yolox_s_8xb8-300e_coco"),
        (csp("yolox", "CSPDarknet", 1.0, 1.0), "yolox/yolox_l_8xb8-300e_coco"),
    ],
)
def test_a_described_detector_has_the_tensors_of_the_stock_config_of_its_size(
    described_detector: dict[str, Any], config: str
) -> None:
    description, stock = DescribedDetector.model_validate(described_detector), f"mmdet::{config}.py"
    shapes = [
        {name: tensor.shape for name, tensor in build_shapes(model).state_dict().items()}
        for model in (
            builder.model_config(description, 80),
            builder.model_config(ConfigDetector(config=stock, init="random"), 80),
        )
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("description", "file"),
    [
        (ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py"), "resnet50-0676ba61.pth"),
        (ConfigDetector(config="mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py"), "resnet101-63fe2227.pth"),
        (
            ConfigDetector(config="mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py"),
            "resnet50_caffe-788b5fa3.pth",
        ),
        (DescribedDetector(architecture="gfl", backbone={"depth": 18}, init="imagenet"), "resnet18-f37072fd.pth"),
    ],
)
def test_imagenet_weights_are_found_by_their_published_name(description: Any, file: str, tmp_path: Path) -> None:
    source = builder.imagenet_source(description)
    with pytest.raises(WeightsNotFound, match=file):
        imagenet.find(source, tmp_path)
    (tmp_path / "resnet50-11ad3fa6.pth").touch()  # another version of the same weights
    (tmp_path / file).touch()
    assert imagenet.find(source, tmp_path)[1].name == file


def test_a_backbone_without_published_weights_is_refused(tmp_path: Path) -> None:
    caffe18 = DescribedDetector(architecture="fcos", backbone={"depth": 18}, init="imagenet")
    with pytest.raises(WeightsNotFound, match="published"):
        imagenet.find(builder.imagenet_source(caffe18), tmp_path)


@pytest.fixture
def imagenet18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DescribedDetector:
    """A detector whose backbone is published in `tmp_path`, and whose published hash is that of the file."""
    description = DescribedDetector(architecture="gfl", backbone={"depth": 18}, init="imagenet")
    source = builder.build(description.model_copy(update={"init": "random"}), 3, tmp_path)
    saved = weights.write(
        source.backbone.state_dict() | {"fc.weight": torch.zeros(1)}, tmp_path / "resnet18-{sha8}.pth"
    )
    monkeypatch.setattr(published_weights, "imagenet_files", lambda _: (PublishedFile(file=saved.path.name),))
    return description


def test_a_file_that_is_not_the_published_one_is_refused(imagenet18: DescribedDetector, tmp_path: Path) -> None:
    [file] = tmp_path.glob("resnet18-*.pth")
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(WeightsUnreadable, match="not the published file") as error:
        builder.build(imagenet18, 3, tmp_path)
    assert "backbone: FILE" in error.value.hint


def test_imagenet_weights_are_loaded_into_the_backbone(imagenet18: DescribedDetector, tmp_path: Path) -> None:
    [file] = tmp_path.glob("resnet18-*.pth")
    published, loaded = weights.read(file), builder.build(imagenet18, 3, tmp_path).backbone.state_dict()
    assert all(torch.equal(published[key], tensor) for key, tensor in loaded.items())
