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


def fail(house, job_id):
    house.do(lifecycle.finish, house.claim(job_id), JobStatus.FAILED, EndReason.DIVERGED)


def run_group(house):
    """Ids: the job, its baseline, their comparison."""
    parent = house.do(lifecycle.add, FAMILY, dataset_id="ds_shapes").id
    children = [
        house.do(lifecycle.add, spec(FAMILY), dataset_id="ds_shapes", parent_id=parent)
        for spec in (baseline_of, comparison_of)
    ]
    return parent, *(child.id for child in children)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_stop_that_is_accepted_while_the_job_starts_is_noted(house, between):
    job_id = house.submit()
    leases = []
    between(lambda: leases.append(house.claim(job_id)))
    assert house.do(actions.stop, job_id).stop_requested_at is not None
    assert house.do(lifecycle.renew, leases[0], 60).requested_action is RequestedAction.STOP


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("action", "status"), [(actions.pause, "paused"), (actions.cancel, "cancelled")])
def test_an_action_that_meets_a_resumed_job_acts_on_it(house, between, action, status):
    job_id = house.submit()
    house.do(actions.cancel, job_id)
    between(lambda: house.do(actions.resume, job_id))
    assert house.do(action, job_id).status == status
    assert house.job(job_id).status == status


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("action", [actions.resume, actions.delete])
def test_an_action_that_meets_a_job_that_has_just_ended_acts_on_it(house, between, action):
    job_id = house.submit()
    lease = house.claim(job_id)
    between(lambda: house.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED))
    house.do(action, job_id)
    assert house.rows(select(Job.status)) == ([JobStatus.QUEUED] if action is actions.resume else [])


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_student_failed_while_its_teacher_is_resumed_is_resumed_with_it(house):
    teacher = house.submit()
    student = house.submit(teacher_job_id=teacher)
    fail(house, teacher)
    resume = partial(house.do, actions.resume, teacher)
    meanwhile(house.uncommitted(lifecycle.fail_dependents), resume)
    assert house.job(teacher).status == house.job(student).status == JobStatus.QUEUED


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_teacher_resumed_while_its_students_are_looked_at_does_not_fail_them(house):
    teacher = house.submit()
    student = house.submit(teacher_job_id=teacher)
    fail(house, teacher)
    meanwhile(house.uncommitted(actions.resume, teacher), partial(house.do, lifecycle.fail_dependents))
    assert house.job(teacher).status == house.job(student).status == JobStatus.QUEUED


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_child_that_is_being_resumed_is_not_deleted_with_its_parent(house):
    *runs, compare = run_group(house)
    for run in runs:
        fail(house, run)
    house.do(lifecycle.fail_dependents)

    def delete():
        try:
            return house.do(actions.delete, runs[0])
        except JobInUse as refusal:
            return refusal

    assert isinstance(meanwhile(house.uncommitted(actions.resume, runs[1]), delete), JobInUse)
    assert set(house.rows(select(Job.id))) == {*runs, compare}


def test_a_run_is_not_deleted_while_its_comparison_waits(house):
    parent, baseline, compare = run_group(house)
    house.do(lifecycle.finish, house.claim(baseline), JobStatus.SUCCEEDED, EndReason.COMPLETED)
    with pytest.raises(JobInUse, match=compare):
        house.do(actions.delete, baseline)
    house.do(actions.cancel, compare)
    house.do(actions.delete, baseline)
    assert set(house.rows(select(Job.id))) == {parent, compare}


def test_an_action_not_allowed_says_what_is(house):
    job_id = house.submit()
    with pytest.raises(ActionNotAllowed) as refusal:
        house.do(actions.resume, job_id)
    assert [str(action) for action in refusal.value.allowed_actions] == ["cancel", "pause"]
