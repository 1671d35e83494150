"""The queries of event streams, on both databases."""

from api.streaming import history
from api.streaming.history import State
from frs import events
from store.jobs import lifecycle, recording
from store.states import EndReason, JobStatus


def metrics(step: int) -> events.Metrics:
    return events.Metrics(step=step, epoch=1, values={"train/loss": step / 2, "val/bbox_mAP_l": None})


def log(message: str) -> events.Log:
    return events.Log(message=message)


def entries(harness, spans):
    return harness.do(history.read_entries, spans)


def test_events_and_batches_of_metrics_are_read_in_one_order(harness):
    lease = harness.start()
    harness.do(recording.record, lease, [metrics(1), log("a"), metrics(2)])
    rows = entries(harness, {lease.job_id: (0, 100)})[lease.job_id]
    assert [(entry.seq, entry.type) for entry in rows] == [
        (1, "status"),
        (2, "status"),
        (3, "metric"),
        (4, "log"),
        (5, "metric"),
    ]
    assert rows[2].data["values"] == {"train/loss": 0.5, "val/bbox_mAP_l": None}
    assert (rows[3].data["message"], rows[3].data["attempt"]) == ("a", 1)


def test_each_job_is_read_from_its_own_span(harness):
    one, two = harness.start(), harness.start()
    for lease in (one, two):
        harness.do(recording.record, lease, [log(str(number)) for number in range(5)])
    rows = entries(harness, {one.job_id: (2, 4), two.job_id: (5, 7)})
    assert {job_id: [entry.seq for entry in job_rows] for job_id, job_rows in rows.items()} == {
        one.job_id: [3, 4],
        two.job_id: [6, 7],
    }


def test_a_page_has_a_fixed_number_of_entries_after_a_rewind(harness):
    lease = harness.start()
    for step in range(1, 8):
        harness.do(recording.record, lease, [metrics(step)])  # seq 3 to 9
    harness.do(recording.record, lease, [events.Rewound(to_step=1), metrics(2), metrics(3)])  # 10 to 12
    ends, after = [], 0
    while after < 12:
        after = harness.do(history.end_of_page, lease.job_id, after, 12, 2)
        ends.append(after)
    assert ends == [2, 11, 12]


def test_the_state_contains_status_and_progress(harness):
    lease = harness.start()
    progress = events.Progress(epoch=1, epochs=2, step=3, steps=4, fraction=0.5)
    harness.do(recording.record, lease, [progress, metrics(1)])
    state = harness.do(history.read_states, [lease.job_id, "job_of_nobody"])[lease.job_id]
    assert (state.newest, state.status, state.end_reason) == (3, JobStatus.RUNNING, None)
    assert events.Progress.model_validate_json(state.progress or "").step == 3
    harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.HUNG)
    assert harness.do(history.read_states, [lease.job_id])[lease.job_id] == State(
        4, JobStatus.FAILED, EndReason.HUNG, state.progress
    )
