import math

import pytest
from pydantic import ValidationError
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from frs import events
from frs.events import Evaluation, Facts, Log, Metrics, Phase, Progress, Rewound
from store.db.tables import Artifact, Attempt, Checkpoint, Detector, Event, Job, Metric
from store.db.tables import Evaluation as EvaluationRow
from store.errors import LeaseLost
from store.jobs import lifecycle
from store.jobs.checkpoints import newest_checkpoints, prune_checkpoints
from store.jobs.recording import artifact_key, checkpoint_key, keys_in_use, record, record_artifact, record_checkpoint


def metrics(step, value=1.0):
    return Metrics(step=step, epoch=1, values={"train/loss": value, "train/lr": 0.1})


def evaluation(step, role="student", value=0.5, last=False):
    numbers = {"bbox_mAP": value, "bbox_mAP_s": None}
    return Evaluation(
        role=role, step=step, epoch=1, metrics=numbers, per_class={"box": value}, images=4, detections=9, last=last
    )


def checkpoint(step, kind="training", labels=(), content="a"):
    sha256 = (content * 64)[:64]
    return events.Checkpoint(kind=kind, path="x.pth", sha256=sha256, bytes=5, step=step, epoch=1, labels=labels)


def record_checkpoints(harness, lease, *rows):
    return [harness.do(record_checkpoint, lease, row, checkpoint_key(lease, row)) for row in rows]


def test_a_batch_is_stored_in_order(harness):
    lease = harness.start()
    progress = Progress(epoch=1, epochs=2, step=5, steps=10, fraction=0.5)
    batch = [Phase(phase="training"), metrics(1), Log(message="hello"), progress, metrics(2), evaluation(2)]
    harness.do(record, lease, batch)

    numbered = harness.rows(select(Event).where(Event.seq > 2).order_by(Event.seq))
    assert [(event.seq, event.type) for event in numbered] == [(3, "phase"), (5, "log"), (7, "evaluation")]
    assert harness.rows(select(Metric.seq).where(Metric.key == "train/loss").order_by(Metric.step)) == [4, 6]
    job = harness.job(lease.job_id)
    assert (job.phase, job.progress["step"], job.last_event) == ("training", 5, 7)
    [row] = harness.rows(select(EvaluationRow))
    assert (row.metrics, row.per_class) == ({"bbox_mAP": 0.5, "bbox_mAP_s": None}, {"box": 0.5})


def test_the_progress_of_a_phase_ends_with_it(harness):
    lease = harness.start()
    progress = Progress(epoch=0, epochs=0, step=0, steps=0, fraction=0.0, phase_fraction=0.9)
    harness.do(record, lease, [Phase(phase="evaluating the teacher"), progress])
    assert harness.job(lease.job_id).progress["phase_fraction"] == 0.9
    harness.do(record, lease, [Phase(phase="calibrating")])
    assert harness.job(lease.job_id).progress["phase_fraction"] is None


def test_repeated_metrics_replace_the_earlier_rows(harness):
    lease = harness.start()
    harness.do(record, lease, [metrics(1), metrics(2)])
    harness.do(record, lease, [metrics(2, value=7.0), metrics(2, value=8.0)])
    assert harness.rows(select(func.count()).select_from(Metric)) == [4]
    assert harness.rows(select(Metric.value).where(Metric.key == "train/loss", Metric.step == 2)) == [8.0]


def test_a_rewind_deletes_later_metrics_and_evaluations(harness):
    lease = harness.start()
    harness.do(record, lease, [*map(metrics, range(1, 6)), evaluation(3), evaluation(5), evaluation(0, role="teacher")])
    harness.do(lifecycle.requeue, lease, attempt_counts=True)
    second = harness.claim()
    harness.do(record, second, [Rewound(to_step=3), metrics(4)])
    assert set(harness.rows(select(Metric.step))) == {1, 2, 3, 4}
    assert harness.rows(select(EvaluationRow.step).order_by(EvaluationRow.step)) == [0, 3]
    assert harness.rows(select(Attempt.start_step).order_by(Attempt.number)) == [None, 3]
    assert harness.rows(select(Event.data).where(Event.type == "rewound")) == [{"to_step": 3}]


def test_a_rewind_within_a_batch_keeps_the_events_after_it(harness):
    lease = harness.start()
    harness.do(record, lease, [metrics(1), metrics(2, value=5.0), Rewound(to_step=1), metrics(2, value=6.0)])
    assert harness.rows(select(Metric.value).where(Metric.key == "train/loss").order_by(Metric.step)) == [1.0, 6.0]


def test_an_evaluation_repeated_by_a_later_attempt_is_replaced(harness):
    lease = harness.start()
    harness.do(record, lease, [evaluation(0, "teacher", 0.5, last=True)])
    harness.do(record, lease, [evaluation(0, "teacher", 0.6, last=True)])
    assert [row.metrics["bbox_mAP"] for row in harness.rows(select(EvaluationRow))] == [0.6]


def test_facts_are_merged_and_contain_no_nan(harness):
    lease = harness.start()
    harness.do(record, lease, [Facts(values={"parameters": 5, "flops": math.nan})])
    harness.do(record, lease, [Facts(values={"parameters": 6, "classes": ["a"]})])
    assert harness.job(lease.job_id).facts == {"parameters": 6, "flops": None, "classes": ["a"]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metrics_must_be_finite(harness, value):
    with pytest.raises(ValidationError):
        metrics(1, value)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_the_table_rejects_infinite_values(harness, value):
    lease = harness.start()
    row = {"job_id": lease.job_id, "key": "k", "step": 1, "epoch": 1, "at": 0.0, "attempt": 1, "seq": 1}
    with pytest.raises(DBAPIError):
        harness.do(lambda session: session.execute(insert(Metric).values(**row, value=value)))


def test_a_lost_attempt_writes_nothing(harness):
    lost = harness.start()
    record_checkpoints(harness, lost, checkpoint(1))
    harness.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
    harness.do(lifecycle.requeue_expired)
    harness.claim()
    before = harness.rows(select(Job.last_event))
    for write in (
        lambda session: record(session, lost, [metrics(1), Log(message="late")]),
        lambda session: record_checkpoint(session, lost, checkpoint(2), "a/b"),
        lambda session: record_artifact(session, lost, artifact(), "a/b"),
        lambda session: prune_checkpoints(session, lost, keep=0),
    ):
        with pytest.raises(LeaseLost):
            harness.do(write)
    assert harness.rows(select(Metric)) == harness.rows(select(Artifact)) == []
    assert harness.rows(select(Checkpoint.step)) == [1]
    assert harness.rows(select(Job.last_event)) == before


def artifact(content="a"):
    return events.Artifact(name="config", path="out/config.yaml", sha256=content * 64, bytes=3)


def test_an_artifact_recorded_again_replaces_the_earlier_one(harness):
    lease = harness.start()
    superseded = []
    for content in "abb":
        row = artifact(content)
        superseded += harness.do(record_artifact, lease, row, artifact_key(lease, row))
    [row] = harness.rows(select(Artifact))
    assert row.key == f"{lease.job_id}/artifacts/{'b' * 12}_1.yaml"
    assert superseded == [f"{lease.job_id}/artifacts/{'a' * 12}_1.yaml"]


def test_a_file_shared_with_another_artifact_is_not_superseded(harness):
    lease = harness.start()
    shared, another = artifact("a"), artifact("a").model_copy(update={"name": "copy"})
    for row in (shared, another, artifact("b")):
        assert harness.do(record_artifact, lease, row, artifact_key(lease, row)) == []


def test_the_two_newest_training_checkpoints_are_kept(harness):
    lease = harness.start()
    record_checkpoints(harness, lease, checkpoint(10), checkpoint(20), checkpoint(30))
    [key] = harness.do(prune_checkpoints, lease)
    assert key == f"{lease.job_id}/checkpoints/training_00000010_{'a' * 12}_1.pth"
    assert [row.step for row in harness.do(newest_checkpoints, lease.job_id)] == [30, 20]


def test_keys_in_use_are_those_of_rows_and_of_published_detectors(harness):
    lease = harness.start()
    record_checkpoints(harness, lease, checkpoint(10))
    harness.do(record_artifact, lease, artifact("b"), artifact_key(lease, artifact("b")))
    published, other_job = f"{lease.job_id}/checkpoints/s.pth", "job_0/checkpoints/s.pth"
    for name, key in (("mine", published), ("other", other_job)):
        row = {"name": name, "description": {}, "sha256": "a", "weights_key": key}
        harness.do(lambda session, row=row: session.add(Detector(**row)))
    in_use = {checkpoint_key(lease, checkpoint(10)), artifact_key(lease, artifact("b")), published}
    assert harness.do(keys_in_use, lease.job_id) == in_use


def test_a_checkpoint_of_a_later_attempt_is_newer_whatever_its_step(harness):
    lease = harness.start()
    record_checkpoints(harness, lease, checkpoint(10), checkpoint(20))
    harness.do(lifecycle.requeue, lease, attempt_counts=True)
    record_checkpoints(harness, harness.claim(), checkpoint(15))
    assert [row.step for row in harness.do(newest_checkpoints, lease.job_id)] == [15, 20, 10]


def test_a_label_moves_and_a_student_without_one_is_pruned(harness):
    lease = harness.start()
    first, second = record_checkpoints(
        harness,
        lease,
        checkpoint(10, "student", ("best", "last"), "a"),
        checkpoint(20, "student", ("last",), "b"),
    )
    labels = {row.id: row.labels for row in harness.rows(select(Checkpoint))}
    assert labels == {first: ["best"], second: ["last"]}
    record_checkpoints(harness, lease, checkpoint(30, "student", ("best", "last"), "c"))
    assert len(harness.do(prune_checkpoints, lease)) == 2
    assert harness.rows(select(Checkpoint.step)) == [30]


def test_the_same_file_recorded_again_keeps_its_id(harness):
    lease = harness.start()
    [first] = record_checkpoints(harness, lease, checkpoint(10, "student", ("best",)))
    [again] = record_checkpoints(harness, lease, checkpoint(10, "student", ("last",)))
    assert first == again
    assert harness.rows(select(Checkpoint.labels)) == [["best", "last"]]


def test_the_records_of_a_job_are_deleted_with_it(harness):
    lease = harness.start()
    harness.do(record, lease, [metrics(1), evaluation(1)])
    record_checkpoints(harness, lease, checkpoint(1))
    harness.do(lambda session: session.execute(delete(Job)))
    for table in (Attempt, Event, Metric, EvaluationRow, Checkpoint):
        assert harness.rows(select(table)) == []


def test_a_batch_of_thousands_is_written_completely(harness):
    lease = harness.start()
    keys = [f"train/{name}" for name in "abcde"]
    harness.do(record, lease, [Metrics(step=step, epoch=1, values=dict.fromkeys(keys, 0.5)) for step in range(2000)])
    assert harness.rows(select(func.count()).select_from(Metric)) == [10_000]


def test_a_metric_without_a_value_is_stored_as_null(harness):
    lease = harness.start()
    harness.do(record, lease, [Metrics(step=1, epoch=1, values={"val/bbox_mAP_l": None})])
    assert harness.rows(select(Metric.value)) == [None]


def test_a_checkpoint_repeated_by_a_later_attempt_is_another_file_and_the_newest(harness):
    lease = harness.start()
    record_checkpoints(harness, lease, checkpoint(5), checkpoint(10), checkpoint(15))
    harness.do(lifecycle.requeue, lease, attempt_counts=True)
    second = harness.claim()
    record_checkpoints(harness, second, checkpoint(10))
    newest, *_ = harness.do(newest_checkpoints, lease.job_id)
    assert (newest.step, newest.attempt) == (10, 2)
    assert checkpoint_key(lease, checkpoint(10)) != checkpoint_key(second, checkpoint(10))
