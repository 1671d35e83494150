"""Distillation does not change the teacher; with weights of 0 it equals plain training; a run survives being killed."""

import random
from pathlib import Path

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from test_distiller import batch, detector, distiller, noisy_teacher, optimise
from test_engine import assert_equal, newest_checkpoint, values
from tiny import SAMPLED_ARCHITECTURES, Killed, Train, described, job

from frs import events
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation
from frs.training.precision import AutocastOptimWrapper

STEPS = 20


@pytest.mark.parametrize("architecture", SAMPLED_ARCHITECTURES)
def test_with_both_weights_0_the_run_is_plain_mmdet_training(architecture: str) -> None:
    """Compare twenty steps bit by bit. The spec refuses such weights, so the test builds the distiller itself."""
    plain = detector(architecture)
    model = Distiller(
        detector(architecture),
        Teacher(detector(architecture)),
        Distillation(),
        LossWeights(0.0, 0.0),
        WeightSchedule(1),
    )
    for trained, step in ((plain, ()), (model, (0,))):
        wrapper = AutocastOptimWrapper(
            "fp32", "cpu", optimizer=torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)
        )
        for _ in range(STEPS):
            trained.train()
            data = batch()  # seeds the generator that Faster R-CNN samples its proposals with
            trained.train_step(data, wrapper, *step)
    assert_equal(dict(plain.state_dict()), {k.removeprefix("student."): v for k, v in model.state_dict().items()})


def test_a_moving_average_of_the_student_does_not_change_the_teacher() -> None:
    teacher = noisy_teacher()
    before = teacher.fingerprint()
    model = distiller(teacher=teacher)
    average = ExponentialMovingAverage(model, momentum=0.1)
    wrapper = AutocastOptimWrapper("fp32", "cpu", optimizer=torch.optim.SGD(model.parameters(), lr=1e-3))
    for _ in range(STEPS):
        average.train()
        model.train().train_step(batch(), wrapper, step=0)
        average.update_parameters(model)
    assert teacher.fingerprint() == before
    assert average.module.teacher is teacher
    assert {name.split(".")[1] for name in average.state_dict() if "." in name} == {"student", "adapter"}


def test_a_resume_does_not_change_the_teacher() -> None:
    teacher = noisy_teacher()
    before = teacher.fingerprint()
    first = distiller(teacher=teacher)
    optimise(first, STEPS)
    second = distiller(teacher=teacher)
    second.load_state_dict(first.state_dict())
    optimise(second, STEPS)
    assert teacher.fingerprint() == before


@pytest.mark.parametrize(
    "teacher",
    [
        described("fcos", neck_channels=48),  # normalised as in caffe: not divided by the deviation
        described("gfl", backbone={"depth": 34, "width": 16}, neck_channels=64, stacked_convs=2),
        described("gfl", backbone={"depth": 50, "width": 8, "norm": "gn"}),
    ],
)
def test_teacher_and_student_may_differ_in_normalisation_channels_depth_and_width(
    train: Train, teacher: dict[str, object]
) -> None:
    emitted = train(job(teacher=teacher, schedule={"max_steps": 3}))
    terms = [v for (_, key), v in values(emitted).items() if key in ("train/distill_feature", "train/distill_logit")]
    assert len(terms) == 6 and all(term > 0 for term in terms)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_at_ten_random_steps_equals_an_uninterrupted_run(
    train: Train, tmp_path: Path, workers: int
) -> None:
    spec = job(
        schedule={"epochs": 5, "checkpoint_every": 3, "evaluate_every": 2},
        distillation={"feature_weight": "auto", "logit_weight": "auto"},
        resources={"loader_workers": workers},
    )
    whole = train(spec, tmp_path / "whole")
    emitted: list[events.Event] = []
    for step in sorted(random.Random(workers).sample(range(2, 21), 10)):
        with pytest.raises(Killed):
            train(spec, tmp_path / "parts", kill_at=step, emitted=emitted)
    train(spec, tmp_path / "parts", emitted=emitted)
    assert values(emitted) == values(whole)
    assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(tmp_path / "parts"))
