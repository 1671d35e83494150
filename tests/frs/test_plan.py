"""Every check before the first epoch, run by a job up to the first failure and by a plan to the end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import described, job

from frs.detectors import weights
from frs.errors import BadDataset, ClassMismatch
from frs.preflight import checks, plan
from frs.preflight.checks import SetupStep, StepResult
from frs.preflight.estimate import Estimate
from frs.preflight.setup import TrainingSetup
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training import memory


@pytest.fixture
def planned(data: Path, models: Path) -> Any:
    def run(**changes: Any) -> Estimate:
        return plan.estimate(resolve(JobSpec.model_validate(job(**changes)), data, models), lambda _: None)

    return run


def errors(forecast: Estimate) -> list[str]:
    return [check.code for check in forecast.checks if check.level == "error"]


def bent_teacher(models: Path, name: str, **changes: Any) -> dict[str, Any]:
    """The teacher of a weights file whose content is `changes` away from the good one's."""
    content = weights.read(models / "teacher.pth") | changes
    weights.write(content, models / name)
    return described(neck_channels=32, init={"weights": name})


def test_a_sound_job_is_told_in_full(planned: Any) -> None:
    forecast = planned()
    assert forecast.ok and forecast.exit_code == 0 and not errors(forecast)
    assert (forecast.steps, forecast.epochs, forecast.training_images, forecast.validation_images) == (8, 2, 14, 4)
    assert forecast.classes == ["circle", "square", "triangle", "star"]
    assert forecast.teacher.parameters > forecast.student.parameters
    assert forecast.teacher.flops > forecast.student.flops > 0
    assert forecast.estimated_seconds > 8 * forecast.seconds_per_step > 0
    assert forecast.peak_memory_mb > 0 and forecast.precision == "fp32"
    [weak] = [check for check in forecast.checks if check.level == "warning"]
    assert "mAP" in weak.message


def test_a_student_alone_is_planned_without_a_teacher(planned: Any) -> None:
    forecast = planned(kind="train", teacher=None)
    assert forecast.ok and forecast.teacher is None and forecast.estimated_seconds > 0
    assert not any("teacher" in check.code for check in forecast.checks)


def test_an_evaluation_is_planned_without_steps(planned: Any) -> None:
    student = described(neck_channels=32, init={"weights": "teacher.pth"})
    forecast = planned(kind="evaluate", teacher=None, student=student)
    assert forecast.ok and forecast.steps is None and forecast.student.flops > 0


def test_all_that_is_wrong_is_told_at_once(planned: Any, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "gap", dirs_exist_ok=True)
    sorted((data / "gap" / "train").iterdir())[0].unlink()
    forecast = planned(dataset="gap", student=described("retinanet"), distillation={"accept_weak_teacher": False})
    assert errors(forecast) == ["bad_dataset", "head_mismatch", "teacher_not_competent"]
    assert all(check.hint for check in forecast.checks if check.level == "error")
    passed_over = [check.code for check in forecast.checks if check.level == "info" and not check.ok]
    assert passed_over == ["batch_too_large", "no_gradient"]
    assert forecast.exit_code == 1 and forecast.seconds_per_step is None and forecast.teacher is not None


def test_teacher_weights_with_a_missing_or_misshapen_tensor_are_refused(planned: Any, models: Path) -> None:
    state = weights.read(models / "teacher.pth")["state_dict"]
    lacking = {key: tensor for key, tensor in state.items() if key != "neck.fpn_convs.0.conv.weight"}
    bent = state | {"neck.fpn_convs.0.conv.weight": torch.zeros(1)}
    for name, changed in [("lacking.pth", lacking), ("bent.pth", bent)]:
        assert errors(planned(teacher=bent_teacher(models, name, state_dict=changed))) == ["teacher_weights_mismatch"]


def test_a_teacher_of_classes_in_another_order_is_refused(planned: Any, models: Path) -> None:
    meta = {"dataset_meta": {"classes": ("square", "circle", "triangle", "star")}}
    forecast = planned(teacher=bent_teacher(models, "reordered.pth", meta=meta))
    assert errors(forecast) == ["class_mismatch"]
    assert any("another order" in check.message for check in forecast.checks)


def test_strides_that_do_not_meet_are_refused(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    build = TrainingSetup.build_teacher

    def other_strides(self: TrainingSetup) -> StepResult:
        found = build(self)
        self.teacher.strides = (3, 5)
        return found

    monkeypatch.setattr(TrainingSetup, "build_teacher", other_strides)
    assert errors(planned()) == ["stride_mismatch"]


def test_heads_that_differ_are_no_matter_without_a_logit_term(planned: Any) -> None:
    assert planned(student=described("retinanet"), distillation={"logit_weight": 0}).ok


def test_a_batch_that_cannot_fit_is_told_beside_the_rest(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    forecast = planned(schedule={"batch_size": 8, "image_size": [480, 480]})
    assert errors(forecast) == ["batch_too_large"]


def test_a_spec_that_the_engine_finds_at_fault_is_no_failed_check_but_a_bad_spec(planned: Any) -> None:
    forecast = planned(student={"config": "mmdet::gfl/nothing.py", "init": "random"})
    assert errors(forecast) == ["invalid_spec"] and forecast.exit_code == 2


def test_a_job_stops_where_a_plan_goes_on() -> None:
    ran: list[str] = []
    setup: dict[str, object] = {}

    def fails() -> StepResult:
        ran.append("fails")
        raise ClassMismatch("Another class.")

    def makes() -> StepResult:
        ran.append("makes")
        setup["thing"] = 1
        return StepResult("Made.")

    steps = [
        SetupStep("a", fails),
        SetupStep("b", lambda: StepResult("Never."), ("thing", "other")),
        SetupStep("c", makes),
        SetupStep("d", lambda: StepResult("Careful.", warning=True), ("thing",)),
    ]
    found = checks.run_all(steps, setup)
    assert [(check.code, check.level, check.ok) for check in found] == [
        ("class_mismatch", "error", False),
        ("b", "info", False),
        ("c", "info", True),
        ("d", "warning", False),
    ]
    assert found[0].hint == ClassMismatch.hint_by_default
    with pytest.raises(ClassMismatch):
        checks.run_until_first_error(steps)
    assert ran == ["fails", "makes", "fails"]


def test_a_sample_of_the_validation_images_is_spread_over_all(data: Path, models: Path) -> None:
    setup = TrainingSetup(
        resolve(JobSpec.model_validate(job()), data, models),
        Path(),
        lambda _: None,
    )
    setup.read_data()
    train = setup.data.train
    assert train.sample(4).valid == [0, 3, 7, 10] and train.sample(99).valid == train.valid
    assert set(train.sample(4).ids) < set(train.ids)


def test_a_validation_split_with_nothing_left_is_refused(planned: Any, data: Path) -> None:
    shutil.copytree(data / "tiny", data / "blind", dirs_exist_ok=True)
    for image in (data / "blind" / "val").iterdir():
        image.unlink()
    forecast = planned(dataset="blind", max_invalid_fraction=0.99)
    assert errors(forecast) == [BadDataset.code]
    assert json.loads(forecast.model_dump_json())["ok"] is False
