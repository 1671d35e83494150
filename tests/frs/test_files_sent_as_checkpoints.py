"""Files that users send as checkpoints, after public reports: read, or refused with what they are and the next step."""

import re
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frs.detectors import weights
from frs.errors import TeacherWeightsMismatch, WeightsUnreadable

FILE = "best.pt"
LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 19332096\n"


def refused(path: Path, reason: str, next_step: str) -> None:
    with pytest.raises(WeightsUnreadable, match=f"^{FILE} {re.escape(reason)}") as raised:
        weights.read(path)
    assert next_step in raised.value.hint


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    """huggingface/transformers #8497, YBIGTA/pytorch-hair-segmentation #38: invalid load key, 'v'."""
    (tmp_path / FILE).write_text(LFS_POINTER)
    refused(tmp_path / FILE, "is a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("page", ["<!DOCTYPE html><html>", "\n<html><head>", '<?xml version="1.0"?><Error>'])
def test_a_web_page_in_place_of_the_download_is_named(tmp_path: Path, page: str) -> None:
    """pytorch/pytorch #16203, timesler/facenet-pytorch #41: invalid load key, '<'."""
    (tmp_path / FILE).write_text(page)
    refused(tmp_path / FILE, "is a web page", "Download the file itself")


def test_a_download_that_broke_off_is_named(tmp_path: Path) -> None:
    """lufficc/SSD #165: failed finding central directory."""
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    refused(tmp_path / FILE, "is incomplete", "again")


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    """Acly/comfyui-inpaint-nodes #116: weights_only with TorchScript archives."""
    torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), tmp_path / FILE)
    refused(tmp_path / FILE, "is a TorchScript program", "model.state_dict()")


def test_a_checkpoint_that_pickles_its_model_is_refused_by_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ultralytics/ultralytics #19824, Comfy-Org/ComfyUI #6637: ultralytics.nn.tasks.DetectionModel."""
    module = types.ModuleType("ultralytics_tasks")
    module.DetectionModel = type("DetectionModel", (nn.Module,), {"__module__": "ultralytics_tasks"})
    monkeypatch.setitem(sys.modules, "ultralytics_tasks", module)
    torch.save({"model": module.DetectionModel(), "epoch": -1}, tmp_path / FILE)
    refused(tmp_path / FILE, "contains a Python object, ultralytics_tasks.DetectionModel", "model.state_dict()")


def test_numpy_values_beside_the_tensors_do_not_matter(tmp_path: Path) -> None:
    """nanoporetech/remora #226, hhaentze/MRSegmentator #19: Unsupported global numpy.core.multiarray.scalar."""
    statistics = {"best_ema": np.float64(0.5), "mean": np.zeros(3)}
    torch.save({"state_dict": {"w": torch.ones(1)}, **statistics}, tmp_path / FILE)
    assert weights.state_of(weights.read(tmp_path / FILE), FILE)["w"] == 1


def test_half_precision_tensors_of_a_deepspeed_engine_are_loaded(tmp_path: Path) -> None:
    """deepspeedai/DeepSpeed #5895: tensors under `module`; ZeRO stage 3 leaves them empty."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    saved = OrderedDict((key, tensor.half()) for key, tensor in nn.Sequential(nn.Conv2d(1, 1, 1)).state_dict().items())
    torch.save({"module": saved, "ds_version": "0.14.4", "optimizer": None}, tmp_path / FILE)
    weights.load(network, weights.read(tmp_path / FILE), FILE)
    assert torch.equal(network[0].weight, saved["0.weight"].float())
    sharded = OrderedDict((key, tensor[:0].reshape(0)) for key, tensor in saved.items())
    with pytest.raises(TeacherWeightsMismatch, match="2 shapes differ"):
        weights.load(network, {"module": sharded}, FILE)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnreadable, match="gone.pth cannot be read: FileNotFoundError"):
        weights.read(tmp_path / "gone.pth")
