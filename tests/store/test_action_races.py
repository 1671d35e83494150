"""What an action says has happened has happened, whoever else was at the same job in the same moment."""

import threading
from functools import partial

import pytest
from sqlalchemy import select

from frs.spec import JobSpec, baseline_of, comparison_of
from store.db.tables import Job
from store.errors import ActionNotAllowed, JobInUse
from store.jobs import actions, lifecycle
from store.jobs.lease import RequestedAction
from store.states import EndReason, JobStatus

FAMILY = JobSpec.model_validate(
    {
        "dataset": "shapes",
        "teacher": {"architecture": "gfl", "init": "random"},
        "student": {"architecture": "gfl"},
        "baseline": True,
    }
)


@pytest.fixture
def between(monkeypatch):
    """Runs something once, when an action has found nothing to lock and looks why."""

    def once(what):
        looks = actions._existing

        def look(session, job_id):
            monkeypatch.setattr(actions, "_existing", looks)
            what()
            return looks(session, job_id)

        monkeypatch.setattr(actions, "_existing", look)

    return once


def meanwhile(first, second):
    """`second` begins when `first` has done its work and not committed; the result of `second`."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(second()))
    with first as commit:
        thread.start()
        thread.join(1.0)
        commit()
    thread.join()
    return answers[0]


def fail(harness, job_id):
    harness.do(lifecycle.finish, harness.claim(job_id), JobStatus.FAILED, EndReason.DIVERGED)


def run_group(harness):
    """Ids: the job, its baseline, their comparison."""
    parent = harness.do(lifecycle.add, FAMILY, dataset_id="ds_shapes").id
    children = [
        harness.do(lifecycle.add, spec(FAMILY), dataset_id="ds_shapes", parent_id=parent)
        for spec in (baseline_of, comparison_of)
    ]
    return parent, *(child.id for child in children)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_stop_that_is_accepted_while_the_job_starts_is_noted(harness, between):
    job_id = harness.submit()
    leases = []
    between(lambda: leases.append(harness.claim(job_id)))
    assert harness.do(actions.stop, job_id).stop_requested_at is not None
    assert harness.do(lifecycle.renew, leases[0], 60).requested_action is RequestedAction.STOP


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("action", "status"), [(actions.pause, "paused"), (actions.cancel, "cancelled")])
def test_an_action_that_meets_a_resumed_job_acts_on_it(harness, between, action, status):
    job_id = harness.submit()
    harness.do(actions.cancel, job_id)
    between(lambda: harness.do(actions.resume, job_id))
    assert harness.do(action, job_id).status == status
    assert harness.job(job_id).status == status


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("action", [actions.resume, actions.delete])
def test_an_action_that_meets_a_job_that_has_just_ended_acts_on_it(harness, between, action):
    job_id = harness.submit()
    lease = harness.claim(job_id)
    between(lambda: harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED))
    harness.do(action, job_id)
    assert harness.rows(select(Job.status)) == ([JobStatus.QUEUED] if action is actions.resume else [])


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_student_failed_while_its_teacher_is_resumed_is_resumed_with_it(harness):
    teacher = harness.submit()
    student = harness.submit(teacher_job_id=teacher)
    fail(harness, teacher)
    resume = partial(harness.do, actions.resume, teacher)
    meanwhile(harness.uncommitted(lifecycle.fail_dependents), resume)
    assert harness.job(teacher).status == harness.job(student).status == JobStatus.QUEUED


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_teacher_resumed_while_its_students_are_looked_at_does_not_fail_them(harness):
    teacher = harness.submit()
    student = harness.submit(teacher_job_id=teacher)
    fail(harness, teacher)
    meanwhile(harness.uncommitted(actions.resume, teacher), partial(harness.do, lifecycle.fail_dependents))
    assert harness.job(teacher).status == harness.job(student).status == JobStatus.QUEUED


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_child_that_is_being_resumed_is_not_deleted_with_its_parent(harness):
    *runs, compare = run_group(harness)
    for run in runs:
        fail(harness, run)
    harness.do(lifecycle.fail_dependents)

    def delete():
        try:
            return harness.do(actions.delete, runs[0])
        except JobInUse as refusal:
            return refusal

    assert isinstance(meanwhile(harness.uncommitted(actions.resume, runs[1]), delete), JobInUse)
    assert set(harness.rows(select(Job.id))) == {*runs, compare}


def test_a_run_is_not_deleted_while_its_comparison_waits(harness):
    parent, baseline, compare = run_group(harness)
    harness.do(lifecycle.finish, harness.claim(baseline), JobStatus.SUCCEEDED, EndReason.COMPLETED)
    with pytest.raises(JobInUse, match=compare):
        harness.do(actions.delete, baseline)
    harness.do(actions.cancel, compare)
    harness.do(actions.delete, baseline)
    assert set(harness.rows(select(Job.id))) == {parent, compare}


def test_an_action_not_allowed_says_what_is(harness):
    job_id = harness.submit()
    with pytest.raises(ActionNotAllowed) as refusal:
        harness.do(actions.resume, job_id)
    assert [str(action) for action in refusal.value.allowed_actions] == ["cancel", "pause"]
