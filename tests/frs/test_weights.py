import os
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from torch import nn

from frs.detectors import weights
from frs.errors import TeacherWeightsMismatch, WeightsUnreadable


class Bomb:
    """An object whose unpickling creates the file `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("place", ["alone", "meta", "state_dict"])
def test_a_weights_file_never_runs_code(tmp_path: Path, place: str) -> None:
    bomb = Bomb(tmp_path / "canary")
    torch.save(bomb if place == "alone" else {place: {"x": bomb}}, tmp_path / "bad.pth")
    with pytest.raises(WeightsUnreadable):
        weights.read(tmp_path / "bad.pth")
    assert not (tmp_path / "canary").exists()


def test_an_ordinary_mmengine_checkpoint_is_readable(tmp_path: Path) -> None:
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {
        "state_dict": OrderedDict(w=torch.ones(2)),
        "message_hub": {"log": buffer},
        "meta": {"seed": np.float64(1)},
    }
    torch.save(content, tmp_path / "epoch.pth")
    assert weights.state_of(weights.read(tmp_path / "epoch.pth"), "epoch.pth")["w"].tolist() == [1, 1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x80\x02}q\x00.", random.Random(0).randbytes(2000)])
def test_a_file_that_is_not_a_weights_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "invalid.pth").write_bytes(content)
    with pytest.raises(WeightsUnreadable, match="invalid.pth"):
        weights.state_of(weights.read(tmp_path / "invalid.pth"), "invalid.pth")


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    saved = weights.write({"w": torch.ones(1)}, tmp_path / "w.pth")
    assert weights.read(saved.path, saved.sha256)
    with pytest.raises(WeightsUnreadable, match="sha256"):
        weights.read(saved.path, "0" * 64)


def test_the_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    first, second = (weights.write({"w": torch.ones(3)}, tmp_path / name) for name in ("a.pth", "b-{sha8}.pth"))
    assert first.sha256 == second.sha256 == weights.digest(second.path)
    assert second.path.name == f"b-{second.sha256[:8]}.pth"
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.zeros(1, 2)}, "1 missing .bias"),
        ({"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "extra": torch.zeros(1)}, "1 unknown .extra"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(1)}, "1 shapes differ, size mismatch for weight"),
    ],
)
def test_weights_that_do_not_match_are_refused_with_a_reason(state: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(TeacherWeightsMismatch, match=reason):
        weights.load(nn.Linear(2, 1), {"state_dict": state}, "teacher.pth")


@pytest.mark.parametrize("spelling", ["classes", "CLASSES"])
def test_class_names_are_read_in_both_spellings(spelling: str) -> None:
    assert weights.classes_of({"meta": {"dataset_meta": {spelling: ["a", "b"]}}}) == ("a", "b")
    assert weights.classes_of({"meta": {spelling: ("a", "b")}}) == ("a", "b")
    assert weights.classes_of({}) is None
