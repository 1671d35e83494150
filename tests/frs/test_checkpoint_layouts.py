"""Checkpoints of other trainers: entries that hold the tensors, and prefixes of the names of tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel

from frs.detector_spec import DescribedDetector
from frs.detectors import builder, imagenet, weights
from frs.detectors.weights import load, load_except
from frs.errors import TeacherWeightsMismatch, WeightsNotFound, WeightsUnreadable

State = dict[str, torch.Tensor]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))


def renamed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


SAVED = network(1).state_dict()
OTHER = network(2).state_dict()
COPIES = {"ema_" + key.replace(".", "_"): tensor for key, tensor in OTHER.items()}
LAYOUTS: dict[str, Any] = {
    "mmengine": {"state_dict": SAVED, "meta": {"epoch": 1}},
    "tensors alone": SAVED,
    "DataParallel": {"state_dict": renamed(SAVED, "module.")},
    "compiled and parallel": {"state_dict": renamed(SAVED, "module._orig_mod.")},
    "Lightning": {"state_dict": renamed(SAVED, "model."), "pytorch-lightning_version": "2.1"},
    "Lightning around DataParallel": {"state_dict": renamed(SAVED, "model.module.")},
    "Lightning with a loss": {"state_dict": renamed(SAVED, "model.") | {"loss.weight": torch.ones(3)}},
    "mmrazor": {"state_dict": renamed(SAVED, "architecture.") | renamed(OTHER, "teacher.")},
    "mmrazor's teacher alone": {"state_dict": renamed(SAVED, "teacher.")},
    "mmdetection 2 with an average": {"state_dict": SAVED | COPIES},
    "detectron2": {"model": SAVED, "iteration": 3},
    "plain training loop": {"epoch": 3, "model_state_dict": SAVED, "optimizer_state_dict": {"state": {}}},
    "RT-DETR": {"model": OTHER, "ema": {"module": SAVED, "updates": 7}},
    "mmengine with an average": {"state_dict": SAVED, "ema_state_dict": {"steps": torch.tensor(1)} | OTHER},
    "settings under a container's name": {"ema": {"decay": 0.99}, "model": SAVED},
    "counters left out": {k: v for k, v in SAVED.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_weights_of_other_trainers_are_loaded(content: Any) -> None:
    target = network()
    load(target, content, "teacher.pth")
    for key, tensor in target.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, SAVED[key]), key


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_checkpoint_on_disk_is_loaded_without_layers_that_differ(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    target = network()
    head = ["2.weight", "2.bias"]
    before = {key: target.state_dict()[key].clone() for key in head}
    assert sorted(load_except(target, weights.read(tmp_path / "file.pth"), "file.pth", head)) == sorted(head)
    after = target.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in head)
    assert torch.equal(after["0.weight"], SAVED["0.weight"])


def test_a_module_with_a_wrappers_name_keeps_it() -> None:
    target = nn.ModuleDict({"model": nn.Linear(2, 1)})
    saved = {"model.weight": torch.ones(1, 2), "model.bias": torch.ones(1)}
    load(target, {"state_dict": saved}, "file.pth")
    assert torch.equal(target.state_dict()["model.weight"], saved["model.weight"])


def test_a_wrapped_module_that_torch_saved_is_loaded() -> None:
    load(network(), {"state_dict": DataParallel(network(1)).state_dict()}, "file.pth")


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        ({"state_dict": renamed(SAVED, "net.")}, TeacherWeightsMismatch, "missing .0.weight.*unknown .net.0.weight"),
        ({"state_dict": SAVED | {"ema_other": torch.ones(1)}}, TeacherWeightsMismatch, "1 unknown .ema_other"),
        ({"model": {"decay": 0.9}}, WeightsUnreadable, "not tensors"),
        ({"state_dict": {}}, WeightsUnreadable, "not tensors"),
        ({}, WeightsUnreadable, "has no state_dict"),
        (
            {"state_dict": {k: v for k, v in renamed(SAVED, "module.").items() if "2." not in k}},
            TeacherWeightsMismatch,
            "",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_names_in_the_file(content: Any, error: Any, reason: str) -> None:
    with pytest.raises(error, match=reason):
        load(network(), content, "file.pth")


def test_a_checkpoint_that_contains_itself_is_refused() -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(WeightsUnreadable):
        load(network(), content, "file.pth")


BACKBONES: dict[str, Callable[[State], Any]] = {
    "torchvision": lambda state: state | {"fc.weight": torch.ones(2, 2)},
    "MoCo": lambda state: {"state_dict": renamed(state, "module.encoder_q.")},
    "Lightning classifier": lambda state: {"state_dict": renamed(state, "model.") | {"head.weight": torch.ones(2)}},
    "mmpretrain": lambda state: {"state_dict": renamed(state, "backbone.") | {"head.fc.weight": torch.ones(2, 2)}},
    "detector": lambda state: {"state_dict": renamed(state, "backbone.") | {"neck.weight": torch.ones(2)}},
    "self-supervised, parallel": lambda state: {"model": renamed(state, "module.backbone.")},
}


@pytest.mark.parametrize("layout", BACKBONES.values(), ids=BACKBONES.keys())
def test_a_backbone_is_loaded_from_files_of_classifiers_and_detectors(
    layout: Callable[[State], Any], tmp_path: Path
) -> None:
    torch.save(layout(SAVED), tmp_path / "backbone.pth")
    backbone = network()
    imagenet.load_file(backbone, tmp_path / "backbone.pth")
    assert torch.equal(backbone.state_dict()["0.weight"], SAVED["0.weight"])


def test_a_student_starts_from_a_backbone_of_ones_own(tmp_path: Path) -> None:
    described = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16}
    source = builder.build(DescribedDetector.model_validate(described), 3, tmp_path)
    description = DescribedDetector.model_validate(described | {"init": {"backbone": "own/pretrained.pth"}})
    with pytest.raises(WeightsNotFound, match="own/pretrained.pth"):
        builder.build(description, 3, tmp_path)
    weights.write(source.backbone.state_dict(), tmp_path / "own" / "pretrained.pth")
    loaded = builder.build(description, 3, tmp_path).backbone.state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in source.backbone.state_dict().items())
    wider = description.model_copy(update={"backbone": description.backbone.model_copy(update={"width": 16})})
    with pytest.raises(TeacherWeightsMismatch, match="another shape .*The file must have the backbone's type"):
        builder.build(wider, 3, tmp_path)
