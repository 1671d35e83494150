from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors.builder import BASE_CONFIG, load_base_config
from frs.errors import InvalidSpec
from frs.schedule_spec import Schedule
from frs.step_counts import described_epochs
from frs.training import schedule

GFL = load_base_config(ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py"))


def resolve(images: int = 160, **fields: Any) -> schedule.ResolvedSchedule:
    return schedule.resolve_schedule(Schedule.model_validate(fields), GFL, images)


def rates(images: int = 160, **fields: Any) -> list[float]:
    """Return the learning rate of every step, from mmengine's schedulers."""
    configured = Schedule.model_validate(fields)
    resolved = schedule.resolve_schedule(configured, GFL, images)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=resolved.learning_rate)
    wrapper = OptimWrapper(optimizer)
    schedulers = [
        PARAM_SCHEDULERS.build({**config, "optimizer": wrapper}) for config in schedule.scheduler_configs(resolved)
    ]
    learning_rates = []
    for _ in range(resolved.steps):
        learning_rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return learning_rates


def test_absent_fields_take_the_values_of_the_base_config() -> None:
    resolved = resolve()
    assert (resolved.epochs, resolved.steps, resolved.learning_rate) == (12, 120, 0.01)
    assert resolved.milestones == (80, 110)


@pytest.mark.parametrize(
    ("architecture", "fields", "expected"),
    [
        ("gfl", {}, ("sgd", 0.01, 1e-4, "step")),
        ("yolox", {}, ("sgd", 0.0025, 5e-4, "cosine")),
        ("rtmdet", {}, ("adamw", 1e-3, 0.05, "cosine")),
        ("rtmdet", {"optimizer": {"name": "sgd"}, "batch_size": 8}, ("sgd", 0.005, 1e-4, "cosine")),
        ("rtmdet", {"lr_schedule": {"milestones": [200]}}, ("adamw", 1e-3, 0.05, "step")),
        ("rtmdet", {"lr_schedule": {"name": "step"}}, ("adamw", 1e-3, 0.05, "step")),
    ],
)
def test_an_absent_optimizer_and_schedule_are_those_of_the_base_config(
    architecture: Any, fields: dict[str, Any], expected: tuple[str, float, float, str]
) -> None:
    base_config = load_base_config(DescribedDetector(architecture=architecture))
    resolved = schedule.resolve_schedule(Schedule.model_validate(fields), base_config, images=160)
    optimizer = (resolved.optimizer, resolved.learning_rate, resolved.weight_decay)
    assert (*optimizer, resolved.lr_schedule) == expected


def test_the_learning_rate_of_the_base_config_scales_with_the_batch_size() -> None:
    assert resolve(batch_size=4).learning_rate == pytest.approx(0.0025)


def test_the_milestones_of_the_base_config_scale_with_the_epochs() -> None:
    assert resolve(epochs=24).milestones == (160, 220)


def test_max_steps_alone_decides_the_length() -> None:
    resolved = resolve(max_steps=1_000)
    assert (resolved.steps, resolved.epochs) == (1_000, 100)
    assert resolved.milestones == (667, 917)


def test_the_first_of_epochs_and_max_steps_ends_the_training() -> None:
    assert resolve(epochs=24, max_steps=1_000).steps == 240
    assert resolve(epochs=24, max_steps=100).steps == 100
    assert resolve(epochs=24, max_steps=100).milestones == (160, 220)


def test_max_steps_may_end_within_an_epoch() -> None:
    assert (resolve(max_steps=13).steps, resolve(max_steps=13).epochs) == (13, 2)


def test_epochs_are_counted_from_1() -> None:
    resolved = resolve()
    assert [resolved.epoch_of(step) for step in (0, 1, 10, 11)] == [0, 1, 1, 2]


@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
def test_the_learning_rate_is_complete_after_the_warm_up(warmup: int) -> None:
    learning_rates = rates(lr_schedule={"warmup_steps": warmup, "milestones": [8]})
    assert learning_rates[max(0, warmup - 1)] == pytest.approx(0.01)
    assert learning_rates[79] == pytest.approx(0.01)
    assert learning_rates[80] == pytest.approx(0.001)


@pytest.mark.parametrize("warmup", [0, 1, 6])
def test_a_cosine_falls_to_a_hundredth(warmup: int) -> None:
    learning_rates = rates(lr_schedule={"name": "cosine", "warmup_steps": warmup})
    assert max(learning_rates) == pytest.approx(0.01)
    assert learning_rates[-1] == pytest.approx(0.0001, rel=0.5)
    assert learning_rates[warmup:] == sorted(learning_rates[warmup:], reverse=True)


@pytest.mark.parametrize(("name", "steps"), [("cosine", 1), ("cosine", 2), ("step", 1)])
def test_the_shortest_run_has_a_learning_rate_above_0(name: str, steps: int) -> None:
    assert all(rate > 0 for rate in rates(max_steps=steps, lr_schedule={"name": name}))


def test_a_run_may_consist_of_the_warm_up() -> None:
    learning_rates = rates(max_steps=5, lr_schedule={"name": "cosine", "warmup_steps": 5})
    assert learning_rates == sorted(learning_rates) and learning_rates[-1] == pytest.approx(0.01)


def test_a_repeated_data_set_in_the_base_config_multiplies_its_epochs() -> None:
    base_config = load_base_config(ConfigDetector(config="mmdet::retinanet/retinanet_r50_fpn_ms-640-800-3x_coco.py"))
    resolved = schedule.resolve_schedule(Schedule(), base_config, images=160)
    assert (resolved.epochs, resolved.milestones) == (36, (270, 330))
    assert schedule.base_dataset(base_config).type == "CocoDataset"


def test_a_base_config_with_a_schedule_in_steps_requires_epochs_in_the_spec() -> None:
    base_config = load_base_config(ConfigDetector(config="mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_90k_coco.py"))
    with pytest.raises(InvalidSpec, match="schedule.epochs"):
        schedule.resolve_schedule(Schedule(), base_config, images=160)
    assert schedule.resolve_schedule(Schedule(epochs=2), base_config, images=160).epochs == 2
    assert schedule.resolve_schedule(Schedule(max_steps=15), base_config, images=160).epochs == 2


def test_auto_warm_up_is_a_twentieth_of_the_steps_and_at_most_500() -> None:
    assert schedule.resolve_warmup_steps("auto", 100) == 5
    assert schedule.resolve_warmup_steps("auto", 90_000) == 500
    assert schedule.resolve_warmup_steps(7, 100) == 7


@pytest.mark.parametrize("architecture", BASE_CONFIG)
def test_the_epochs_of_described_detectors_need_no_base_config(architecture: Any) -> None:
    described = DescribedDetector(architecture=architecture)
    resolved = schedule.resolve_schedule(Schedule(), load_base_config(described), images=16)
    assert described_epochs(described) == resolved.epochs
    assert described_epochs(ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py")) is None


def test_accumulated_batches_count_as_the_images_of_one_step() -> None:
    resolved = resolve(batch_size=4, accumulate=4)
    whole = resolve(batch_size=16)
    assert resolved == whole and resolved.steps_per_epoch == 10
    assert resolve(images=161, batch_size=4, accumulate=4).steps_per_epoch == 11
