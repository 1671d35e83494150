from typing import Any

import pytest
import torch
from test_distiller import batch, detector
from tiny import ARCHITECTURES
from torch import nn

from frs.detectors.folding import BlockedBackbone, fold_batch_norms, optimize_backbone
from frs.distillation.teacher import Teacher, fingerprint

FROZEN_BN = {"depth": 18, "width": 8, "norm": "frozen_bn"}


def teacher(architecture: str, **backbone: Any) -> Any:
    """Return a detector whose norms have random statistics; a new norm is close to the identity."""
    model = detector(architecture, backbone=FROZEN_BN | backbone).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("depth", [18, 50])
def test_the_folded_backbone_has_the_same_output_as_the_loaded_one(architecture: str, depth: int) -> None:
    model = teacher(architecture, depth=depth)
    pixels = torch.randn(2, 3, 96, 128)
    optimized = optimize_backbone(model.backbone)
    assert isinstance(optimized, BlockedBackbone)
    with torch.no_grad():
        for folded, loaded in zip(optimized(pixels), model.backbone(pixels), strict=True):
            assert (folded - loaded).abs().max() <= 1e-5 * loaded.abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folded_teacher_has_the_same_outputs_as_the_loaded_one(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = teacher(architecture)
    folded = Teacher(model).observe(batch()["inputs"])
    monkeypatch.setattr("frs.distillation.teacher.optimize_backbone", lambda backbone: backbone)
    for actual, expected in zip(folded, Teacher(model).observe(batch()["inputs"]), strict=True):
        for stride, tensor in expected.items():
            assert (actual[stride] - tensor).abs().max() <= 1e-5 * tensor.abs().max()


def test_folding_does_not_change_the_loaded_weights() -> None:
    observer = Teacher(teacher("gfl"))
    before, pixels = observer.fingerprint(), torch.randn(1, 3, 96, 96)
    features = observer.detector.extract_feat(pixels)
    observer.observe(batch()["inputs"])
    assert observer.fingerprint() == before == fingerprint(observer.detector)
    assert all(map(torch.equal, observer.detector.extract_feat(pixels), features))


def test_folding_leaves_no_batch_norm() -> None:
    folded = fold_batch_norms(teacher("gfl", depth=50).backbone)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("change", ["group norm", "unknown layer", "training"])
def test_a_backbone_that_cannot_be_folded_is_used_unchanged(change: str) -> None:
    backbone = teacher("gfl", norm="gn" if change == "group norm" else "frozen_bn").backbone
    if change == "unknown layer":
        backbone.relu = nn.SiLU()
    backbone.training = change == "training"
    assert optimize_backbone(backbone) is backbone


def test_half_precision_uses_the_loaded_weights() -> None:
    observer = Teacher(teacher("gfl"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = observer.observe(batch()["inputs"])
    assert features[8].dtype == torch.bfloat16
