import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import job

from frs.detectors import weights
from frs.engine.checkpoints import FORMAT, Checkpoints, random_state, set_random_state
from frs.engine.identity import NEWER_FIELDS, checkpoint_identity
from frs.errors import CheckpointUnusable
from frs.spec import JobSpec

IDENTITY = "dac92d10f87028b22bd51cd0c08c5d1d91b35332e61ab54d7d87f09b5e562bb3"
"""Identity of the checkpoints of a job without newer fields, from before these fields existed."""
STORED_DEFAULTS: dict[str, dict[str, Any]] = {
    "schedule": {"lr_schedule": {"name": "step"}},
    "distillation": {"adapter": "3x3", "feature_ratio": 30.0},
}
"""Defaults at the time, which the specs of running jobs hold, because a spec is stored with its defaults."""
NEWER: list[dict[str, Any]] = [
    {"evaluation": {"max_detections": 300}},
    {"evaluation": {"max_detections": 200}},
    {"schedule": {"keep_background_images": True}},
    {"schedule": {"accumulate": 2}},
    {"schedule": {"ema": 0.99}},
    {"schedule": {"patience": 3}},
    {"schedule": {"frozen_stages": 0}},
    {"schedule": {"augmentation": "strong"}},
    {"distillation": {"feature_weight": "auto", "feature_ratio": 3}},
    {"distillation": {"logit_weight": "auto", "logit_ratio": 3}},
    {"distillation": {"weight_schedule": "cosine"}},
    {"distillation": {"logit_weight": "auto", "recalibrate": True}},
    {"distillation": {"mask": "union"}},
    {"distillation": {"distance": "cosine"}},
    {"distillation": {"init_from_teacher": True}},
]


def write_checkpoint(folder: Path, step: int, identity: str = "spec") -> Path:
    fields = {"format": FORMAT, "identity": identity, "step": step, "filling": torch.zeros(500)}
    return weights.write(fields, folder / f"step_{step:08d}-{{sha8}}.pth").path


def test_the_newest_checkpoint_is_read(tmp_path: Path) -> None:
    for step in (5, 10):
        write_checkpoint(tmp_path, step)
    content = Checkpoints(tmp_path, "spec").newest()
    assert content is not None and content["step"] == 10


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", "spec").newest() is None


def test_a_truncated_checkpoint_is_skipped(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    newest = write_checkpoint(tmp_path, 10)
    original = newest.read_bytes()
    for length in range(0, len(original), max(1, len(original) // 40)):
        newest.write_bytes(original[:length])
        content = Checkpoints(tmp_path, "spec").newest()
        assert content is not None and content["step"] == 5


def test_a_checkpoint_with_a_flipped_bit_is_skipped(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    newest = write_checkpoint(tmp_path, 10)
    original = newest.read_bytes()
    for position in range(0, len(original), max(1, len(original) // 40)):
        newest.write_bytes(original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :])
        content = Checkpoints(tmp_path, "spec").newest()
        assert content is not None and content["step"] == 5


def test_a_checkpoint_of_another_spec_is_rejected(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, identity="other")
    with pytest.raises(CheckpointUnusable, match="another spec"):
        Checkpoints(tmp_path, "spec").newest()


def test_a_random_state_survives_a_file(tmp_path: Path) -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), np.random.rand(), np.random.normal(), torch.rand(()).item()

    file = weights.write({"random": random_state()}, tmp_path / "r.pth")
    expected = draw()
    set_random_state(weights.read(file.path)["random"])
    assert draw() == expected


def identity(**changes: Any) -> str:
    context = SimpleNamespace(
        job=JobSpec.model_validate(job(**changes)), spec=SimpleNamespace(teacher=None, student=None)
    )
    split = SimpleNamespace(sha256="a", excluded=frozenset())
    return checkpoint_identity(context, SimpleNamespace(train=split, unlabelled=None))


def test_a_newer_field_belongs_to_the_identity_of_a_checkpoint_if_it_is_set() -> None:
    assert len({identity(**changes) for changes in [{}, *NEWER]}) == 1 + len(NEWER)


def test_a_newer_field_that_is_not_set_leaves_the_checkpoints_of_running_jobs_valid() -> None:
    stored = {
        part: JobSpec.model_fields[part].default.model_dump(include=names) for part, names in NEWER_FIELDS.items()
    }
    assert identity(**STORED_DEFAULTS) == IDENTITY
    merged = {part: values | STORED_DEFAULTS.get(part, {}) for part, values in stored.items()}
    assert identity(**merged) == IDENTITY
