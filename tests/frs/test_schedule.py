from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from frs.detectors.builder import BASE_CONFIG, load_base_config
from frs.errors import InvalidSpec
from frs.spec import ConfigDetector, DescribedDetector, Schedule
from frs.step_counts import known_epochs
from frs.training import schedule

GFL = load_base_config(ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py"))


def plan(images: int = 160, **fields: Any) -> schedule.ResolvedSchedule:
    return schedule.resolve_schedule(Schedule.model_validate(fields), GFL, images)


def rates(images: int = 160, **fields: Any) -> list[float]:
    """The learning rate of every step, from mmengine's own schedulers."""
    asked = Schedule.model_validate(fields)
    settled = schedule.resolve_schedule(asked, GFL, images)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settled.learning_rate)
    wrapper = OptimWrapper(optimizer)
    schedulers = [
        PARAM_SCHEDULERS.build({**config, "optimizer": wrapper})
        for config in schedule.scheduler_configs(asked, settled)
    ]
    seen = []
    for _ in range(settled.steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


def test_what_is_absent_is_the_stock_configs() -> None:
    settled = plan()
    assert (settled.epochs, settled.steps, settled.learning_rate) == (12, 120, 0.01)
    assert settled.milestones == (80, 110)


def test_the_stock_rate_is_scaled_with_the_batch() -> None:
    assert plan(batch_size=4).learning_rate == pytest.approx(0.0025)


def test_stock_milestones_move_with_the_epochs() -> None:
    assert plan(epochs=24).milestones == (160, 220)


def test_max_steps_ends_anywhere() -> None:
    assert (plan(max_steps=13).steps, plan(max_steps=13).epochs) == (13, 2)


def test_epochs_are_counted_from_one() -> None:
    settled = plan()
    assert [settled.epoch_of(step) for step in (0, 1, 10, 11)] == [0, 1, 1, 2]


@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
def test_the_full_rate_is_reached_after_the_warm_up(warmup: int) -> None:
    seen = rates(lr_schedule={"warmup_steps": warmup, "milestones": [8]})
    assert seen[max(0, warmup - 1)] == pytest.approx(0.01)
    assert seen[79] == pytest.approx(0.01)
    assert seen[80] == pytest.approx(0.001)


@pytest.mark.parametrize("warmup", [0, 1, 6])
def test_a_cosine_falls_to_a_hundredth(warmup: int) -> None:
    seen = rates(lr_schedule={"name": "cosine", "warmup_steps": warmup})
    assert max(seen) == pytest.approx(0.01)
    assert seen[-1] == pytest.approx(0.0001, rel=0.5)
    assert seen[warmup:] == sorted(seen[warmup:], reverse=True)


@pytest.mark.parametrize(("name", "steps"), [("cosine", 1), ("cosine", 2), ("step", 1)])
def test_the_shortest_run_has_a_rate(name: str, steps: int) -> None:
    assert all(rate > 0 for rate in rates(max_steps=steps, lr_schedule={"name": name}))


def test_a_warm_up_as_long_as_the_run_is_all_there_is() -> None:
    seen = rates(max_steps=5, lr_schedule={"name": "cosine", "warmup_steps": 5})
    assert seen == sorted(seen) and seen[-1] == pytest.approx(0.01)


def test_a_repeated_stock_data_set_repeats_its_epochs() -> None:
    base_config = load_base_config(ConfigDetector(config="mmdet::retinanet/retinanet_r50_fpn_ms-640-800-3x_coco.py"))
    settled = schedule.resolve_schedule(Schedule(), base_config, images=160)
    assert (settled.epochs, settled.milestones) == (36, (270, 330))
    assert schedule.base_dataset(base_config).type == "CocoDataset"


def test_a_stock_schedule_in_steps_asks_for_epochs() -> None:
    base_config = load_base_config(ConfigDetector(config="mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_90k_coco.py"))
    with pytest.raises(InvalidSpec, match="schedule.epochs"):
        schedule.resolve_schedule(Schedule(), base_config, images=160)
    assert schedule.resolve_schedule(Schedule(epochs=2), base_config, images=160).epochs == 2


def test_auto_warm_up_is_a_twentieth_and_500_at_most() -> None:
    assert (schedule.warmup("auto", 100), schedule.warmup("auto", 90_000), schedule.warmup(7, 100)) == (5, 500, 7)


@pytest.mark.parametrize("architecture", BASE_CONFIG)
def test_the_epochs_of_described_detectors_are_known_without_their_stock_configs(architecture: Any) -> None:
    described = DescribedDetector(architecture=architecture)
    asked = Schedule(max_steps=7)
    known = known_epochs(asked, described)
    assert known == schedule.resolve_schedule(Schedule(), load_base_config(described), images=16).epochs
    assert known_epochs(Schedule(epochs=3), described) == 3
    assert known_epochs(asked, ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py")) is None
