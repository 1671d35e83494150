"""Slurm starts the workers: each job succeeds exactly once, whatever Slurm does to tasks and nodes."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from servers import environment
from service_harness import STUB_WORKER, ServiceHarness, stub_losses
from slurm_cluster import CPUS, SlurmCluster
from sqlalchemy import select
from waiting import until

from frs.dataset.shapes.drawing import draw_dataset
from store.db.tables import Attempt, Job
from store.states import AttemptEnd, JobStatus

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
STEPS = 40
MAX_TASKS = 6
TIMEOUT_SECONDS = 300
"""Seconds to wait on a busy machine, where a worker takes a minute to start."""
LONG, SECONDS = 300, 0.02
"""Steps and seconds per step of a job that Slurm interrupts."""


class Submitter:
    """`python -m worker.slurm` on the cluster, for one service; its tasks run the stub trainer by default."""

    def __init__(self, cluster: SlurmCluster, service: ServiceHarness, worker: str = str(STUB_WORKER)) -> None:
        """`worker` are the arguments of Python that start a worker."""
        self._cluster, self._service, self._worker = cluster, service, worker
        self._name = f"t{secrets.token_hex(4)}"
        self.tasks_name = f"{self._name}-0gpu"

    @contextmanager
    def running(self, *sbatch: str, gpus: str = "0") -> Iterator[subprocess.Popen[bytes]]:
        """Run the submitter with these options of sbatch; it ends with the block."""
        logs = self._service.logs
        options = ["--name", self._name, "--gpus", gpus, "--max-tasks", str(MAX_TASKS), "--poll", "0.5"]
        resources = ["--cpus-per-task=1", "--mem=0", f"--output={logs}/task-%A_%a.log"]
        command = [sys.executable, "-m", "worker.slurm", *options, "--", *resources, *sbatch]
        with (logs / "submitter.log").open("a") as log:
            process = subprocess.Popen(command, env=self._environment(), stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def task_of(self, job_id: str) -> str:
        """Return the id of the task that runs the job."""
        worker = self._lease_owner(job_id).partition(":")[0]
        return worker.removeprefix("slurm-").replace("-", "_")

    def worker_of(self, job_id: str) -> int:
        """Return the process id of the worker that runs the job."""
        return int(self._lease_owner(job_id).split(":")[1])

    def assert_succeeded(self, job_ids: Sequence[str], steps: int) -> None:
        """Wait until Slurm has no task left; assert that every invariant holds and that no process is left."""
        until(lambda: not self._cluster.tasks(self.tasks_name), TIMEOUT_SECONDS, self._cluster.logs)
        self._service.assert_all_succeeded(job_ids, stub_losses(steps))
        self._service.assert_only_jobs(job_ids)
        assert self._service.harness.trainers() == []

    def _lease_owner(self, job_id: str) -> str:
        return self._service.harness.job(job_id).lease_owner or ""

    def _environment(self) -> dict[str, str]:
        settings = self._service.settings.model_copy(update={"broker_url": "redis://nowhere.invalid"})
        command = {"WORKER_COMMAND": f"{sys.executable} {self._worker}"}
        return self._cluster.environment | environment(settings) | command


@pytest.fixture
def submitter(cluster: SlurmCluster, service: ServiceHarness) -> Submitter:
    return Submitter(cluster, service)


def test_twenty_jobs_succeed_once_although_the_submitter_is_killed(
    cluster: SlurmCluster, service: ServiceHarness, submitter: Submitter
) -> None:
    jobs = [service.harness.submit(steps=STEPS) for _ in range(20)]
    with submitter.running() as first:
        until(lambda: len(cluster.tasks(submitter.tasks_name)) >= CPUS, TIMEOUT_SECONDS)
        first.kill()
    numbers = []
    with submitter.running():
        until(lambda: numbers.append(len(cluster.tasks(submitter.tasks_name))) or ended(service, jobs), TIMEOUT_SECONDS)
    assert max(numbers) <= MAX_TASKS
    submitter.assert_succeeded(jobs, STEPS)
    assert [service.harness.job(job_id).attempt for job_id in jobs] == [1] * 20


def test_two_real_jobs_train_in_tasks_of_their_own(cluster: SlurmCluster, service: ServiceHarness) -> None:
    draw_dataset(service.settings.datasets_root / "drawn", train=8, val=4, size=96)
    service.start_api()
    service.request_with_retry("POST", "/datasets", json={"name": "drawn"})
    jobs = [service.request_with_retry("POST", "/jobs", json=real_job(seed))["id"] for seed in range(2)]
    with Submitter(cluster, service, "-m worker").running():
        until(lambda: ended(service, jobs), TIMEOUT_SECONDS)
    rows = [service.harness.job(job_id) for job_id in jobs]
    assert [(row.status, row.end_reason, row.attempt) for row in rows] == [("succeeded", "completed", 1)] * 2
    assert len({attempt.owner for job_id in jobs for attempt in attempts(service, job_id)}) == 2
    assert service.harness.trainers() == []


def real_job(seed: int) -> dict[str, Any]:
    tiny = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8, "norm": "gn"}, "neck_channels": 16}
    schedule = {"epochs": 1, "batch_size": 4, "image_size": [96, 96], "seed": seed}
    return {"kind": "train", "dataset": "drawn", "student": tiny | {"stacked_convs": 1}, "schedule": schedule}


@pytest.mark.parametrize("options", [(), ("--batch", "--signal=TERM")], ids=["scancel", "sigterm"])
def test_a_cancelled_task_returns_its_job_with_a_checkpoint(
    cluster: SlurmCluster, service: ServiceHarness, submitter: Submitter, options: tuple[str, ...]
) -> None:
    job_id = service.harness.submit(steps=LONG, seconds=SECONDS)
    with submitter.running():
        service.harness.until_step(job_id, 20, TIMEOUT_SECONDS)
        cluster.run("scancel", *options, submitter.task_of(job_id))
        until(lambda: ended(service, [job_id]), TIMEOUT_SECONDS)
    submitter.assert_succeeded([job_id], LONG)
    first, second = attempts(service, job_id)
    assert (first.end, second.end) == (AttemptEnd.RELEASED, AttemptEnd.SUCCEEDED)
    assert second.start_step >= 20


def test_a_job_for_a_gpu_gets_a_task_with_one(
    cluster: SlurmCluster, service: ServiceHarness, submitter: Submitter
) -> None:
    job_id = service.harness.submit(steps=LONG, seconds=SECONDS)
    with submitter.running(gpus="1,2"):
        service.harness.until_step(job_id, 5, TIMEOUT_SECONDS)
        assert "gres:gpu:1" in cluster.run("squeue", f"--jobs={submitter.task_of(job_id)}", "--noheader", "--format=%b")
        until(lambda: ended(service, [job_id]), TIMEOUT_SECONDS)
    submitter.assert_succeeded([job_id], LONG)


def test_jobs_of_a_drained_and_failed_node_continue_once_it_is_back(
    cluster: SlurmCluster, service: ServiceHarness, submitter: Submitter
) -> None:
    jobs = [service.harness.submit(steps=LONG, seconds=SECONDS) for _ in range(CPUS + 2)]
    with submitter.running():
        until(lambda: len(running(service)) == CPUS, TIMEOUT_SECONDS)
        started = running(service)
        cluster.set_node("drain")
        until(lambda: ended(service, started), TIMEOUT_SECONDS)
        assert {service.harness.job(job_id).status for job_id in jobs if job_id not in started} == {"queued"}
        cluster.set_node("resume")
        until(lambda: running(service), TIMEOUT_SECONDS)
        cluster.set_node("down")
        cluster.set_node("resume")
        until(lambda: ended(service, jobs), TIMEOUT_SECONDS)
    submitter.assert_succeeded(jobs, LONG)


def test_a_killed_step_daemon_loses_no_job(
    cluster: SlurmCluster, service: ServiceHarness, submitter: Submitter
) -> None:
    job_id = service.harness.submit(steps=LONG, seconds=SECONDS)
    with submitter.running():
        service.harness.until_step(job_id, 20, TIMEOUT_SECONDS)
        task = submitter.task_of(job_id)
        os.kill(cluster.step_daemon_of(submitter.worker_of(job_id)), signal.SIGKILL)
        until(lambda: ended(service, [job_id]), TIMEOUT_SECONDS)
    cluster.run("scancel", task)  # Slurm itself notices only minutes later
    submitter.assert_succeeded([job_id], LONG)


@pytest.mark.parametrize(
    ("sent", "end"), [("TERM", AttemptEnd.RELEASED), ("KILL", AttemptEnd.LOST)], ids=["warned", "killed"]
)
def test_a_job_longer_than_the_time_limit_continues_in_another_task(
    cluster: SlurmCluster, service: ServiceHarness, submitter: Submitter, sent: str, end: AttemptEnd
) -> None:
    steps = 2000  # more than 32 s, as Slurm looks for expired limits every 30 s
    job_id = service.harness.submit(steps=steps, seconds=SECONDS)
    with submitter.running("--time=1", f"--signal=B:{sent}@58"):
        until(lambda: [attempt for attempt in attempts(service, job_id) if attempt.end], TIMEOUT_SECONDS)
    with submitter.running():
        until(lambda: ended(service, [job_id]), TIMEOUT_SECONDS)
    submitter.assert_succeeded([job_id], steps)
    first, *_, last = attempts(service, job_id)
    assert first.end == end and last.start_step > 0


def ended(service: ServiceHarness, job_ids: Sequence[str]) -> bool:
    return all(service.harness.job(job_id).status.is_terminal for job_id in job_ids)


def running(service: ServiceHarness) -> list[str]:
    return list(service.harness.rows(select(Job.id).where(Job.status == JobStatus.RUNNING)))


def attempts(service: ServiceHarness, job_id: str) -> list[Attempt]:
    return list(service.harness.rows(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))
