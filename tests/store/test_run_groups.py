"""Jobs that belong together: a comparison waits for the runs it compares, and fails with them."""

import pytest

from frs.spec import JobSpec, baseline_of, comparison_of, seed_variant
from store.db import queries
from store.jobs import actions, lifecycle
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
def run_group(house):
    """Ids: parent, its two baselines, its sibling, the comparison."""

    def add(spec, parent=None):
        return house.do(lifecycle.add, spec, dataset_id="ds_shapes", parent_id=parent).id

    parent = add(SPEC)
    children = [baseline_of(SPEC), baseline_of(SPEC, 1), seed_variant(SPEC, 1), comparison_of(SPEC)]
    return [parent, *(add(child, parent) for child in children)]


def settle(house, job_id, status=JobStatus.SUCCEEDED):
    reason = EndReason.COMPLETED if status == JobStatus.SUCCEEDED else EndReason.DIVERGED
    house.do(lifecycle.finish, house.claim(job_id), status, reason)


def test_the_comparison_is_claimed_once_all_runs_have_succeeded(house, run_group):
    *runs, compare = run_group
    for run in runs:
        assert house.do(lifecycle.claim, "worker", 60, compare) is None
        settle(house, run)
    assert house.claim().job_id == compare


def test_it_says_what_it_waits_for(house, run_group):
    *runs, compare = run_group
    settle(house, runs[0])
    reason = house.do(waiting.waiting_reason, house.job(compare))
    assert reason.code == WaitingReason.RUNS and reason.message.startswith("3 of the runs")
    for run in runs[1:]:
        settle(house, run)
    assert house.do(waiting.waiting_reason, house.job(compare)).code == WaitingReason.WORKER


@pytest.mark.parametrize("lost", range(4))
def test_it_fails_with_any_run_it_needs_and_alone(house, run_group, lost):
    *runs, compare = run_group
    settle(house, runs[lost], JobStatus.FAILED)
    assert house.do(lifecycle.fail_dependents) == [compare]
    assert house.job(compare).end_reason == EndReason.DEPENDENCY_FAILED
    assert runs[0] in house.job(compare).error["message"]


def test_a_cancelled_run_fails_it_too(house, run_group):
    house.do(actions.cancel, run_group[1])
    assert house.do(lifecycle.fail_dependents) == [run_group[-1]]


def test_another_familys_failure_is_none_of_its_business(house, run_group):
    settle(house, house.submit(), JobStatus.FAILED)
    assert house.do(lifecycle.fail_dependents) == []
    assert house.claim().job_id == run_group[0]


def test_the_runs_come_by_seed_the_parent_first(house, run_group):
    parent, first, second, sibling_id, compare = run_group
    runs = house.do(queries.compared_runs, house.job(compare))
    assert runs[0].id == parent and {run.id for run in runs[:2]} == {parent, first}
    assert {run.id for run in runs[2:]} == {second, sibling_id}
