"""Sweeps on a database: their jobs are posted once, stopped, resumed, bounded and confirmed."""

import multiprocessing
from functools import partial

import pytest
from sqlalchemy import func, select, update
from sweep_harness import ACTOR, DISTILL, RATES, SweepHarness, sweep_spec
from test_races import run_concurrently

from frs.spec import JobSpec
from store.db import api_keys
from store.db.audit import Actor
from store.db.database import open_database
from store.db.sweep_tables import Sweep, Trial
from store.db.tables import ApiKey, AuditEntry, Dataset, Job
from store.errors import SweepActionNotAllowed, SweepNotFound
from store.jobs import actions as job_actions
from store.jobs import lifecycle
from store.reaper import Reaper
from store.settings import Settings
from store.states import EndReason, JobStatus, SearchEnd, SweepStatus
from store.sweeps import actions
from store.sweeps.advance import advance, advance_sweep_of

PROCESSES = 2
RATE = "schedule.optimizer.learning_rate"


@pytest.fixture
def start(harness):
    """Start a sweep: `start(**fields of the sweep)`."""
    return lambda spec=None, settings=None, **fields: SweepHarness.start(harness, sweep_spec(spec, **fields), settings)


def by_setting(trial):
    return 0.9 - trial.setting / 10


def test_the_trials_are_jobs_of_the_sweep(harness, start):
    sweep = start(seeds=2, name="rates")
    specs = sweep.specs(sweep.advance())
    assert [spec["schedule"]["optimizer"]["learning_rate"] for spec in specs] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert [spec["schedule"]["seed"] for spec in specs] == [0, 1] * 3
    assert {(spec["name"], *spec["tags"]) for spec in specs} == {
        (f"rates-trial{number}", sweep.id) for number in range(1, 7)
    }
    assert set(harness.rows(select(Job.owner))) == {"alice"}


def test_a_second_call_posts_nothing(start):
    sweep = start(concurrency=2)
    assert len(sweep.advance()) == 2
    assert sweep.advance() == []


def test_a_trial_that_ends_makes_room_for_the_next_one(start):
    sweep = start(concurrency=1)
    [first] = sweep.advance()
    sweep.score(first, 0.5)
    [second] = sweep.advance()
    assert [trial.status for trial in sweep.trials] == [JobStatus.SUCCEEDED, JobStatus.QUEUED]
    assert sweep.trials[0].score == 0.5 and sweep.trials[1].job_id == second


def test_threads_that_advance_at_once_post_each_trial_once(start):
    sweep = start(seeds=2, concurrency=3)
    calls = [partial(run_in_own_database, sweep.harness.url, sweep.id)] * 4
    posted = run_concurrently(*calls)
    assert sorted(map(len, posted)) == [0, 0, 0, 3]
    assert len(sweep.trials) == 3 and len(sweep.harness.rows(select(Job.id))) == 3


def run_in_own_database(url, sweep_id):
    database = open_database(url)
    try:
        with database.write() as session:
            posted = advance(session, Settings(), sweep_id)
            session.commit()
    finally:
        database.engine.dispose()
    return posted


def run_in_process(url, sweep_id, barrier, posted):
    barrier.wait()
    posted.put(len(run_in_own_database(url, sweep_id)))


def test_processes_that_advance_at_once_post_each_trial_once(start):
    sweep = start(seeds=2)
    spawn = multiprocessing.get_context("spawn")
    barrier, posted = spawn.Barrier(PROCESSES), spawn.Queue()
    arguments = (sweep.harness.url, sweep.id, barrier, posted)
    processes = [spawn.Process(target=run_in_process, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    counts = [posted.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(counts) == [0, 6]
    assert len(sweep.trials) == 6


def test_the_confirming_job_is_posted_once_by_processes_at_once(start):
    sweep = start(DISTILL)
    for job_id in sweep.advance():
        sweep.score(job_id, 0.5)
    posted = run_concurrently(*[partial(run_in_own_database, sweep.harness.url, sweep.id)] * 4)
    assert sorted(map(len, posted)) == [0, 0, 0, 7]


def test_the_best_setting_is_confirmed_on_seeds_that_no_trial_used(start):
    sweep = start(DISTILL, seeds=2)
    sweep.advance()
    sweep.score_all(lambda trial: 0.5 + (trial.setting == 1) / 10)
    assert (sweep.row.status, sweep.row.best_setting) == (SweepStatus.CONFIRMING, 1)
    job = sweep.harness.job(sweep.row.confirm_job_id)
    group = [job, *sweep.harness.rows(select(Job).where(Job.parent_id == job.id))]
    seeds = {run.spec["schedule"]["seed"] for run in group if run.kind != "compare"}
    assert seeds == {7, 8, 9} and seeds.isdisjoint({trial.seed for trial in sweep.trials})
    assert len(group) == 7
    assert {run.spec["schedule"]["optimizer"]["learning_rate"] for run in group} == {0.01}


def test_the_verdict_is_the_confirming_jobs(start):
    sweep = start(DISTILL)
    sweep.advance()
    sweep.score_all(by_setting)
    comparison = finish_confirmation(sweep, 0.02, 0.03, 0.04)
    assert sweep.advance() == [] and sweep.row.status == SweepStatus.SUCCEEDED
    assert sweep.row.result["comparison"]["pairs"][2]["gain"] == 0.04
    assert sweep.row.result["mAP"] == pytest.approx(0.53)
    assert sweep.row.finished_at >= sweep.harness.job(comparison).finished_at


def finish_confirmation(sweep, *gains):
    """Run the confirming run group; return the id of its comparison."""
    root = sweep.row.confirm_job_id
    children = sweep.harness.rows(select(Job).where(Job.parent_id == root))
    for job_id in [root, *(job.id for job in children if job.kind != "compare")]:
        sweep.score(job_id, 0.5)
    [comparison] = [job.id for job in children if job.kind == "compare"]
    sweep.compare(comparison, *gains)
    return comparison


def test_a_sweep_of_kind_train_confirms_with_one_run_and_no_comparison(start):
    sweep = start()
    sweep.advance()
    sweep.score_all(by_setting)
    sweep.score(sweep.row.confirm_job_id, 0.4)
    sweep.advance()
    assert (sweep.row.status, sweep.row.result) == (SweepStatus.SUCCEEDED, {"mAP": 0.4, "comparison": None})


def test_a_failed_confirmation_fails_the_sweep_until_the_job_is_retried(start):
    sweep = start()
    sweep.advance()
    sweep.score_all(by_setting)
    job_id = sweep.row.confirm_job_id
    sweep.fail(job_id)
    sweep.advance()
    assert (sweep.row.status, sweep.row.error["code"]) == (SweepStatus.FAILED, "confirmation_failed")
    sweep.harness.do(job_actions.retry, job_id)
    sweep.act(actions.resume)
    sweep.score(job_id, 0.4)
    sweep.advance()
    assert (sweep.row.status, sweep.row.error) == (SweepStatus.SUCCEEDED, None)


def test_a_deleted_confirming_job_is_posted_again(start):
    sweep = start()
    sweep.advance()
    sweep.score_all(by_setting)
    job_id = sweep.row.confirm_job_id
    sweep.harness.do(job_actions.cancel, job_id)
    sweep.harness.do(job_actions.delete, job_id)
    [again] = sweep.advance()
    assert again != job_id and sweep.row.confirm_job_id == again


def test_stop_pauses_the_jobs_and_resume_continues_them(start):
    sweep = start(concurrency=2)
    running, queued = sweep.advance()
    lease = sweep.harness.claim(running)
    sweep.act(actions.stop)
    assert sweep.row.status == SweepStatus.STOPPED
    assert sweep.harness.job(queued).status == JobStatus.PAUSED
    assert sweep.harness.do(lifecycle.renew, lease, 60).requested_action.name == "PAUSE"
    sweep.harness.do(lifecycle.requeue, lease, attempt_counts=False)
    assert sweep.harness.job(running).status == JobStatus.PAUSED
    assert sweep.advance() == []
    _, continued = sweep.act(actions.resume)
    assert sorted(continued) == sorted([running, queued])
    assert {sweep.harness.job(job_id).status for job_id in (running, queued)} == {JobStatus.QUEUED}
    sweep.advance()
    sweep.score_all(by_setting)
    assert sweep.row.status == SweepStatus.CONFIRMING and len(sweep.trials) == 3


def test_a_sweep_that_is_stopped_while_it_confirms_continues_there(start):
    sweep = start(DISTILL)
    sweep.advance()
    sweep.score_all(by_setting)
    sweep.act(actions.stop)
    paused = sweep.harness.rows(select(Job.id).where(Job.status == JobStatus.PAUSED))
    assert len(paused) == 7
    sweep.act(actions.resume)
    assert sweep.advance() == [] and sweep.row.status == SweepStatus.CONFIRMING
    finish_confirmation(sweep, 0.1)
    sweep.advance()
    assert sweep.row.status == SweepStatus.SUCCEEDED


def test_a_resume_withdraws_the_pause_of_a_job_that_has_not_obeyed_yet(start):
    sweep = start()
    running = sweep.advance()[0]
    lease = sweep.harness.claim(running)
    sweep.act(actions.stop)
    sweep.act(actions.resume)
    assert sweep.harness.do(lifecycle.renew, lease, 60).requested_action.name == "NONE"


def test_stop_and_resume_are_idempotent_and_refused_after_the_end(start):
    sweep = start()
    sweep.advance()
    for action in (actions.stop, actions.stop, actions.resume, actions.resume):
        sweep.act(action)
    sweep.score_all(by_setting)
    sweep.score(sweep.row.confirm_job_id, 0.4)
    sweep.advance()
    for action in (actions.stop, actions.resume):
        with pytest.raises(SweepActionNotAllowed):
            sweep.act(action)


def test_a_stopped_sweep_is_deleted_and_its_jobs_are_kept_but_do_not_run(start):
    sweep = start()
    job_ids = sweep.advance()
    with pytest.raises(SweepActionNotAllowed):
        sweep.act(actions.delete)
    sweep.act(actions.stop)
    sweep.act(actions.delete)
    assert sweep.harness.rows(select(Sweep)) == sweep.harness.rows(select(Trial)) == []
    assert {sweep.harness.job(job_id).status for job_id in job_ids} == {JobStatus.CANCELLED}
    with pytest.raises(SweepNotFound):
        sweep.act(actions.delete)


def test_a_failed_trial_is_shown_and_the_search_goes_on(start):
    sweep = start()
    first, second, third = sweep.advance()
    sweep.fail(first)
    sweep.score(second, 0.4)
    sweep.score(third, 0.3)
    sweep.advance()
    assert sweep.trials[0].error["code"] == "diverged" and sweep.trials[0].score is None
    assert (sweep.row.status, sweep.row.best_setting) == (SweepStatus.CONFIRMING, 1)


def test_a_cancelled_and_a_deleted_trial_have_no_result(start):
    sweep = start()
    first, second, third = sweep.advance()
    sweep.harness.do(job_actions.cancel, first)
    sweep.harness.do(job_actions.cancel, second)
    sweep.harness.do(job_actions.delete, second)
    sweep.score(third, 0.1)
    sweep.advance()
    assert [trial.status for trial in sweep.trials[:2]] == [JobStatus.CANCELLED] * 2
    assert sweep.trials[1].job_id is None and sweep.trials[1].error["code"] == "job_not_found"
    assert sweep.row.best_setting == 2


def test_a_trial_keeps_its_result_when_its_job_is_deleted(start):
    sweep = start(concurrency=1)
    [first] = sweep.advance()
    sweep.score(first, 0.9)
    sweep.advance()
    sweep.harness.do(job_actions.delete, first)
    sweep.score_all(lambda trial: 0.5)
    assert sweep.trials[0].score == 0.9 and sweep.row.best_setting == 0


def test_too_many_failures_end_the_sweep_and_pause_the_other_jobs(start):
    sweep = start(space={RATE: [0.1, 0.2, 0.3, 0.4, 0.5]})
    job_ids = sweep.advance()
    for job_id in job_ids[:3]:
        sweep.fail(job_id)
    sweep.advance()
    assert (sweep.row.status, sweep.row.error["code"]) == (SweepStatus.FAILED, "too_many_failures")
    assert sweep.row.error["message"].startswith("3 of 3 trials failed. Trial 3: diverged:")
    assert {sweep.harness.job(job_id).status for job_id in job_ids[3:]} == {JobStatus.PAUSED}


def test_a_resumed_sweep_forgives_earlier_failures(start):
    sweep = start(space={RATE: [0.1, 0.2, 0.3, 0.4, 0.5]})
    job_ids = sweep.advance()
    for job_id in job_ids[:3]:
        sweep.fail(job_id)
    sweep.advance()
    sweep.act(actions.resume)
    sweep.advance()
    assert sweep.row.status == SweepStatus.SEARCHING
    sweep.score_all(by_setting)
    assert sweep.row.best_setting == 3


def test_jobs_that_fail_again_after_a_retry_and_a_resume_count(start):
    sweep = start(space={RATE: [0.1, 0.2, 0.3, 0.4, 0.5]})
    job_ids = sweep.advance()[:3]
    for _ in range(2):
        for job_id in job_ids:
            sweep.fail(job_id)
        sweep.advance()
        assert sweep.row.error["code"] == "too_many_failures"
        for job_id in job_ids:
            sweep.harness.do(job_actions.retry, job_id)
        sweep.act(actions.resume)


def test_a_retried_trial_counts_again(start):
    sweep = start()
    first, *others = sweep.advance()
    sweep.fail(first)
    sweep.advance()
    sweep.harness.do(job_actions.retry, first)
    sweep.advance()
    assert sweep.trials[0].status == JobStatus.QUEUED and sweep.trials[0].error is None
    sweep.score_all(by_setting)
    assert sweep.row.best_setting == 0 and len(sweep.trials) == 1 + len(others)


def test_a_sweep_without_any_result_fails(start):
    sweep = start(space={RATE: [0.1, 0.2]})
    for job_id in sweep.advance():
        sweep.fail(job_id)
    sweep.advance()
    assert sweep.row.error["code"] == "no_result" and "Trial 2: diverged" in sweep.row.error["message"]


def test_a_trial_without_a_score_has_no_result(start):
    """The evaluation of a validation split without objects has no mAP."""
    sweep = start(space={RATE: [0.1, 0.2]})
    first, second = sweep.advance()
    sweep.harness.do(lifecycle.finish, sweep.harness.claim(first), JobStatus.SUCCEEDED, EndReason.COMPLETED)
    sweep.score(second, 0.2)
    sweep.advance()
    assert sweep.row.best_setting == 1


def test_the_budget_of_minutes_lets_running_trials_end_and_starts_no_more(start):
    sweep = start(max_minutes=10, concurrency=2)
    first, second = sweep.advance()
    sweep.harness.claim(first)
    sweep.run_for(first, 601)
    assert sweep.advance() == []
    assert [trial.status for trial in sweep.trials] == [JobStatus.RUNNING, JobStatus.CANCELLED]
    assert sweep.trials[0].seconds > 600
    sweep.harness.do(job_actions.cancel, first)
    sweep.harness.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
    sweep.harness.do(lifecycle.requeue_expired)
    sweep.advance()
    assert (sweep.row.search_end, sweep.row.error["code"]) == (SearchEnd.MAX_MINUTES, "no_result")


def test_the_best_setting_within_the_budget_of_minutes_is_confirmed(start):
    sweep = start(max_minutes=10, concurrency=1)
    [first] = sweep.advance()
    sweep.score(first, 0.5)
    sweep.run_for(first, 601)
    sweep.advance()
    assert (sweep.row.search_end, sweep.row.best_setting) == (SearchEnd.MAX_MINUTES, 0)
    assert len(sweep.trials) == 1


def test_asha_posts_promotions_as_jobs_with_longer_schedules(start):
    samples = {"strategy": "asha", "samples": 9, "space": {RATE: {"log_uniform": [1e-4, 1e-2]}}}
    sweep = start(**samples)
    sweep.advance()
    sweep.score_all(lambda trial: 0.9 - trial.setting / 10)
    epochs = [spec["schedule"]["epochs"] for spec in sweep.specs([trial.job_id for trial in sweep.trials])]
    assert epochs == [1] * 9 + [3] * 3 + [9]
    assert [(trial.setting, trial.rung) for trial in sweep.trials[9:]] == [(0, 1), (1, 1), (2, 1), (0, 2)]
    assert (sweep.row.best_setting, sweep.row.search_end) == (0, SearchEnd.COMPLETE)


def test_the_budget_of_jobs_ends_asha(start):
    samples = {"strategy": "asha", "samples": 9, "space": {RATE: {"log_uniform": [1e-4, 1e-2]}}}
    sweep = start(**samples, max_jobs=11)
    sweep.advance()
    sweep.score_all(by_setting)
    assert (len(sweep.trials), sweep.row.search_end) == (11, SearchEnd.MAX_JOBS)
    assert sweep.row.status == SweepStatus.CONFIRMING


def test_the_owners_limit_of_active_jobs_holds_for_trials_and_confirmation(harness, start):
    sweep = start(DISTILL, settings=Settings(max_active_jobs=2))
    first, _ = sweep.advance()
    assert sweep.advance() == []
    sweep.score(first, 0.5)
    assert len(sweep.advance()) == 1
    sweep.score_all(by_setting)
    assert sweep.row.status == SweepStatus.CONFIRMING and sweep.row.confirm_job_id is None
    sweep.settings = Settings(max_active_jobs=7)
    assert len(sweep.advance()) == 7


def test_the_limits_of_the_key_hold(harness):
    key = harness.do(api_keys.add, "small", api_keys.new_token(), owner="alice", max_active_jobs=1)
    sweep = SweepHarness.start(harness, sweep_spec(), actor=Actor("alice", key.id))
    assert len(sweep.advance()) == 1


def test_a_revoked_key_posts_no_more_jobs_until_the_sweep_is_resumed_with_a_valid_one(harness):
    keys = [harness.do(api_keys.add, "key", api_keys.new_token(), owner="alice") for _ in range(2)]
    sweep = SweepHarness.start(harness, sweep_spec(concurrency=1), actor=Actor("alice", keys[0].id))
    [first] = sweep.advance()
    sweep.score(first, 0.5)
    harness.do(lambda session: session.execute(update(ApiKey).where(ApiKey.id == keys[0].id).values(revoked_at=1.0)))
    assert sweep.advance() == [] and sweep.row.error["code"] == "key_invalid"
    harness.do(actions.resume, sweep.id, Actor("alice", keys[1].id))
    [second] = sweep.advance()
    assert harness.job(second).key_id == keys[1].id


def replace_key(session, key_id, grace_seconds=0):
    """Rotate the key and return the id of the new one."""
    return api_keys.rotate(session, session.get(ApiKey, key_id), api_keys.new_token(), grace_seconds).id


def test_a_sweep_continues_with_the_key_that_replaces_its_own(harness):
    key = harness.do(api_keys.add, "key", api_keys.new_token(), owner="alice", scopes=["submit"])
    sweep = SweepHarness.start(harness, sweep_spec(concurrency=1), actor=Actor("alice", key.id))
    [first] = sweep.advance()
    new = harness.do(replace_key, key.id)
    sweep.score(first, 0.5)
    [second] = sweep.advance()
    assert harness.job(second).key_id == new
    harness.do(lambda session: api_keys.revoke(session, session.get(ApiKey, new)))
    sweep.score(second, 0.5)
    assert sweep.advance() == [] and sweep.row.error["code"] == "key_invalid"


def test_a_key_rotated_again_takes_over_the_sweeps_of_the_lost_key(harness):
    key = harness.do(api_keys.add, "key", api_keys.new_token(), owner="alice", scopes=["submit"])
    sweep = SweepHarness.start(harness, sweep_spec(concurrency=1), actor=Actor("alice", key.id))
    lost, new = (harness.do(replace_key, key.id, grace_seconds=60) for _ in range(2))
    harness.do(lambda session: api_keys.revoke(session, session.get(ApiKey, lost)))
    [job] = sweep.advance()
    assert harness.job(job).key_id == new


def test_a_deleted_data_set_fails_the_sweep(start):
    sweep = start(concurrency=1)
    [first] = sweep.advance()
    sweep.harness.do(job_actions.cancel, first)
    sweep.harness.do(job_actions.delete, first)
    sweep.harness.do(lambda session: session.delete(session.get(Dataset, "ds_shapes")))
    sweep.advance()
    assert sweep.row.error["code"] == "reference_deleted"


@pytest.mark.parametrize("kept", ["student", "teacher"])
def test_a_deleted_job_whose_student_the_jobs_use_fails_the_sweep(harness, kept):
    deleted = f"job_{'0' * 26}"
    sources = {"student": deleted, "teacher": deleted} | {kept: harness.submit()}
    detectors = {name: {"architecture": "gfl", "init": {"job": job_id}} for name, job_id in sources.items()}
    sweep = SweepHarness.start(harness, sweep_spec(spec=DISTILL | detectors))
    assert sweep.advance() == []
    assert sweep.row.error["code"] == "reference_deleted" and deleted in sweep.row.error["message"]


def test_a_sweep_of_another_version_fails_alone(harness, start):
    broken, sound = start(), start()
    harness.do(lambda session: session.execute(update(Sweep).where(Sweep.id == broken.id).values(spec={"space": 1})))
    Reaper(Settings(), harness.database).reap_when_due()
    assert broken.row.error["code"] == "spec_unreadable"
    assert len(sound.trials) == 3


def test_the_reaper_advances_every_active_sweep(harness, start):
    sweeps = [start(), start()]
    Reaper(Settings(), harness.database).reap_when_due()
    assert [len(sweep.trials) for sweep in sweeps] == [3, 3]


def test_the_end_of_a_job_advances_its_sweep_alone(harness, start):
    sweep, other = start(DISTILL, concurrency=1), start()
    [first] = sweep.advance()
    sweep.score(first, 0.5)
    advance_sweep_of(harness.database, Settings(), first)
    assert (len(sweep.trials), len(other.trials)) == (2, 0)
    sweep.score_all(by_setting)
    comparison = finish_confirmation(sweep, 0.1)
    advance_sweep_of(harness.database, Settings(), comparison)
    assert sweep.row.status == SweepStatus.SUCCEEDED
    advance_sweep_of(harness.database, Settings(), harness.submit())


def test_the_same_idempotency_key_returns_the_first_sweep(harness):
    def post(space=RATES):
        spec = sweep_spec(space=space)
        options = {"dataset_id": "ds_shapes", "actor": ACTOR, "idempotency_key": "k"}
        return harness.do(actions.add, spec, **options)

    results = run_concurrently(*[post] * 8)
    assert len({sweep.id for sweep, _ in results}) == 1
    assert sum(is_new for _, is_new in results) == 1
    [conflict] = run_concurrently(partial(post, {RATE: [1.0]}))
    assert type(conflict).__name__ == "IdempotencyKeyReused"


def test_every_change_is_in_the_audit_trail(harness, start):
    sweep = start()
    sweep.advance()
    for action in (actions.stop, actions.resume, actions.stop, actions.delete):
        sweep.act(action)
    entries = harness.rows(select(AuditEntry.action).where(AuditEntry.target == sweep.id))
    assert sorted(entries) == sorted(["sweep.create", "sweep.stop", "sweep.resume", "sweep.stop", "sweep.delete"])
    submitted = select(func.count()).select_from(AuditEntry).where(AuditEntry.action == "job.submit")
    assert harness.rows(submitted) == [3]


def test_the_spec_of_every_posted_job_is_valid(harness, start):
    sweep = start(DISTILL)
    sweep.advance()
    sweep.score_all(by_setting)
    assert all(JobSpec.model_validate(spec) for spec in harness.rows(select(Job.spec)))
