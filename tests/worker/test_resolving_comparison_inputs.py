"""The detections and curves of its runs that a comparison gets."""

import hashlib

import pytest

from frs import events
from frs.errors import DetectionsUnusable
from frs.spec import JobSpec, baseline_of, comparison_of
from store.jobs import lifecycle, recording
from worker.attempt.comparison_inputs import resolve_comparison_inputs
from worker.attempt.inputs import AttemptInputs
from worker.attempt.resolve import resolve_job

SPEC = JobSpec.model_validate(
    {
        "dataset": "shapes",
        "teacher": {"architecture": "gfl", "init": {"weights": "gone-since.pth"}},
        "student": {"architecture": "gfl", "init": {"weights": "gone-since.pth"}},
        "schedule": {"seed": 5},
        "baseline": True,
    }
)


@pytest.fixture
def ids(harness):
    """Ids of a job, its baseline and their comparison."""

    def add(spec, parent=None):
        return harness.do(lifecycle.add, spec, dataset_id="ds_shapes", parent_id=parent).id

    parent = add(SPEC)
    return parent, add(baseline_of(SPEC), parent), add(comparison_of(SPEC), parent)


def finish_run(harness, job_id, *names, facts=None):
    """Claim the job and record these artifacts, facts and a curve of 1,000 steps."""
    lease = harness.do(lifecycle.claim, "tests", 60, job_id)
    for name in names:
        path = harness.settings.work_root / f"{job_id}-{name}"
        path.write_bytes(f"{job_id} {name}".encode())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        artifact = events.Artifact(name=name, path=name, sha256=sha256, bytes=path.stat().st_size)
        key = recording.artifact_key(lease, artifact)
        harness.artifacts.put(path, key, sha256)
        harness.do(recording.record_artifact, lease, artifact, key)
    curve = [events.Metrics(step=n, epoch=0, values={"train/loss": 1.0, "train/lr": 1.0}) for n in range(1, 1001)]
    if facts:
        harness.do(recording.record, lease, [events.Facts(values=facts)])
    harness.do(recording.record, lease, [*curve, events.Metrics(step=999, epoch=0, values={"val/bbox_mAP": 0.5})])


def test_a_comparison_gets_detections_and_thinned_curves_without_weights(harness, ids):
    parent, baseline, compare = ids
    finish_run(harness, parent, "detections-student.npz", "detections-teacher.npz")
    finish_run(harness, baseline, "detections-student.npz")
    inputs = AttemptInputs(harness.settings.work_root / compare)
    with harness.database.read() as session:
        spec = resolve_job(session, harness.settings, harness.job(compare), inputs)
    inputs.fetch(harness.artifacts, lambda: False)
    assert spec.teacher is None and spec.student.weights is None
    student, baseline_run = spec.comparison_inputs.runs
    assert (student.role, student.seed, baseline_run.role, baseline_run.seed) == ("student", 5, "baseline", 5)
    assert student.detections.read_text() == f"{parent} detections-student.npz"
    assert spec.comparison_inputs.teacher.read_text() == f"{parent} detections-teacher.npz"
    assert student.curves.keys() == {"train/loss", "val/bbox_mAP"}
    assert student.curves["val/bbox_mAP"] == [(999, 0.5)], "evaluations are never thinned"
    assert 400 <= len(student.curves["train/loss"]) <= 500


def test_a_teacher_of_other_classes_is_not_part_of_the_comparison(harness, ids):
    parent, baseline, compare = ids
    finish_run(harness, parent, "detections-student.npz", facts={"teacher_classes": {"total": 2, "used": 0}})
    finish_run(harness, baseline, "detections-student.npz")
    with harness.database.read() as session:
        resolved = resolve_comparison_inputs(
            session, harness.job(compare), AttemptInputs(harness.settings.work_root / compare)
        )
    assert resolved.teacher is None and resolved.facts.teacher_classes.total == 2


def test_facts_of_another_version_are_left_out_of_the_comparison(harness, ids):
    parent, baseline, compare = ids
    facts = {"method": "invented", "teacher_classes": {"total": 2, "used": 0}}
    finish_run(harness, parent, "detections-student.npz", facts=facts)
    finish_run(harness, baseline, "detections-student.npz")
    with harness.database.read() as session:
        inputs = AttemptInputs(harness.settings.work_root / compare)
        resolved = resolve_comparison_inputs(session, harness.job(compare), inputs)
    assert (resolved.facts.method, resolved.facts.teacher_classes.total) == (None, 2)


def test_a_run_without_detections_cannot_be_compared(harness, ids):
    parent, baseline, compare = ids
    finish_run(harness, parent, "detections-student.npz", "detections-teacher.npz")
    with harness.database.read() as session, pytest.raises(DetectionsUnusable, match=baseline):
        resolve_comparison_inputs(session, harness.job(compare), AttemptInputs(harness.settings.work_root))
