import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from tiny import ARCHITECTURES, described
from torch import nn

from frs.detector_spec import DescribedDetector
from frs.detectors import builder
from frs.detectors.heads import class_logits, dense_head, logits_of_outputs, strides
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import Teacher, fingerprint
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import Distillation, Method
from frs.errors import HeadMismatch, StrideMismatch, UnsupportedDetector
from frs.training.precision import AutocastOptimWrapper, ResolvedPrecision


def detector(architecture: str = "gfl", **changes: Any) -> Any:
    torch.manual_seed(0)
    return builder.build(DescribedDetector.model_validate(described(architecture, **changes)), 3, Path())


def distiller(
    architecture: str = "gfl",
    weights: LossWeights | None = None,
    teacher: Any = None,
    method: Method = "frs",
    diagnose_every: int = 50,
    distillation: Distillation | None = None,
) -> Distiller:
    teacher = teacher or Teacher(detector(architecture, neck_channels=32))
    weights = weights or LossWeights(0.01, 0.1)
    distillation = distillation or Distillation()
    return Distiller(detector(architecture), teacher, distillation, weights, WeightSchedule(4), method, diagnose_every)


def batch(size: int = 96) -> dict[str, Any]:
    """Return two raw images with one box each, as the data loader returns them."""
    torch.manual_seed(1)
    samples = []
    for _ in range(2):
        sample = DetDataSample(
            metainfo={"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)}
        )
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 12.0, 50.0, 60.0]]), labels=torch.tensor([1]))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return {
        "inputs": [torch.randint(0, 255, (3, size, size), dtype=torch.uint8) for _ in range(2)],
        "data_samples": samples,
    }


def optimise(model: Distiller, steps: int = 1, precision: ResolvedPrecision = "fp32") -> list[dict[str, torch.Tensor]]:
    wrapper = AutocastOptimWrapper(precision, "cpu", optimizer=torch.optim.SGD(model.parameters(), lr=1e-3))
    logs = []
    for step in range(steps):
        model.train()
        logs.append(model.train_step(batch(), wrapper, step))
    return logs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_class_branch_returns_the_same_logits_as_the_whole_head(architecture: str) -> None:
    model = detector(architecture).eval()
    pyramid = model.extract_feat(torch.randn(1, 3, 96, 96))
    head = dense_head(model)
    for logits, expected in zip(class_logits(model, pyramid), logits_of_outputs(head, head(pyramid)), strict=True):
        torch.testing.assert_close(logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_trains_student_and_adapter(architecture: str) -> None:
    model = distiller(architecture, LossWeights(0.01, 0.1, ramp_from=-4))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    logs = optimise(model)[0]
    assert {"distill_feature", "distill_logit", "loss"} <= logs.keys()
    assert all(torch.isfinite(value) for value in logs.values())
    changed = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.equal(before[name])}
    assert changed == {"student", "adapter"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bf16_training_computes_the_terms_in_fp32(architecture: str) -> None:
    logs = optimise(distiller(architecture), steps=2, precision="bf16")[1]
    assert logs["distill_feature"].dtype == logs["distill_logit"].dtype == torch.float32
    assert all(torch.isfinite(value) for value in logs.values())


def test_losses_of_probabilities_are_computed_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, torch refuses the cross-entropy of a probability under autocast."""
    model = distiller("tood")
    loss, computed = model.student.bbox_head.initial_loss_cls, []

    def record(scores: torch.Tensor, *others: Any, **options: Any) -> Any:
        computed.append((torch.is_autocast_enabled("cpu"), scores.dtype))
        return type(loss).forward(loss, scores, *others, **options)

    monkeypatch.setattr(loss, "forward", record)
    optimise(model, precision="bf16")
    assert set(computed) == {(False, torch.float32)}


def test_the_loss_is_the_task_loss_plus_the_weighted_terms() -> None:
    model = distiller(weights=LossWeights(0.01, 0.1))
    wrapper = AutocastOptimWrapper("fp32", "cpu", optimizer=torch.optim.SGD(model.parameters(), lr=1e-3))
    logs = {name: value.item() for name, value in model.train_step(batch(), wrapper, step=2).items()}
    task = sum(value for name, value in logs.items() if name.startswith("loss_"))
    assert model.factor(2) == 0.5
    assert logs["loss"] == pytest.approx(task + 0.5 * (0.01 * logs["distill_feature"] + 0.1 * logs["distill_logit"]))


def test_the_ramp_rises_from_its_start_and_stays_at_1() -> None:
    model = distiller(weights=LossWeights(1, 1, ramp_from=10))
    assert [model.factor(step) for step in (0, 10, 12, 14, 99)] == [0, 0, 0.5, 1, 1]


class NoisyNeck(nn.Module):
    """A neck followed by batch norm and dropout: in train mode, its buffers drift and its output is random."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck, self.out_channels = neck, neck.out_channels
        self.norm, self.dropout = nn.BatchNorm2d(32), nn.Dropout(0.5)

    def forward(self, features: Any) -> Any:
        return tuple(self.dropout(self.norm(level)) for level in self.neck(features))


def noisy_teacher() -> Teacher:
    model = detector(neck_channels=32)
    model.neck = NoisyNeck(model.neck)
    return Teacher(model)


def test_training_does_not_change_the_teacher() -> None:
    teacher = noisy_teacher()
    model = distiller(teacher=teacher)
    before = teacher.fingerprint()
    model.init_weights()
    optimise(model, steps=20)
    assert teacher.fingerprint() == before == fingerprint(teacher.detector)
    assert not teacher.detector.neck.training


def test_the_teacher_is_not_in_the_state_dict_the_parameters_or_a_copy() -> None:
    model = distiller()
    assert {name.split(".")[0] for name in model.state_dict()} == {"student", "adapter"}
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"student", "adapter"}
    assert copy.deepcopy(model).teacher is model.teacher


def test_the_feature_term_of_a_student_equal_to_its_teacher_is_0() -> None:
    student = detector().eval()
    model = Distiller(
        student, Teacher(copy.deepcopy(student)), Distillation(adapter="1x1"), LossWeights(1.0, 0.0), WeightSchedule(1)
    )
    for convolution in model.adapter.convolutions.values():
        nn.init.dirac_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    assert model.forward_both(batch()).terms["feature"].item() == 0


def test_a_term_of_weight_0_is_not_computed() -> None:
    assert distiller(weights=LossWeights(1.0, 0.0)).forward_both(batch()).terms.keys() == {"feature"}


def test_levels_are_matched_by_stride() -> None:
    teacher = Teacher(detector("gfl", neck_channels=32))
    model = Distiller(detector("faster_rcnn"), teacher, Distillation(), LossWeights(1.0, 0.0), WeightSchedule(1))
    assert strides(model.student) == (4, 8, 16, 32, 64)
    assert model.strides == (8, 16, 32, 64)
    assert torch.isfinite(model.forward_both(batch()).terms["feature"])


def test_detectors_without_a_common_stride_are_refused() -> None:
    teacher = Teacher(detector())
    teacher.strides = (3, 5)
    with pytest.raises(StrideMismatch):
        distiller(teacher=teacher)


@pytest.mark.parametrize("architecture", ["retinanet", "faster_rcnn"])
def test_logits_of_different_meaning_are_refused_unless_there_is_no_logit_term(architecture: str) -> None:
    teacher = Teacher(detector("gfl", neck_channels=32))
    with pytest.raises(HeadMismatch, match="anchor"):
        distiller(architecture, teacher=teacher)
    distiller(architecture, LossWeights(1.0, 0.0), teacher)


def test_a_detector_without_a_neck_is_refused() -> None:
    with pytest.raises(UnsupportedDetector):
        dense_head(nn.Linear(1, 1))


def test_teacher_and_student_normalise_pixels_with_their_own_mean() -> None:
    teacher = Teacher(detector("fcos", neck_channels=32))  # normalised as in caffe
    student = detector("gfl")
    assert not torch.equal(student.data_preprocessor.mean, teacher.detector.data_preprocessor.mean)
    raw = batch()
    features, _ = teacher.observe(raw["inputs"])
    pixels = torch.stack(raw["inputs"]).float() - teacher.detector.data_preprocessor.mean
    torch.testing.assert_close(features[8], teacher.detector.extract_feat(pixels)[0])
