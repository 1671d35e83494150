import json
from pathlib import Path
from typing import Any, get_args

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import pytest
import timm
import torch
import torchvision
from mmdet.models import MobileNetV2
from torch import Tensor, nn

from frs.backbones import TimmName
from frs.detector_spec import DescribedDetector
from frs.detectors import backbone_config, builder, imagenet
from frs.errors import TeacherWeightsMismatch, WeightsNotFound

FAMILIES: list[dict[str, Any]] = [
    {"depth": 18, "width": 8},
    {"depth": 18, "width": 8, "norm": "gn"},
    {"type": "MobileNetV2", "widen_factor": 0.5},
    {"type": "CSPNeXt", "deepen_factor": 0.167, "widen_factor": 0.25},
    {"type": "CSPDarknet", "deepen_factor": 0.33, "widen_factor": 0.25},
    {"type": "EfficientNet"},
    {"type": "RegNet"},
]
LITE0 = {"type": "tf_efficientnet_lite0"}
TIMM = [{"type": name} for name in get_args(TimmName)]


def described(backbone: dict[str, Any] | None, architecture: str = "gfl", **fields: Any) -> DescribedDetector:
    tiny = {"architecture": architecture, "backbone": backbone, "neck_channels": 16, "stacked_convs": 1}
    return DescribedDetector.model_validate(tiny | fields)


def picture(size: int) -> Tensor:
    """Return an image (1, 3, H, W) that has the same values in every version of torch."""
    axis = torch.linspace(-1, 1, size)
    planes = [axis[:, None] * axis, axis[:, None].expand(size, size).sin(), (3 * axis).expand(size, size).cos()]
    return torch.stack(planes)[None]


@pytest.mark.parametrize("backbone", [*FAMILIES, *TIMM], ids=lambda backbone: json.dumps(backbone))
def test_every_backbone_gives_the_neck_strides_4_to_32(backbone: dict[str, Any]) -> None:
    model = builder.model_config(described(backbone), classes=2)
    module = backbone_config.build_shapes(model.backbone)
    module.eval()
    image = torch.zeros(1, 3, 64, 64, device=next(module.parameters()).device)
    with torch.no_grad():
        levels = module(image)
    assert [64 // level.shape[-1] for level in levels] == [4, 8, 16, 32]
    assert [level.shape[1] for level in levels] == model.neck.in_channels


@pytest.mark.parametrize("architecture", ["gfl", "faster_rcnn"])
@pytest.mark.parametrize("backbone", [*FAMILIES, LITE0], ids=lambda backbone: json.dumps(backbone))
def test_every_parameter_of_a_backbone_receives_a_gradient(architecture: str, backbone: dict[str, Any]) -> None:
    detector = builder.build(described(backbone, architecture), 2, Path())
    detector.train()
    levels = detector.neck(detector.backbone(torch.rand(2, 3, 64, 64)))
    torch.stack([level.square().sum() for level in levels]).sum().backward()
    unused = [name for name, p in detector.backbone.named_parameters() if p.grad is None]
    assert all(name.startswith("conv2.") for name in unused), unused  # MobileNetV2's last layer, stride 32 again


@pytest.mark.parametrize("backbone", [*FAMILIES[2:], LITE0], ids=lambda backbone: json.dumps(backbone))
@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_frozen_batch_norms_keep_their_statistics_in_training(backbone: dict[str, Any], norm: str) -> None:
    module = builder.build(described(backbone | {"norm": norm}), 2, Path()).backbone
    before = {name: buffer.clone() for name, buffer in module.named_buffers() if name.endswith("running_mean")}
    module.train()
    module(torch.rand(2, 3, 64, 64))
    kept = [torch.equal(buffer, before[name]) for name, buffer in module.named_buffers() if name in before]
    assert kept and (all(kept) if norm == "frozen_bn" else not any(kept[:5]))


@pytest.mark.parametrize(("init", "frozen"), [("imagenet", True), ("random", False)])
def test_statistics_are_frozen_by_default_only_if_they_were_trained(init: str, frozen: bool) -> None:
    module = builder.build(described(LITE0, init=init), 2, Path()).backbone
    before = module.timm_model.bn1.running_mean.clone()
    module.train()
    module(torch.rand(2, 3, 64, 64))
    assert torch.equal(module.timm_model.bn1.running_mean, before) == frozen


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_100"])
def test_pixels_are_normalised_as_the_weights_expect(name: str) -> None:
    preprocessor = builder.model_config(described({"type": name}), 2).data_preprocessor
    published = timm.get_pretrained_cfg(name)
    assert preprocessor.mean == pytest.approx([255 * mean for mean in published.mean])
    assert preprocessor.std == pytest.approx([255 * deviation for deviation in published.std])
    assert preprocessor.bgr_to_rgb


LOGITS = {  # of the package efficientnet-lite-pytorch 0.1.0, the network that these weights were published for
    "tf_efficientnet_lite0": (224, [-0.3612736, 0.7118413, 0.6145185, -0.5672764, 0.5516338, 1.7511370], 41.708202),
    "tf_efficientnet_lite2": (260, [-0.4716425, 1.3738792, -1.1758770, -1.6365947, -0.9151904, 0.4371012], 39.842728),
}


@pytest.mark.parametrize("name", LOGITS)
def test_the_installed_imagenet_weights_give_the_published_logits(name: str, tmp_path: Path) -> None:
    size, first, norm = LOGITS[name]
    published, path = imagenet.find(f"timm://{name}", tmp_path)
    network = timm.create_model(name)
    imagenet.load_file(network, path, published.by_order)
    network.eval()
    with torch.no_grad():
        logits = network(picture(size))[0]
    assert logits[:6].tolist() == pytest.approx(first, abs=1e-4)
    assert logits.norm().item() == pytest.approx(norm, abs=1e-3)


def test_a_student_starts_from_the_installed_imagenet_weights(tmp_path: Path) -> None:
    backbone = builder.build(described(LITE0, init="imagenet"), 2, tmp_path).backbone
    published, path = imagenet.find("timm://tf_efficientnet_lite0", tmp_path)
    network = timm.create_model("tf_efficientnet_lite0")
    imagenet.load_file(network, path, published.by_order)
    network.eval()
    backbone.eval()
    with torch.no_grad():
        expected = network.forward_intermediates(picture(64), indices=[1, 2, 3, 4], intermediates_only=True)
        for level, other in zip(backbone(picture(64)), expected, strict=True):
            assert torch.equal(level, other)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "fastvit_t8", "ghostnet_100", "repvit_m0_9"])
def test_weights_of_a_whole_network_of_timm_are_loaded_into_its_pyramid(name: str, tmp_path: Path) -> None:
    network = timm.create_model(name)
    torch.save(network.state_dict(), tmp_path / "network.pth")
    backbone = builder.build(described({"type": name}, init={"backbone": "network.pth"}), 2, tmp_path).backbone
    network.eval()
    backbone.eval()
    with torch.no_grad():
        [expected] = network.forward_intermediates(picture(64), indices=[-1], intermediates_only=True)
        assert torch.equal(backbone(picture(64))[-1], expected)


def test_torchvisions_weights_of_a_mobilenet_give_its_features(tmp_path: Path) -> None:
    network = torchvision.models.mobilenet_v2()
    torch.save(network.state_dict(), tmp_path / "mobilenet.pth")
    backbone = MobileNetV2(out_indices=(7,))
    imagenet.load_file(backbone, tmp_path / "mobilenet.pth", by_order=True)
    network.eval()
    backbone.eval()
    with torch.no_grad():
        assert torch.allclose(backbone(picture(64))[0], network.features(picture(64)), atol=1e-6)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "network.pth")
    with pytest.raises(TeacherWeightsMismatch, match=r"network\.pth does not match the backbone"):
        builder.build(described(LITE0, init={"backbone": "network.pth"}), 2, tmp_path)


def test_missing_imagenet_weights_name_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsNotFound, match=r"ghostnet_100\.in1k\.safetensors") as raised:
        builder.build(described({"type": "ghostnet_100"}, init="imagenet"), 2, tmp_path)
    assert "frs models pull ghostnet_100.in1k.safetensors" in raised.value.hint
    with pytest.raises(WeightsNotFound, match="No ImageNet weights are published"):
        builder.build(described({"type": "MobileNetV2", "widen_factor": 0.5}, init="imagenet"), 2, tmp_path)
