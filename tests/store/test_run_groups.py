"""Run groups: a comparison waits for the runs it compares, and fails with them."""

import pytest

from frs.spec import JobSpec, baseline_of, comparison_of, seed_variant
from store.db import queries
from store.jobs import actions, lifecycle
from store.jobs.lease import RequestedAction
from store.scheduling import waiting
from store.states import EndReason, JobStatus, WaitingReason

SPEC = JobSpec.model_validate(
    {
        "dataset": "shapes",
        "teacher": {"architecture": "gfl", "init": "random"},
        "student": {"architecture": "gfl"},
        "baseline": {"seeds": 2},
    }
)


@pytest.fixture
def run_group(harness):
    """The ids of a job, its two baselines, its seed variant and the comparison."""

    def add(spec, parent=None):
        return harness.do(lifecycle.add, spec, dataset_id="ds_shapes", parent_id=parent).id

    parent = add(SPEC)
    children = [baseline_of(SPEC), baseline_of(SPEC, 1), seed_variant(SPEC, 1), comparison_of(SPEC)]
    return [parent, *(add(child, parent) for child in children)]


def finish(harness, job_id, status=JobStatus.SUCCEEDED):
    reason = EndReason.COMPLETED if status == JobStatus.SUCCEEDED else EndReason.DIVERGED
    harness.do(lifecycle.finish, harness.claim(job_id), status, reason)


def test_the_comparison_is_claimed_once_all_runs_have_succeeded(harness, run_group):
    *runs, compare = run_group
    for run in runs:
        assert harness.do(lifecycle.claim, "worker", 60, compare) is None
        finish(harness, run)
    assert harness.claim().job_id == compare


def test_the_comparison_reports_what_it_waits_for(harness, run_group):
    *runs, compare = run_group
    finish(harness, runs[0])
    reason = harness.do(waiting.waiting_reason, harness.job(compare))
    assert reason.code == WaitingReason.RUNS and reason.message.startswith(
        "Runs to compare that have not succeeded yet: 3,"
    )
    for run in runs[1:]:
        finish(harness, run)
    assert harness.do(waiting.waiting_reason, harness.job(compare)).code == WaitingReason.WORKER


@pytest.mark.parametrize("failed", range(1, 4))
def test_the_comparison_alone_fails_with_a_baseline_or_a_seed_variant(harness, run_group, failed):
    *runs, compare = run_group
    finish(harness, runs[failed], JobStatus.FAILED)
    assert harness.do(lifecycle.fail_dependents) == [compare]
    assert harness.job(compare).end_reason == EndReason.DEPENDENCY_FAILED
    assert runs[0] in harness.job(compare).error["message"]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_no_queued_member_trains_for_a_job_that_has_not_succeeded(harness, run_group, status):
    parent, *members = run_group
    if status == JobStatus.FAILED:
        finish(harness, parent, status)
    else:
        harness.do(actions.cancel, parent)
    assert harness.do(lifecycle.claim, "worker", 60) is None, "nor before the reaper"
    assert set(harness.do(lifecycle.fail_dependents)) == set(members)
    for member in map(harness.job, members):
        assert (member.status, member.end_reason) == (JobStatus.FAILED, EndReason.DEPENDENCY_FAILED)
        assert parent in member.error["message"] and "`resume`" in member.error["hint"]


def test_members_that_run_or_have_ended_are_left_when_the_job_fails(harness, run_group):
    parent, ended, running, *queued = run_group
    finish(harness, ended)
    harness.claim(running)
    finish(harness, parent, JobStatus.FAILED)
    assert set(harness.do(lifecycle.fail_dependents)) == set(queued)
    assert (harness.job(ended).status, harness.job(running).status) == (JobStatus.SUCCEEDED, JobStatus.RUNNING)


@pytest.mark.parametrize("action", [actions.resume, actions.retry])
def test_the_members_that_failed_with_a_job_return_with_it(harness, run_group, action):
    finish(harness, run_group[0], JobStatus.FAILED)
    harness.do(lifecycle.fail_dependents)
    harness.do(action, run_group[0])
    assert harness.do(lifecycle.fail_dependents) == []
    assert {harness.job(job_id).status for job_id in run_group} == {JobStatus.QUEUED}


def test_the_run_group_of_a_cancelled_teacher_fails_at_once_and_returns_with_the_teacher(harness):
    teacher = harness.submit()
    parent = harness.do(lifecycle.add, SPEC, dataset_id="ds_shapes", teacher_job_id=teacher).id
    baseline = harness.do(lifecycle.add, baseline_of(SPEC), dataset_id="ds_shapes", parent_id=parent).id
    student = harness.submit(teacher_job_id=baseline)
    harness.do(actions.cancel, teacher)
    assert harness.do(lifecycle.fail_dependents) == [parent, baseline, student]
    assert teacher in harness.job(parent).error["message"] and parent in harness.job(baseline).error["message"]
    harness.do(actions.resume, teacher)
    assert {harness.job(job_id).status for job_id in (teacher, parent, baseline, student)} == {JobStatus.QUEUED}


def test_a_cancelled_run_fails_the_comparison_too(harness, run_group):
    harness.do(actions.cancel, run_group[1])
    assert harness.do(lifecycle.fail_dependents) == [run_group[-1]]


@pytest.mark.parametrize("action", [actions.resume, actions.retry])
def test_the_members_cancelled_with_a_job_return_with_it(harness, run_group, action):
    parent, baseline, *others = run_group
    harness.do(actions.cancel, baseline)
    harness.do(actions.cancel_group, parent)
    assert {harness.job(job_id).status for job_id in run_group} == {JobStatus.CANCELLED}
    harness.do(action, parent)
    assert {harness.job(job_id).status for job_id in (parent, *others)} == {JobStatus.QUEUED}
    assert harness.job(baseline).status == JobStatus.CANCELLED, "it was cancelled by itself"


def test_a_member_cancelled_again_by_itself_does_not_return_with_the_job(harness, run_group):
    parent, baseline, *_ = run_group
    harness.do(actions.cancel_group, parent)
    harness.do(actions.resume, baseline)
    harness.do(actions.cancel, baseline)
    harness.do(actions.resume, parent)
    assert harness.job(baseline).status == JobStatus.CANCELLED


def test_a_cancel_of_the_group_leaves_members_that_have_ended(harness, run_group):
    parent, baseline, *_ = run_group
    finish(harness, baseline)
    harness.do(actions.cancel_group, parent)
    harness.do(actions.resume, parent)
    assert harness.job(baseline).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("noticed", [False, True], ids=["before the worker notices", "after it has killed the trainer"])
def test_a_member_that_is_still_running_at_the_resume_is_not_cancelled(harness, run_group, noticed):
    parent, baseline, *_ = run_group
    lease = harness.claim(baseline)
    harness.do(actions.cancel_group, parent)
    harness.do(actions.resume, parent)
    if noticed:
        harness.do(lifecycle.finish, lease, JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER)
        assert harness.job(baseline).status == JobStatus.QUEUED
    else:
        assert harness.do(lifecycle.renew, lease, 60).requested_action is RequestedAction.NONE


def test_a_failure_outside_the_run_group_does_not_fail_the_comparison(harness, run_group):
    finish(harness, harness.submit(), JobStatus.FAILED)
    assert harness.do(lifecycle.fail_dependents) == []
    assert harness.claim().job_id == run_group[0]


def test_the_compared_runs_are_ordered_by_seed_with_the_parent_first(harness, run_group):
    parent, first, second, seed_variant_id, compare = run_group
    runs = harness.do(queries.compared_runs, harness.job(compare))
    assert runs[0].id == parent and {run.id for run in runs[:2]} == {parent, first}
    assert {run.id for run in runs[2:]} == {second, seed_variant_id}
