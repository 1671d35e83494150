"""Detectors of mmdet's own configs: they train as students, or are refused with the reason before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from test_distiller import batch, detector, distiller
from tiny import described, job, of
from torch.distributed import DistError

from frs import events
from frs.detector_spec import ConfigDetector
from frs.detectors import backbone_config, builder
from frs.detectors.unsupported import unsupported_on_error
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import Teacher
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation, Method
from frs.engine import plan, trainer
from frs.errors import InvalidSpec, UnsupportedDetector
from frs.preflight import base_config_trial
from frs.preflight.base_config_trial import try_detector
from frs.preflight.complexity import noise_image
from frs.resolved import resolve
from frs.schedule_spec import Schedule
from frs.spec import JobSpec
from frs.training import batches
from frs.training.schedule import base_dataset, resolve_schedule

RTMDET = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
YOLOX = "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py"
EFFICIENTNET = "mmdet::efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py"
CENTERNET = "mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py"


def config(name: str) -> ConfigDetector:
    return ConfigDetector(config=name, init="random")


def untrained(name: str) -> Any:
    """Return a detector without tensors, which is built in a fraction of a second."""
    return backbone_config.build_shapes(builder.model_config(config(name), 2))


def student(name: str, **changes: Any) -> dict[str, Any]:
    """Return a spec of one step whose images are no multiple of 32 pixels."""
    schedule = {"epochs": 1, "max_steps": 1, "batch_size": 2, "image_size": [72, 72]}
    return job(student={"config": name, "init": "random"}, schedule=schedule, **changes)


def test_a_student_whose_config_draws_sizes_for_a_batch_is_distilled_at_any_size(train: Any) -> None:
    teacher = described(neck_channels=32, init={"weights": "teacher.pth"})
    [outcome] = of(events.Outcome, train(student(YOLOX, teacher=teacher, distillation={"logit_weight": 0})))
    assert outcome.status == "succeeded"


def test_a_student_whose_config_pads_in_its_pipeline_is_planned_at_any_size(data: Path, models: Path) -> None:
    spec = JobSpec.model_validate(student(RTMDET, kind="train", teacher=None))
    assert plan.estimate(resolve(spec, data, models), lambda _: None).ok


def test_images_are_padded_to_the_coarsest_stride_if_the_config_pads_in_its_pipeline() -> None:
    assert builder.model_config(config(RTMDET), 2).data_preprocessor.pad_size_divisor == 32
    assert "pad_size_divisor" not in builder.model_config(config("mmdet::detr/detr_r50_8xb2-150e_coco.py"), 2)


def test_sizes_that_a_config_draws_for_a_batch_are_drawn_for_an_image() -> None:
    resize = batches.training_pipeline(Schedule(), builder.load_base_config(config(YOLOX)))[2]
    assert resize["type"] == "RandomChoiceResize" and resize["scales"] == [(n, n) for n in range(320, 641, 32)]
    fixed = batches.training_pipeline(Schedule(image_size=(96, 96)), builder.load_base_config(config(YOLOX)))[2]
    assert (fixed["type"], fixed["scale"]) == ("Resize", (96, 96))


def test_images_are_trained_at_the_size_of_the_mosaic_that_a_config_resizes() -> None:
    base_config = builder.load_base_config(config(RTMDET))
    resize = batches.training_pipeline(Schedule(), base_config)[2]
    assert resize == {"type": "Resize", "scale": batches.test_size(Schedule(), base_config), "keep_ratio": True}
    assert resize["scale"] == (640, 640)


def test_a_config_that_trains_on_several_sets_has_the_transforms_of_the_first() -> None:
    voc = builder.load_base_config(config("mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py"))
    assert batches.training_pipeline(Schedule(), voc)[2]["scale"] == (1000, 600)


def test_a_config_without_a_training_pipeline_needs_an_image_size() -> None:
    base = builder.load_base_config(config(YOLOX))
    base.model.data_preprocessor.batch_augments = None
    base_dataset(base).pipeline = None
    base.train_dataloader.dataset.pipeline = None
    with pytest.raises(InvalidSpec, match="training pipeline") as caught:
        batches.training_pipeline(Schedule(), base)
    assert "schedule.image_size" in caught.value.hint


@pytest.mark.parametrize("method", ["feature", "fgd"])
def test_a_detector_whose_neck_is_a_sequence_is_distilled(method: Method) -> None:
    """Libra's neck is a feature pyramid and a module that balances it, which has no `out_channels`."""
    libra = untrained("mmdet::libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py")
    weights = LossWeights(0.1, 0.0)
    teacher = Teacher(detector("retinanet"))
    model = Distiller(libra, teacher, Distillation(), weights, WeightSchedule(4), method)
    shapes = {parameter.shape[:2] for parameter in model.layers.parameters() if parameter.ndim == 4}
    assert (16, 256) in shapes


def test_a_teacher_that_pads_more_than_the_student_is_distilled_at_any_size() -> None:
    teacher, raw = detector("retinanet", neck_channels=32), batch(72)
    teacher.data_preprocessor.pad_size_divisor = 128
    model = distiller("retinanet", teacher=Teacher(teacher))
    assert {level.logits.shape[2:] for level in model.forward_both(raw).teacher_levels.values()} == {
        (128 // stride, 128 // stride) for stride in model.strides
    }
    padded = [d.data_preprocessor.pad_size_divisor for d in (model.student, model.teacher.detector, model)]
    assert padded == [32, 128, 128]


def test_every_stage_of_a_random_efficientnet_is_trained() -> None:
    backbone = MODELS.build(builder.model_config(config(EFFICIENTNET), 2).backbone)
    backbone.train()
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_milestones_without_an_end_are_scaled_to_the_length_of_the_base_config() -> None:
    base = builder.load_base_config(config("mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py"))
    assert resolve_schedule(Schedule(epochs=30, batch_size=1), base, images=10).milestones == (240, 280)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py",
            "CenterNetHead does not predict at",
        ),
        ("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "trains on masks"),
        ("mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py", "SSDHead has no class logits for a sigmoid"),
        ("mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py", "YOLOV3Head has no class logits for a sigmoid"),
        ("mmdet::detr/detr_r50_8xb2-150e_coco.py", "DETRHead does not predict at"),
        ("mmdet::solo/solo_r50_fpn_1x_coco.py", "no head for boxes and their classes"),
        ("mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py", "no backbone of its own"),
        ("mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py", "loads a teacher of its own"),
        ("mmdet::rtmdet/rtmdet_tta.py", "is not the config of a detector"),
    ],
)
def test_a_config_that_cannot_be_distilled_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedDetector, match=reason):
        try_detector(untrained(name), name, noise_image((64, 64)), trains=True, distils=True)


def test_a_mask_head_does_not_matter_to_a_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = untrained("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    monkeypatch.setattr(detector, "test_step", lambda _: [])
    monkeypatch.setattr(base_config_trial, "_check_logits", lambda *_: None)
    try_detector(detector, "mask-rcnn", noise_image((64, 64)), trains=False, distils=True)


def test_a_plan_has_the_refusal_as_a_failed_check(data: Path, models: Path) -> None:
    spec = JobSpec.model_validate(student(CENTERNET, kind="train", teacher=None))
    estimate = plan.estimate(resolve(spec, data, models), lambda _: None)
    [failed] = [check for check in estimate.checks if check.level == "error"]
    assert failed.code == "unsupported_detector" and failed.hint
    assert "fails to predict" in failed.message and "KeyError: 'border'" in failed.message


def test_a_refused_student_ends_the_job_without_a_traceback(
    data: Path, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    emitted: list[events.Event] = []
    spec = JobSpec.model_validate(student(CENTERNET, kind="train", teacher=None))
    assert trainer.run(resolve(spec, data, models), tmp_path, emitted.append) == 1
    [outcome] = of(events.Outcome, emitted)
    assert (outcome.end_reason, outcome.error.code) == ("unsupported_detector", "unsupported_detector")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError(), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), DistError()],
)
def test_an_error_of_the_machine_is_not_blamed_on_the_detector(error: Exception) -> None:
    with pytest.raises(type(error)), unsupported_on_error("It fails"):
        raise error
