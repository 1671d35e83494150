"""F23: one database call fails, before or after its effect: no job is lost, duplicated or answered wrongly."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import oracle
import pytest
import structlog
from database_faults import DatabaseFaults, without_fsync
from fastapi.testclient import TestClient
from scripted import ScriptedTrainer
from sqlalchemy import func, select, update
from worker_harness import SHORT, WorkerHarness

from api.app import create_app
from store.db.database import open_database
from store.db.tables import Dataset, Job, Metric
from store.jobs import lifecycle
from store.settings import Settings
from store.states import DatasetStatus, JobStatus
from worker.attempt import database_retry
from worker.attempt.supervisor import Supervisor

MANY = 400
"""More calls than one job makes."""
SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}


@pytest.fixture
def worker_harness(url: str, tmp_path: Path) -> Iterator[WorkerHarness]:
    settings = Settings(data=tmp_path / "data", database_url=url, **SHORT)
    for root in (settings.work_root, settings.artifacts_root):
        root.mkdir(parents=True)
    harness = WorkerHarness(settings, without_fsync(open_database(url)))
    harness.add_dataset()
    yield harness
    harness.database.engine.dispose()


@pytest.fixture(autouse=True)
def no_waiting_and_no_chatter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(database_retry, "backoff_delays", lambda: iter([0.0] * 100))
    with structlog.testing.capture_logs():
        yield


def a_worker_s_turn(harness: WorkerHarness) -> None:
    """As the dispatcher's: whatever it raises, another turn follows."""
    harness.do(lifecycle.requeue_expired)
    harness.do(lifecycle.fail_dependents)
    lease = harness.do(lifecycle.claim, "worker", harness.settings.lease_seconds)
    if lease:
        supervisor = Supervisor(harness.database, harness.settings, lease)
        ScriptedTrainer(supervisor)
        supervisor.run()


def finish(harness: WorkerHarness, job_id: str) -> int:
    """Turns without faults until it has ended, leases running out between them; how many that took."""
    for turn in count():
        if harness.job(job_id).status.is_terminal:
            return turn
        assert turn < 3, "it ought to have ended by now"
        past = update(Job).where(Job.lease_expires_at.is_not(None)).values(lease_expires_at=1.0)
        harness.do(lambda session: session.execute(past))  # noqa: B023
        a_worker_s_turn(harness)
    raise AssertionError


def curve(harness: WorkerHarness, job_id: str) -> set[tuple[Any, ...]]:
    columns = select(Metric.key, Metric.step, Metric.epoch, Metric.value).where(Metric.job_id == job_id)
    with harness.database.read() as session:
        return set(session.execute(columns).tuples())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_succeeds_whichever_call_of_its_worker_fails(worker_harness, when):
    harness = worker_harness
    reference = harness.submit()
    assert finish(harness, reference) == 1
    faults = DatabaseFaults(harness.database, when)
    seen = set()
    every = 1 if harness.database.engine.dialect.name == "sqlite" else 5
    for number in range(1, MANY, every):
        job_id = harness.submit()
        with faults.fail_call(number), suppress(Exception):
            a_worker_s_turn(harness)
        seen.add(faults.failed_call)
        finish(harness, job_id)
        job = harness.job(job_id)
        context = f"call {number}, {faults.failed_call}, {when} it took effect"
        assert (job.status, job.end_reason) == (JobStatus.SUCCEEDED, "completed"), context
        assert curve(harness, job_id) == curve(harness, reference), context
        if not faults.failed_call:
            break
    assert number > 50 and {"do_execute", "do_commit"} <= seen
    expected = oracle.Expected(acknowledged=harness.rows(select(Job.id)))
    oracle.check(harness.database, harness.artifacts, expected)
    assert no_file_without_a_row(harness)


def no_file_without_a_row(harness: WorkerHarness) -> bool:
    keys = {
        path.relative_to(harness.artifacts.root).as_posix()
        for path in harness.artifacts.root.rglob("*")
        if path.is_file()
    }
    named = {row.key for table in (oracle.Checkpoint, oracle.Artifact) for row in harness.rows(select(table))}
    assert keys == named
    return True


@pytest.fixture
def client(template: Path, tmp_path: Path, url: str) -> Iterator[TestClient]:
    data = shutil.copytree(template, tmp_path / "api")
    app = create_app(Settings(data=data))
    with TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {(data / 'api-key').read_text().strip()}"
        settings = Settings(data=data, **SHORT)
        harness = WorkerHarness(settings, app.state.context.database)
        harness.add_dataset()
        ready = update(Dataset).values(status=DatasetStatus.READY, classes=["box"])
        harness.do(lambda session: session.execute(ready))
        yield client


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_post_repeated_under_its_key_is_one_job_whichever_call_fails(client, when):
    database = client.app.state.context.database
    faults = DatabaseFaults(database, when)
    for number in range(1, MANY):
        headers = {"Idempotency-Key": f"key-{number}"}
        with faults.fail_call(number):
            first = client.post("/jobs", json=SPEC, headers=headers)
        assert first.status_code in (201, 503), (number, faults.failed_call, first.text)
        again = client.post("/jobs", json=SPEC, headers=headers)
        assert again.status_code == 201
        assert first.status_code != 201 or first.json()["id"] == again.json()["id"]
        if not faults.failed_call:
            break
    assert number > 10
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == number
    oracle.check(database, None, oracle.Expected(unfinished=[]))
