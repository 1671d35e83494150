"""Strong augmentation: its images are a function of (seed, epoch, image), and a run with it resumes exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.utils import register_all_modules
from pydantic import ValidationError
from test_engine import assert_equal, facts, newest_checkpoint, values
from tiny import Train, job

from frs.dataset.coco import CocoFile, read
from frs.detector_spec import ConfigDetector
from frs.detectors.builder import load_base_config
from frs.schedule_spec import Schedule
from frs.spec import JobSpec
from frs.training import augmentation
from frs.training.augmentation import MIXING, mixed_epochs, stock_mixing
from frs.training.batches import DetectionImages, TrainingLoaders, training_pipeline
from frs.training.sampling import ImageDraw
from frs.training.stop_request import Interrupted

GFL = load_base_config(ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py"))
SIZE = (96, 80)
STRONG = Schedule(image_size=SIZE, batch_size=4, augmentation="strong")
MIXED_EPOCHS = 1


@pytest.fixture(scope="module")
def coco(data: Path) -> CocoFile:
    register_all_modules(init_default_scope=True)
    return read(data / "tiny" / "annotations" / "instances_train.json")


@pytest.fixture(params=[(), ("Mosaic",), MIXING], ids=lambda mixing: "+".join(mixing) or "one image")
def images(request: pytest.FixtureRequest, coco: CocoFile, data: Path) -> DetectionImages:
    """The drawn data set, with mixed images in its first epoch."""
    plain, mixed = (training_pipeline(STRONG, GFL, mixing) for mixing in ((), request.param))
    early = (mixed, MIXED_EPOCHS) if request.param else None
    return DetectionImages(coco, data / "tiny" / "train", plain, 0, range(14), early)


def test_an_image_depends_on_its_epoch_and_not_on_the_images_before_it(images: DetectionImages) -> None:
    draws = [ImageDraw(epoch, image) for epoch in (0, 1) for image in (3, 0, 7)]
    forward, backward = ({draw: images[draw]["inputs"] for draw in order} for order in (draws, draws[::-1]))
    assert all(torch.equal(forward[draw], backward[draw]) for draw in draws)
    assert not any(
        torch.equal(forward[ImageDraw(0, image)], forward[ImageDraw(1, image)])
        for image in (3, 0, 7)
        if forward[ImageDraw(0, image)].shape == forward[ImageDraw(1, image)].shape
    )


def test_processes_that_load_images_change_nothing(images: DetectionImages) -> None:
    one, other = (list(TrainingLoaders(images, STRONG, workers)(0, 5)) for workers in (0, 2))
    for expected, actual in zip(one, other, strict=True):
        assert all(map(torch.equal, expected["inputs"], actual["inputs"]))


def test_boxes_lie_inside_the_image_which_is_at_most_of_the_size(images: DetectionImages) -> None:
    samples = [images[ImageDraw(epoch, image)] for epoch in range(3) for image in range(14)]
    for sample in samples:
        height, width = sample["inputs"].shape[1:]
        boxes = sample["data_samples"].gt_instances.bboxes.tensor
        assert (width, height) <= SIZE and height <= SIZE[1]
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
    assert sum(len(sample["data_samples"].gt_instances) for sample in samples) > len(samples)


def test_images_are_mixed_in_the_early_epochs_only(coco: CocoFile, data: Path) -> None:
    plain, mixed = (training_pipeline(STRONG, GFL, mixing) for mixing in ((), MIXING))
    files = data / "tiny" / "train"
    with_mosaic = DetectionImages(coco, files, plain, 0, range(14), (mixed, MIXED_EPOCHS))
    without = DetectionImages(coco, files, plain, 0, range(14))
    equal = [
        torch.equal(with_mosaic[ImageDraw(epoch, 5)]["inputs"], without[ImageDraw(epoch, 5)]["inputs"])
        for epoch in range(3)
    ]
    assert equal == [False, True, True]
    assert [mixed_epochs(epochs) for epochs in (1, 2, 15, 16, 300)] == [0, 1, 14, 14, 280]


@pytest.mark.parametrize(
    ("config", "mixing"),
    [
        ("gfl/gfl_r50_fpn_1x_coco.py", ()),
        ("retinanet/retinanet_r50_fpn_ms-640-800-3x_coco.py", ()),
        ("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", MIXING),
        ("yolox/yolox_s_8xb8-300e_coco.py", MIXING),
        ("yolox/yolox_tiny_8xb8-300e_coco.py", ("Mosaic",)),
    ],
)
def test_images_are_mixed_as_the_base_config_does(config: str, mixing: tuple[str, ...]) -> None:
    assert stock_mixing(load_base_config(ConfigDetector(config=f"mmdet::{config}"))) == mixing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": {"augmentation": "strong", "train_sizes": [[96, 96]]}}, "instead of `train_sizes`"),
        ({"schedule": {"augmentation": "strong"}, "distillation": {"teacher_cache": "on"}}, "`augmentation: light`"),
    ],
)
def test_fields_that_strong_augmentation_replaces_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JobSpec.model_validate(job(**changes))


ALL = job(
    schedule={"augmentation": "strong", "accumulate": 3, "ema": 0.9, "epochs": 4, "batch_size": 2, "patience": 9},
    distillation={
        "feature_weight": "auto",
        "logit_weight": "auto",
        "weight_schedule": "adaptive",
        "recalibrate": True,
    },
)
"""7 batches an epoch: steps of 3, 3 and 1; 12 steps, of which the first 9 have mixed images."""


@pytest.mark.parametrize(
    "stops",
    [(4, 6, 10), pytest.param((1, 2, 3, 5, 7, 8, 9, 11), marks=pytest.mark.slow)],
    ids=["three steps", "all other steps"],
)
def test_a_run_with_all_options_resumed_at_any_step_equals_an_uninterrupted_one(
    train: Train, tmp_path: Path, stops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augmentation, "stock_mixing", lambda _: MIXING)
    whole = train(ALL, tmp_path / "whole")
    assert facts(whole)["teacher_cache"] is False
    for stop_at in stops:
        parts = tmp_path / f"stopped-at-{stop_at}"
        with pytest.raises(Interrupted):
            train(ALL, parts, stop_at=stop_at)
        resumed = train(ALL, parts)
        assert_equal(newest_checkpoint(tmp_path / "whole"), newest_checkpoint(parts))
        remaining = {key: value for key, value in values(whole).items() if key[0] > stop_at}
        assert {key: value for key, value in values(resumed).items() if key[0] > stop_at} == remaining
        assert facts(resumed)["student_sha256"] == facts(whole)["student_sha256"]


def test_a_run_mixes_images_if_its_base_config_does(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = job(schedule={"augmentation": "strong", "epochs": 2})
    plain = train(spec, tmp_path / "plain")
    monkeypatch.setattr(augmentation, "stock_mixing", lambda _: MIXING)
    assert values(train(spec, tmp_path / "mixed"))[1, "train/loss"] != values(plain)[1, "train/loss"]
