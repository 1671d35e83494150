"""The generated half of the client is up to date, and its models accept what later versions of the service send."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frs.dataset.upload.archive import ACCEPTED_SUFFIXES
from frs_client import JobSpec, ServiceError, models
from frs_client.answers import body_of, parse
from frs_client.files import DATASET_SUFFIXES
from frs_client.models import DescribedDetector, Health, Job, MobileNetV2

ROOT = Path(__file__).parents[2]
STUDENT = {"architecture": "gfl"}


def load(script: str) -> Any:
    spec = importlib.util.spec_from_file_location(script, ROOT / ".ci" / f"{script}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_models_are_those_of_the_openapi_document() -> None:
    script = load("client_models")
    digest = script.digest(script.current_schemas())
    assert digest in Path(models.__file__).read_text(), "the API has changed: run `make client`"


def test_the_synchronous_client_is_that_of_the_asynchronous_one() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / ".ci" / "client_sync.py", "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_the_client_sends_the_files_that_the_service_reads() -> None:
    assert DATASET_SUFFIXES == ACCEPTED_SUFFIXES


def test_fields_and_values_of_a_later_version_are_kept() -> None:
    health = Health.model_validate({"status": "ok", "uptime": 3})
    assert health.model_dump() == {"status": "ok", "uptime": 3}
    spec = JobSpec.model_validate({"dataset": "cells", "student": STUDENT, "method": "of 2030"})
    assert spec.method == "of 2030"


def test_an_answer_of_another_kind_is_an_error_with_the_next_step() -> None:
    with pytest.raises(ServiceError, match=r"not a Job .*: name: Field required") as error:
        parse(Job, {"id": "job_1"})
    assert "frs-client" in error.value.hint


def test_only_what_was_set_is_sent() -> None:
    student = DescribedDetector(architecture="gfl", backbone=MobileNetV2(widen_factor=0.5))
    assert body_of(JobSpec(dataset="cells", student=student)) == {
        "dataset": "cells",
        "student": {"architecture": "gfl", "backbone": {"type": "MobileNetV2", "widen_factor": 0.5}},
    }


@pytest.mark.parametrize(
    "kind", ["ResNet", "MobileNetV2", "CSPNeXt", "EfficientNet", "RegNet", "tf_efficientnet_lite0"]
)
def test_the_type_of_a_backbone_chooses_its_model(kind: str) -> None:
    detector = DescribedDetector.model_validate(STUDENT | {"backbone": {"type": kind}})
    expected = {"CSPNeXt": "CSPBackbone", "tf_efficientnet_lite0": "TimmBackbone"}.get(kind, kind)
    assert type(detector.backbone).__name__ == expected
