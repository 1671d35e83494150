"""`frs quantize`: the job continues the training of another job's student."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

DETECTOR = {"architecture": "gfl", "neck_channels": 32}
SPEC = {"kind": "distill", "dataset": "shapes", "teacher": DETECTOR, "student": DETECTOR, "method": "logit"}


@pytest.mark.usefixtures("shapes")
def test_the_student_of_a_job_is_quantized_under_its_teacher_or_alone(frs: Any, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC | {"schedule": {"epochs": 20, "image_size": [96, 96]}}))
    source = json.loads(frs("submit", tmp_path / "spec.yaml", "--json").output)
    under = json.loads(frs("quantize", source["id"], "--set", "schedule.epochs=5", "--json").output)["spec"]
    alone = json.loads(frs("quantize", source["id"], "--alone", "--json").output)["spec"]
    assert (under["kind"], under["method"], under["schedule"]["epochs"]) == ("quantize", "logit", 5)
    assert under["student"] == source["spec"]["student"] | {"init": {"job": source["id"]}}
    assert (under["teacher"], alone["teacher"]) == (source["spec"]["teacher"], None)
    assert (alone["schedule"]["epochs"], alone["schedule"]["image_size"]) == (3, [96, 96])


@pytest.mark.usefixtures("shapes")
def test_a_job_that_another_version_stored_is_named(frs: Any, data: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    source = json.loads(frs("submit", tmp_path / "spec.yaml", "--json").output)
    with closing(sqlite3.connect(data / "frs.db")) as database, database:
        stored = json.dumps(source["spec"] | {"new_field": 1})
        database.execute("update jobs set spec = ? where id = ?", (stored, source["id"]))
    error = frs("quantize", source["id"], code=1).stderr
    assert f"spec_unreadable: Job {source['id']} was stored by another version of FRS" in error
    assert "Update FRS" in error
