import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from frs import spec_file
from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.errors import InvalidSpec
from frs.spec import JobSpec

CONFIG = {"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}
SMALL = {"architecture": "gfl", "backbone": {"depth": 18, "width": 16}}


def spec(**changes: object) -> JobSpec:
    return JobSpec.model_validate({"dataset": "shapes", "teacher": CONFIG, "student": SMALL} | changes)


def invalid_fields(**changes: object) -> list[str]:
    with pytest.raises(ValidationError) as raised:
        spec(**changes)
    return [".".join(str(part) for part in error["loc"]) for error in raised.value.errors()]


def test_the_keys_of_a_detector_define_its_kind() -> None:
    assert isinstance(spec().teacher, ConfigDetector)
    assert isinstance(spec().student, DescribedDetector)


def test_a_spec_survives_json() -> None:
    assert JobSpec.model_validate_json(spec().model_dump_json()) == spec()


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        spec().dataset = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"schedule": {"epochs": 0}}, "schedule.epochs"),
        ({"schedule": {"max_steps": 10**9 + 1}}, "schedule.max_steps"),
        ({"schedule": {"optimizer": {"learning_rate": float("nan")}}}, "schedule.optimizer.learning_rate"),
        ({"teacher": {"nonsense": 1}}, "teacher"),
        ({"student": {"architecture": "gfl", "backbone": {"depth": 19}}}, "student.architecture.backbone.ResNet.depth"),
        ({"student": {"config": "mmdet::../../etc/passwd.py"}}, "student.config.config"),
    ],
)
def test_a_validation_error_names_the_field(changes: dict[str, object], field: str) -> None:
    assert invalid_fields(**changes) == [field]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.pth", "a/../../x", "http://host/x.pth", "~/x.pth", "a\\b", "a\0b"]
)
def test_weights_outside_the_models_folder_are_rejected(path: str) -> None:
    assert invalid_fields(student=SMALL | {"init": {"weights": path}})


def test_two_weights_of_zero_are_rejected() -> None:
    assert invalid_fields(distillation={"feature_weight": 0, "logit_weight": 0}) == ["distillation"]


def test_distill_needs_a_teacher_and_train_rejects_one() -> None:
    assert invalid_fields(teacher=None)
    assert invalid_fields(kind="train")


def test_importing_the_spec_does_not_import_torch() -> None:
    program = "import sys, frs.spec, frs.resolved, frs.events, frs.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_baseline_is_one_pair_and_seeds_are_as_many() -> None:
    base = {"dataset": "d", "teacher": {"architecture": "gfl"}, "student": {"architecture": "gfl"}}
    assert [JobSpec.model_validate(base | {"baseline": b}).pairs for b in (False, True, {"seeds": 3})] == [0, 1, 3]
    for invalid in ({"seeds": 0}, {"seeds": 33}, {}, {"seeds": 2, "more": 1}):
        with pytest.raises(ValidationError):
            JobSpec.model_validate(base | {"baseline": invalid})
    with pytest.raises(ValidationError):
        JobSpec.model_validate(base | {"baseline": {"seeds": 2}, "schedule": {"seed": 2**32 - 1}})


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": {"epochs": True}},
        {"schedule": {"epochs": 1, "flip_prob": False}},
        {"schedule": {"epochs": 1, "image_size": [64, True]}},
        {"max_invalid_fraction": True},
        {"baseline": 1},
        {"distillation": {"accept_weak_teacher": "yes"}},
    ],
)
def test_booleans_and_numbers_are_not_interchangeable(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**change)


def test_numeric_text_is_accepted_as_a_number() -> None:
    """YAML reads `1e-3` as text."""
    parsed = spec(schedule={"epochs": 1, "optimizer": {"learning_rate": "1e-3"}})
    assert parsed.schedule.optimizer.learning_rate == 1e-3


def test_the_message_of_a_missing_spec_file_names_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    with pytest.raises(InvalidSpec) as error:
        spec_file.read(path)
    assert error.value.message == f"{path} cannot be read: No such file or directory."


def test_a_spec_file_that_is_not_utf_8_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(InvalidSpec, match="is not UTF-8 text: invalid start byte at byte 6"):
        spec_file.read(path)
