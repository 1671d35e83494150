"""Actions on a job that another transaction changes at the same time take effect as reported."""

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

RUN_GROUP = JobSpec.model_validate(
    {
        "dataset": "shapes",
        "teacher": {"architecture": "gfl", "init": "random"},
        "student": {"architecture": "gfl"},
        "baseline": True,
    }
)


@pytest.fixture
def before_read(monkeypatch):
    """Run a function once, after an action has found no row to lock and before it reads the job."""

    def once(function):
        lock_jobs = actions.lock_jobs

        def lock_then_run(*arguments, **values):
            jobs = lock_jobs(*arguments, **values)
            assert not jobs
            monkeypatch.setattr(actions, "lock_jobs", lock_jobs)
            function()
            return jobs

        monkeypatch.setattr(actions, "lock_jobs", lock_then_run)

    return once


def run_before_commit(first, second):
    """Start `second` after `first` has made its changes and before its commit; return the result of `second`."""
    results = []
    thread = threading.Thread(target=lambda: results.append(second()))
    with first as commit:
        thread.start()
        thread.join(1.0)
        commit()
    thread.join()
    return results[0]


def fail(harness, job_id):
    harness.do(lifecycle.finish, harness.claim(job_id), JobStatus.FAILED, EndReason.DIVERGED)


def run_group(harness):
    """Add a job, its baseline and their comparison; return the ids."""
    parent = harness.do(lifecycle.add, RUN_GROUP, dataset_id="ds_shapes").id
    children = [
        harness.do(lifecycle.add, spec(RUN_GROUP), dataset_id="ds_shapes", parent_id=parent)
        for spec in (baseline_of, comparison_of)
    ]
    return parent, *(child.id for child in children)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_stop_accepted_while_the_job_starts_is_recorded(harness, before_read):
    job_id = harness.submit()
    leases = []
    before_read(lambda: leases.append(harness.claim(job_id)))
    assert harness.do(actions.stop, job_id).stop_requested_at is not None
    assert harness.do(lifecycle.renew, leases[0], 60).requested_action is RequestedAction.STOP


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("action", "status"), [(actions.pause, "paused"), (actions.cancel, "cancelled")])
def test_an_action_concurrent_with_a_resume_takes_effect(harness, before_read, action, status):
    job_id = harness.submit()
    harness.do(actions.cancel, job_id)
    before_read(lambda: harness.do(actions.resume, job_id))
    assert harness.do(action, job_id).status == status
    assert harness.job(job_id).status == status


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("action", [actions.resume, actions.delete])
def test_an_action_concurrent_with_the_end_of_the_job_takes_effect(harness, before_read, action):
    job_id = harness.submit()
    lease = harness.claim(job_id)
    before_read(lambda: harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED))
    harness.do(action, job_id)
    assert harness.rows(select(Job.status)) == ([JobStatus.QUEUED] if action is actions.resume else [])


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_student_that_fails_while_its_teacher_is_resumed_is_resumed_as_well(harness):
    teacher = harness.submit()
    student = harness.submit(teacher_job_id=teacher)
    fail(harness, teacher)
    resume = partial(harness.do, actions.resume, teacher)
    run_before_commit(harness.uncommitted(lifecycle.fail_dependents), resume)
    assert harness.job(teacher).status == harness.job(student).status == JobStatus.QUEUED


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_teacher_resumed_during_the_dependency_check_does_not_fail_its_students(harness):
    teacher = harness.submit()
    student = harness.submit(teacher_job_id=teacher)
    fail(harness, teacher)
    run_before_commit(harness.uncommitted(actions.resume, teacher), partial(harness.do, lifecycle.fail_dependents))
    assert harness.job(teacher).status == harness.job(student).status == JobStatus.QUEUED


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_child_resumed_concurrently_is_not_deleted_with_its_parent(harness):
    *runs, compare = run_group(harness)
    for run in reversed(runs):
        fail(harness, run)
    harness.do(lifecycle.fail_dependents)

    def delete():
        try:
            return harness.do(actions.delete, runs[0])
        except JobInUse as error:
            return error

    assert isinstance(run_before_commit(harness.uncommitted(actions.resume, runs[1]), delete), JobInUse)
    assert set(harness.rows(select(Job.id))) == {*runs, compare}


def test_a_run_cannot_be_deleted_while_its_comparison_waits(harness):
    parent, baseline, compare = run_group(harness)
    harness.do(lifecycle.finish, harness.claim(baseline), JobStatus.SUCCEEDED, EndReason.COMPLETED)
    with pytest.raises(JobInUse, match=compare):
        harness.do(actions.delete, baseline)
    harness.do(actions.cancel, compare)
    harness.do(actions.delete, baseline)
    assert set(harness.rows(select(Job.id))) == {parent, compare}


def test_a_disallowed_action_lists_the_allowed_ones(harness):
    job_id = harness.submit()
    with pytest.raises(ActionNotAllowed) as error:
        harness.do(actions.resume, job_id)
    assert [str(action) for action in error.value.allowed_actions] == ["cancel", "pause"]
