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
from store.jobs.recording import (
    artifact_key,
    checkpoint_key,
    keys_in_use,
    newest_checkpoints,
    prune_checkpoints,
    record,
    record_artifact,
    record_checkpoint,
)


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


def announce(house, lease, *announced):
    return [
        house.do(record_checkpoint, lease, checkpoint, checkpoint_key(lease, checkpoint)) for checkpoint in announced
    ]


def test_a_batch_is_stored_in_its_order(house):
    lease = house.start()
    progress = Progress(epoch=1, epochs=2, step=5, steps=10, fraction=0.5)
    batch = [Phase(phase="training"), metrics(1), Log(message="hello"), progress, metrics(2), evaluation(2)]
    house.do(record, lease, batch)

    numbered = house.rows(select(Event).where(Event.seq > 2).order_by(Event.seq))
    assert [(event.seq, event.type) for event in numbered] == [(3, "phase"), (5, "log"), (7, "evaluation")]
    assert house.rows(select(Metric.seq).where(Metric.key == "train/loss").order_by(Metric.step)) == [4, 6]
    job = house.job(lease.job_id)
    assert (job.phase, job.progress["step"], job.last_event) == ("training", 5, 7)
    [row] = house.rows(select(EvaluationRow))
    assert (row.metrics, row.per_class) == ({"bbox_mAP": 0.5, "bbox_mAP_s": None}, {"box": 0.5})


def test_the_same_metrics_twice_are_one_row_each(house):
    lease = house.start()
    house.do(record, lease, [metrics(1), metrics(2)])
    house.do(record, lease, [metrics(2, value=7.0), metrics(2, value=8.0)])
    assert house.rows(select(func.count()).select_from(Metric)) == [4]
    assert house.rows(select(Metric.value).where(Metric.key == "train/loss", Metric.step == 2)) == [8.0]


def test_going_back_deletes_what_came_later(house):
    lease = house.start()
    house.do(record, lease, [*map(metrics, range(1, 6)), evaluation(3), evaluation(5), evaluation(0, role="teacher")])
    house.do(lifecycle.requeue, lease, attempt_counts=True)
    second = house.claim()
    house.do(record, second, [Rewound(to_step=3), metrics(4)])
    assert set(house.rows(select(Metric.step))) == {1, 2, 3, 4}
    assert house.rows(select(EvaluationRow.step).order_by(EvaluationRow.step)) == [0, 3]
    assert house.rows(select(Attempt.start_step).order_by(Attempt.number)) == [None, 3]
    assert house.rows(select(Event.data).where(Event.type == "rewound")) == [{"to_step": 3}]


def test_going_back_in_the_middle_of_a_batch_spares_what_follows(house):
    lease = house.start()
    house.do(record, lease, [metrics(1), metrics(2, value=5.0), Rewound(to_step=1), metrics(2, value=6.0)])
    assert house.rows(select(Metric.value).where(Metric.key == "train/loss").order_by(Metric.step)) == [1.0, 6.0]


def test_an_evaluation_repeated_by_a_later_attempt_is_replaced(house):
    lease = house.start()
    house.do(record, lease, [evaluation(0, "teacher", 0.5, last=True)])
    house.do(record, lease, [evaluation(0, "teacher", 0.6, last=True)])
    assert [row.metrics["bbox_mAP"] for row in house.rows(select(EvaluationRow))] == [0.6]


def test_facts_are_merged_and_hold_no_nan(house):
    lease = house.start()
    house.do(record, lease, [Facts(values={"parameters": 5, "flops": math.nan})])
    house.do(record, lease, [Facts(values={"parameters": 6, "classes": ["a"]})])
    assert house.job(lease.job_id).facts == {"parameters": 6, "flops": None, "classes": ["a"]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_finite_numbers_become_metrics(house, value):
    with pytest.raises(ValidationError):
        metrics(1, value)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_the_table_itself_refuses_what_is_not_finite(house, value):
    lease = house.start()
    row = {"job_id": lease.job_id, "key": "k", "step": 1, "epoch": 1, "at": 0.0, "attempt": 1, "seq": 1}
    with pytest.raises(DBAPIError):
        house.do(lambda session: session.execute(insert(Metric).values(**row, value=value)))


def test_nothing_of_a_lost_attempt_is_written(house):
    lost = house.start()
    announce(house, lost, checkpoint(1))
    house.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
    house.do(lifecycle.requeue_expired)
    house.claim()
    before = house.rows(select(Job.last_event))
    for write in (
        lambda session: record(session, lost, [metrics(1), Log(message="late")]),
        lambda session: record_checkpoint(session, lost, checkpoint(2), "a/b"),
        lambda session: record_artifact(session, lost, artifact(), "a/b"),
        lambda session: prune_checkpoints(session, lost, keep=0),
    ):
        with pytest.raises(LeaseLost):
            house.do(write)
    assert house.rows(select(Metric)) == house.rows(select(Artifact)) == []
    assert house.rows(select(Checkpoint.step)) == [1]
    assert house.rows(select(Job.last_event)) == before


def artifact(content="a"):
    return events.Artifact(name="config", path="out/config.yaml", sha256=content * 64, bytes=3)


def test_an_artifact_announced_again_replaces_the_earlier_one(house):
    lease = house.start()
    unneeded = []
    for content in "abb":
        announced = artifact(content)
        unneeded += house.do(record_artifact, lease, announced, artifact_key(lease, announced))
    [row] = house.rows(select(Artifact))
    assert row.key == f"{lease.job_id}/artifacts/{'b' * 12}_1.yaml"
    assert unneeded == [f"{lease.job_id}/artifacts/{'a' * 12}_1.yaml"]


def test_a_file_that_another_artifact_shares_is_still_needed(house):
    lease = house.start()
    shared, another = artifact("a"), artifact("a").model_copy(update={"name": "twin"})
    for announced in (shared, another, artifact("b")):
        assert house.do(record_artifact, lease, announced, artifact_key(lease, announced)) == []


def test_the_two_newest_training_checkpoints_are_kept(house):
    lease = house.start()
    announce(house, lease, checkpoint(10), checkpoint(20), checkpoint(30))
    [key] = house.do(prune_checkpoints, lease)
    assert key == f"{lease.job_id}/checkpoints/training_00000010_{'a' * 12}_1.pth"
    assert [row.step for row in house.do(newest_checkpoints, lease.job_id)] == [30, 20]


def test_files_in_use_are_those_with_a_row_and_those_of_published_detectors(house):
    lease = house.start()
    announce(house, lease, checkpoint(10))
    house.do(record_artifact, lease, artifact("b"), artifact_key(lease, artifact("b")))
    published, another_jobs = f"{lease.job_id}/checkpoints/s.pth", "job_0/checkpoints/s.pth"
    for name, key in (("mine", published), ("other", another_jobs)):
        row = {"name": name, "description": {}, "sha256": "a", "weights_key": key}
        house.do(lambda session, row=row: session.add(Detector(**row)))
    in_use = {checkpoint_key(lease, checkpoint(10)), artifact_key(lease, artifact("b")), published}
    assert house.do(keys_in_use, lease.job_id) == in_use


def test_a_later_attempt_s_checkpoint_is_newer_whatever_its_step(house):
    lease = house.start()
    announce(house, lease, checkpoint(10), checkpoint(20))
    house.do(lifecycle.requeue, lease, attempt_counts=True)
    announce(house, house.claim(), checkpoint(15))
    assert [row.step for row in house.do(newest_checkpoints, lease.job_id)] == [15, 20, 10]


def test_a_label_moves_and_a_student_without_one_is_forgotten(house):
    lease = house.start()
    first, second = announce(
        house,
        lease,
        checkpoint(10, "student", ("best", "last"), "a"),
        checkpoint(20, "student", ("last",), "b"),
    )
    labels = {row.id: row.labels for row in house.rows(select(Checkpoint))}
    assert labels == {first: ["best"], second: ["last"]}
    announce(house, lease, checkpoint(30, "student", ("best", "last"), "c"))
    assert len(house.do(prune_checkpoints, lease)) == 2
    assert house.rows(select(Checkpoint.step)) == [30]


def test_the_same_file_announced_again_keeps_its_id(house):
    lease = house.start()
    [first] = announce(house, lease, checkpoint(10, "student", ("best",)))
    [again] = announce(house, lease, checkpoint(10, "student", ("last",)))
    assert first == again
    assert house.rows(select(Checkpoint.labels)) == [["best", "last"]]


def test_what_belongs_to_a_job_goes_with_it(house):
    lease = house.start()
    house.do(record, lease, [metrics(1), evaluation(1)])
    announce(house, lease, checkpoint(1))
    house.do(lambda session: session.execute(delete(Job)))
    for table in (Attempt, Event, Metric, EvaluationRow, Checkpoint):
        assert house.rows(select(table)) == []


def test_a_batch_of_thousands_is_written_whole(house):
    lease = house.start()
    keys = [f"train/{name}" for name in "abcde"]
    house.do(record, lease, [Metrics(step=step, epoch=1, values=dict.fromkeys(keys, 0.5)) for step in range(2000)])
    assert house.rows(select(func.count()).select_from(Metric)) == [10_000]


def test_a_size_without_objects_is_a_row_without_a_value(house):
    lease = house.start()
    house.do(record, lease, [Metrics(step=1, epoch=1, values={"val/bbox_mAP_l": None})])
    assert house.rows(select(Metric.value)) == [None]


def test_a_checkpoint_made_again_by_a_later_attempt_is_another_file_and_the_newest(house):
    lease = house.start()
    announce(house, lease, checkpoint(5), checkpoint(10), checkpoint(15))
    house.do(lifecycle.requeue, lease, attempt_counts=True)
    second = house.claim()
    announce(house, second, checkpoint(10))
    newest, *_ = house.do(newest_checkpoints, lease.job_id)
    assert (newest.step, newest.attempt) == (10, 2)
    assert checkpoint_key(lease, checkpoint(10)) != checkpoint_key(second, checkpoint(10))
