"""The checks before training: a job runs them up to the first failure, a plan runs all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import described, job

from frs.dataset.splits import load_splits
from frs.detectors import weights
from frs.distillation.teacher import Teacher
from frs.engine import plan, stages
from frs.errors import BadDataset, ClassMismatch, ExportUnsupported
from frs.preflight import setup
from frs.preflight.estimate import Estimate
from frs.preflight.step_runner import StepResult, StepRunner
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training import memory


@pytest.fixture
def planned(data: Path, models: Path) -> Any:
    """Return the function that estimates a spec with changes."""

    def run(**changes: Any) -> Estimate:
        return plan.estimate(resolve(JobSpec.model_validate(job(**changes)), data, models), lambda _: None)

    return run


def errors(estimate: Estimate) -> list[str]:
    return [check.code for check in estimate.checks if check.level == "error"]


def altered_teacher(models: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Return a teacher whose weights file has `changes` to the content of the valid one."""
    content = weights.read(models / "teacher.pth") | changes
    weights.write(content, models / name)
    return described(neck_channels=32, init={"weights": name})


def test_a_valid_job_is_estimated_completely(planned: Any) -> None:
    estimate = planned()
    assert estimate.ok and estimate.exit_code == 0 and not errors(estimate)
    assert (estimate.steps, estimate.epochs, estimate.training_images, estimate.validation_images) == (8, 2, 14, 4)
    assert estimate.classes == ["circle", "square", "triangle", "star"]
    assert estimate.teacher.parameters > estimate.student.parameters
    assert estimate.teacher.flops > estimate.student.flops > 0
    assert estimate.estimated_seconds > 8 * estimate.seconds_per_step > 0
    assert estimate.peak_memory_mb > 0 and estimate.precision == "fp32"
    [teacher_check] = [check for check in estimate.checks if check.level == "warning"]
    assert "mAP" in teacher_check.message


def with_warmup(steps: Any, ramp: Any = "auto", **weights: Any) -> dict[str, Any]:
    """Return changes to a spec of 8 steps."""
    return {
        "schedule": {"lr_schedule": {"warmup_steps": steps}},
        "distillation": {"warmup_steps": ramp} | weights,
    }


AUTO = {"feature_weight": "auto", "logit_weight": "auto"}


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        (with_warmup(4, 4, **AUTO), 8),
        (with_warmup(6, 10, logit_weight="auto"), 16),
        (with_warmup(500, 8), 8),
        (with_warmup("auto", 500), 500),
    ],
)
def test_a_run_that_ends_before_distillation_has_its_full_weight_is_warned_of(
    planned: Any, changes: dict[str, Any], reached: int
) -> None:
    estimate = planned(**changes)
    assert estimate.ok
    [check] = [check for check in estimate.checks if check.code == "teacher_fits"]
    assert check.level == "warning" and f"full weight after {reached} steps; the run has 8" in check.message


@pytest.mark.parametrize("changes", [with_warmup(4, 3, **AUTO), with_warmup(500, 7), with_warmup("auto", **AUTO)])
def test_a_run_in_which_distillation_has_its_full_weight_is_not_warned_of(
    planned: Any, changes: dict[str, Any]
) -> None:
    [check] = [check for check in planned(**changes).checks if check.code == "teacher_fits"]
    assert check.ok


@pytest.mark.parametrize("steps", [7, 500])
def test_a_warm_up_behind_which_no_step_distils_is_refused(planned: Any, steps: int) -> None:
    estimate = planned(**with_warmup(steps, **AUTO))
    assert errors(estimate) == ["invalid_spec"]
    [check] = [check for check in estimate.checks if check.level == "error"]
    assert "schedule.lr_schedule.warmup_steps" in check.hint


def test_a_student_that_cannot_be_exported_is_not_quantized(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(detector: Any) -> None:
        raise ExportUnsupported("It decodes boxes in another way.")

    monkeypatch.setattr(stages, "check_exportable", refuse)
    student = described(neck_channels=32, init={"weights": "teacher.pth"})
    estimate = planned(kind="quantize", teacher=None, student=student)
    assert errors(estimate) == ["export_unsupported"] and estimate.student is not None


@pytest.mark.parametrize("train_sizes", [[[96, 96], [64, 64]], None])
def test_a_cache_that_is_impossible_is_refused(planned: Any, train_sizes: Any) -> None:
    estimate = planned(schedule={"train_sizes": train_sizes}, distillation={"teacher_cache": "on"})
    assert errors(estimate) == (["invalid_spec"] if train_sizes else [])


def test_unlabelled_images_that_are_all_broken_are_refused(planned: Any, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "broken", dirs_exist_ok=True)
    for image in (data / "broken" / "train").iterdir():
        image.write_bytes(b"no image")
    estimate = planned(unlabelled="broken")
    assert errors(estimate) == ["bad_dataset"]
    [check] = [check for check in estimate.checks if check.level == "error"]
    assert "The unlabelled split has issues in 14 of 14 images" in check.message


def test_a_training_without_teacher_has_no_teacher_checks(planned: Any) -> None:
    estimate = planned(kind="train", teacher=None)
    assert estimate.ok and estimate.teacher is None and estimate.estimated_seconds > 0
    assert not any("teacher" in check.code for check in estimate.checks)


def test_an_evaluation_has_no_steps(planned: Any) -> None:
    student = described(neck_channels=32, init={"weights": "teacher.pth"})
    estimate = planned(kind="evaluate", teacher=None, student=student)
    assert estimate.ok and estimate.steps is None and estimate.student.flops > 0


def test_all_errors_are_reported_at_once(planned: Any, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "partial", dirs_exist_ok=True)
    sorted((data / "partial" / "train").iterdir())[0].unlink()
    estimate = planned(dataset="partial", student=described("retinanet"), distillation={"accept_weak_teacher": False})
    assert errors(estimate) == ["bad_dataset", "head_mismatch", "teacher_not_competent"]
    assert all(check.hint for check in estimate.checks if check.level == "error")
    skipped = [check.code for check in estimate.checks if check.level == "info" and not check.ok]
    assert skipped == ["training_step", "gradients"]
    assert estimate.exit_code == 1 and estimate.seconds_per_step is None and estimate.teacher is not None


def test_teacher_weights_with_a_missing_or_misshapen_tensor_are_rejected(planned: Any, models: Path) -> None:
    state = weights.read(models / "teacher.pth")["state_dict"]
    missing = {key: tensor for key, tensor in state.items() if key != "neck.fpn_convs.0.conv.weight"}
    misshapen = state | {"neck.fpn_convs.0.conv.weight": torch.zeros(1)}
    for name, tensors in [("missing.pth", missing), ("misshapen.pth", misshapen)]:
        teacher = altered_teacher(models, name, state_dict=tensors)
        assert errors(planned(teacher=teacher)) == ["teacher_weights_mismatch"]


def test_a_teacher_without_common_strides_is_rejected(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class TeacherOfOtherStrides(Teacher):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.strides = (3, 5)

    monkeypatch.setattr(setup, "Teacher", TeacherOfOtherStrides)
    assert errors(planned()) == ["stride_mismatch"]


def test_different_heads_are_accepted_without_a_logit_term(planned: Any) -> None:
    assert planned(student=described("retinanet"), distillation={"logit_weight": 0}).ok


def test_a_batch_that_does_not_fit_is_a_failed_check(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    estimate = planned(schedule={"batch_size": 8, "image_size": [480, 480]})
    assert errors(estimate) == ["batch_too_large"]


def test_a_spec_that_the_engine_rejects_is_an_invalid_spec(planned: Any) -> None:
    estimate = planned(student={"config": "mmdet::gfl/nothing.py", "init": "random"})
    assert errors(estimate) == ["invalid_spec"] and estimate.exit_code == 2


def fails(*_: object) -> StepResult[str]:
    raise ClassMismatch("Another class.")


def builds(part: str) -> StepResult[str]:
    return StepResult(f"{part} and more", "Built.")


def warns(part: str) -> StepResult[None]:
    return StepResult(None, f"Built {part}.", warning=True)


def test_a_plan_continues_after_a_failure_and_skips_the_steps_without_an_input() -> None:
    steps = StepRunner(stop_at_first_error=False)
    missing = steps.run("a", fails)
    also_missing = steps.run("b", builds, missing)
    part = steps.run("c", builds, "part")
    steps.run("d", warns, part)
    steps.run("e", warns, also_missing)
    assert [(check.code, check.level, check.ok) for check in steps.checks] == [
        ("class_mismatch", "error", False),
        ("b", "info", False),
        ("c", "info", True),
        ("d", "warning", False),
        ("e", "info", False),
    ]
    assert steps.checks[0].hint == ClassMismatch.hint_by_default
    assert steps.checks[3].message == "Built part and more."
    assert not missing and not also_missing


def test_a_job_stops_at_the_first_failure() -> None:
    with pytest.raises(ClassMismatch):
        StepRunner(stop_at_first_error=True).run("a", fails)


def test_a_sample_is_spread_evenly_over_all_images(data: Path, models: Path) -> None:
    spec = resolve(JobSpec.model_validate(job()), data, models)
    train = load_splits(spec, lambda done, total: None).train
    assert train.sample(4).valid == [0, 3, 7, 10] and train.sample(99).valid == train.valid
    assert set(train.sample(4).ids) < set(train.ids)


def test_a_validation_split_without_valid_images_is_rejected(planned: Any, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "without_images", dirs_exist_ok=True)
    for image in (data / "without_images" / "val").iterdir():
        image.unlink()
    estimate = planned(dataset="without_images", max_invalid_fraction=0.99)
    assert errors(estimate) == [BadDataset.code]
    assert json.loads(estimate.model_dump_json())["ok"] is False
