"""Every student trains under every teacher: both terms, or the feature term where docs/methods.md says so."""

import re
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distiller import detector, optimise
from tiny import ARCHITECTURES

from frs.detectors.heads import class_map, strides
from frs.distillation.distiller import Distiller
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation
from frs.errors import HeadMismatch
from frs.facts import LossWeights

METHODS_PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
ROW = re.compile(r"^\| (`[a-z_`, ]+`) \| (\d) x (classes|objectness) \| (\d+) to (\d+) \|$", re.MULTILINE)
SAMPLE = [*zip(ARCHITECTURES, [*ARCHITECTURES[1:], ARCHITECTURES[0]], strict=True)]
"""Pairs of which every architecture is once the student and once the teacher."""
PAIRS = [
    pair if pair in SAMPLE else pytest.param(*pair, marks=pytest.mark.slow)
    for pair in product(ARCHITECTURES, ARCHITECTURES)
]


@cache
def documented() -> dict[str, tuple[int, bool, range]]:
    """Return anchors, whether the logits are objectness, and the strides of each architecture in the documentation."""
    rows = [row.groups() for row in ROW.finditer(METHODS_PAGE.read_text())]
    return {
        name: (int(anchors), meaning == "objectness", range(int(first), int(last) + 1))
        for names, anchors, meaning, first, last in rows
        for name in re.findall(r"[a-z_]+", names)
    }


@cache
def teacher(architecture: str) -> Teacher:
    return Teacher(detector(architecture, neck_channels=32))


def trained(student: str, under: str, weights: LossWeights) -> set[str]:
    """Train two steps and return the terms, each of which is finite."""
    model: Any = Distiller(detector(student), teacher(under), Distillation(), weights, WeightSchedule(1))
    logs = optimise(model, steps=2)[-1]
    assert all(torch.isfinite(value) for value in logs.values()), logs
    return {name for name in logs if name.startswith("distill_")}


def test_the_documentation_lists_what_every_head_predicts() -> None:
    assert documented().keys() == set(ARCHITECTURES)
    for architecture, (anchors, objectness, span) in documented().items():
        head = class_map(teacher(architecture).detector)
        assert (head.anchors, head.objectness) == (anchors, objectness), architecture
        pyramid = strides(teacher(architecture).detector)
        assert (pyramid[0], pyramid[-1]) == (span[0], span[-1]), architecture


@pytest.mark.parametrize(("student", "under"), PAIRS)
def test_every_pair_trains_the_documented_terms(student: str, under: str) -> None:
    weights = LossWeights(1e-3, 0.1, ramp_from=-1)
    if documented()[student][:2] == documented()[under][:2]:
        assert trained(student, under, weights) == {"distill_feature", "distill_logit"}
        return
    with pytest.raises(HeadMismatch) as refused:
        trained(student, under, weights)
    assert "Per location, the teacher has" in refused.value.message and "`method: feature`" in refused.value.hint
    assert trained(student, under, LossWeights(1e-3, 0.0, ramp_from=-1)) == {"distill_feature"}
