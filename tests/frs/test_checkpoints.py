import random
from pathlib import Path

import numpy as np
import pytest
import torch

from frs.detectors import weights
from frs.engine.checkpoints import FORMAT, Checkpoints, random_state, set_random_state
from frs.errors import CheckpointUnusable


def written(folder: Path, step: int, identity: str = "spec") -> Path:
    content = {"format": FORMAT, "identity": identity, "step": step, "filling": torch.zeros(500)}
    return weights.write(content, folder / f"step_{step:08d}-{{sha8}}.pth").path


def test_the_newest_is_found(tmp_path: Path) -> None:
    for step in (5, 10):
        written(tmp_path, step)
    found = Checkpoints(tmp_path, "spec").newest()
    assert found is not None and found["step"] == 10


def test_none_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", "spec").newest() is None


def test_one_that_is_cut_short_is_passed_over_for_the_older(tmp_path: Path) -> None:
    written(tmp_path, 5)
    newest = written(tmp_path, 10)
    whole = newest.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        newest.write_bytes(whole[:length])
        found = Checkpoints(tmp_path, "spec").newest()
        assert found is not None and found["step"] == 5


def test_one_with_a_flipped_bit_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, 5)
    newest = written(tmp_path, 10)
    whole = newest.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = Checkpoints(tmp_path, "spec").newest()
        assert found is not None and found["step"] == 5


def test_another_specs_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 5, identity="other")
    with pytest.raises(CheckpointUnusable, match="another spec"):
        Checkpoints(tmp_path, "spec").newest()


def test_random_state_comes_back_from_a_file(tmp_path: Path) -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), np.random.rand(), np.random.normal(), torch.rand(()).item()

    file = weights.write({"random": random_state()}, tmp_path / "r.pth")
    expected = draw()
    set_random_state(weights.read(file.path)["random"])
    assert draw() == expected
