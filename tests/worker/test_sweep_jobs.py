"""A worker runs a sweep to its end: each job that ends posts the next one."""

from sqlalchemy import select

from store.db.audit import Actor
from store.db.sweep_tables import Sweep, Trial
from store.db.tables import Job
from store.states import JobStatus, SweepStatus
from store.sweeps import actions
from store.sweeps.advance import advance
from store.sweeps.definition import SweepSpec
from worker.attempt import supervisor


def start_sweep(harness):
    """Add a sweep of two settings, one job at a time, and post its first trial."""
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "metadata": {"steps": "2"}}
    sweep_spec = {"spec": spec, "space": {"schedule.epochs": [1, 2]}, "seeds": 1, "concurrency": 1}
    references = {"dataset_id": "ds_shapes", "actor": Actor("alice", None)}
    sweep, _ = harness.do(actions.add, SweepSpec.model_validate(sweep_spec), **references)
    harness.do(advance, harness.settings, sweep.id)
    return sweep.id


def test_a_sweep_needs_nothing_but_a_worker(harness):
    sweep_id = start_sweep(harness)
    runs = 0
    while harness.rows(select(Job).where(Job.status == JobStatus.QUEUED)):
        harness.supervisor().run()
        runs += 1
    [sweep] = harness.rows(select(Sweep))
    assert (sweep.id, sweep.status, runs) == (sweep_id, SweepStatus.SUCCEEDED, 3)
    assert [trial.score for trial in harness.rows(select(Trial))] == [sweep.result["mAP"]] * 2


def test_a_job_ends_though_its_sweep_cannot_be_advanced(harness, monkeypatch):
    def fail(*_):
        raise RuntimeError("a fault")

    start_sweep(harness)
    monkeypatch.setattr(supervisor, "advance_sweep_of", fail)
    harness.supervisor().run()
    assert harness.rows(select(Job.status)) == [JobStatus.SUCCEEDED]
