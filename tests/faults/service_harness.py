"""Harness for a whole service: API and workers as processes, an HTTP client, and access to database and artifacts."""

import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import httpx2
import oracle
from oracle import Expected
from servers import ApiProcess, environment
from sqlalchemy import func, select, update
from waiting import until
from worker_harness import SHORT, STUB, WorkerHarness

from store.db.database import open_database
from store.db.tables import Dataset, Job
from store.initialise import initialise
from store.settings import Settings
from store.states import DatasetStatus, JobStatus

STUB_WORKER = Path(STUB[-1]).with_name("stub_worker.py")
LEASE = {"heartbeat_seconds": 0.5, "fence_seconds": 4, "lease_seconds": 6}
SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
RETRYABLE = (429, 500, 502, 503, 504, 507)
"""Status codes after which a client retries."""


class ServiceHarness:
    """A service with one data set, and the processes that the test starts for it."""

    def __init__(self, logs: Path, **settings: Any) -> None:
        """Initialise a service with these settings; by default database, broker and files lie in `logs/data`."""
        self.settings = Settings(**{"data": logs / "data", **SHORT, **LEASE, **settings})
        self.logs = logs
        initialise(self.settings)
        self.harness = WorkerHarness(self.settings, open_database(self.settings.database_url))
        self.harness.add_dataset()
        self.harness.do(
            lambda session: session.execute(update(Dataset).values(status=DatasetStatus.READY, classes=["box"]))
        )
        self.api = ApiProcess(self.settings, logs / "api.log")
        self._http = httpx2.Client(base_url=self.api.url, headers=self.api.headers, limits=httpx2.Limits())
        self.processes: list[subprocess.Popen[bytes]] = []
        self.status_codes: list[int] = []
        """Status code of every response; 0 for a request without a response."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self._http.close()
        self.harness.database.engine.dispose()
        until(lambda: self.harness.trainers() == [], 10)

    def start_api(self) -> subprocess.Popen[bytes]:
        """Start the API and wait until it answers."""
        self.api.start()
        assert self.api.process
        self.processes.append(self.api.process)
        return self.api.process

    def start_worker(self, **changes: Any) -> subprocess.Popen[bytes]:
        """Start a worker with these changes of the settings."""
        with (self.logs / f"{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, str(STUB_WORKER)],
                env=os.environ | environment(self.settings, **changes),
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def request(self, method: str, path: str, timeout: float = 60, **options: Any) -> httpx2.Response | None:
        """Return the response, or None without one."""
        try:
            response = self._http.request(method, path, timeout=timeout, **options)
        except httpx2.RequestError:
            self.status_codes.append(0)
            return None
        self.status_codes.append(response.status_code)
        return response

    def request_with_retry(self, method: str, path: str, seconds: float = 90, **options: Any) -> dict[str, Any]:
        """Return the body of the response; retry after a retryable status code or without a response."""
        deadline = time.monotonic() + seconds
        while True:
            response = self.request(method, path, **options)
            if response is not None and response.status_code not in RETRYABLE:
                assert response.is_success, response.text
                return response.json()
            assert time.monotonic() < deadline, "no request succeeded"
            time.sleep(0.2)

    def post(self, **options: object) -> str:
        """Post a job with these options of the stub trainer, under one idempotency key; return its id."""
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        return self.request_with_retry("POST", "/jobs", headers=headers, json=job_spec(**options))["id"]

    def until_ended(self, job_ids: Collection[str], seconds: float = 60) -> None:
        """Wait until all jobs have ended; the database may be unavailable meanwhile."""
        until(lambda: self._count_unended(job_ids) == 0, seconds)

    def assert_all_succeeded(self, job_ids: Sequence[str], losses: Sequence[float]) -> None:
        """Assert that each job has succeeded with these losses, and that every invariant holds."""
        oracle.check(self.harness.database, self.harness.artifacts, Expected(acknowledged=job_ids))
        for job_id in job_ids:
            job = self.harness.job(job_id)
            assert job.status == JobStatus.SUCCEEDED, (job_id, job.status, job.end_reason, job.error)
            assert self.harness.losses(job_id) == losses

    def assert_only_jobs(self, job_ids: Sequence[str]) -> None:
        """Assert that the database has these jobs and no other."""
        assert set(self.harness.rows(select(Job.id))) == set(job_ids)

    def _count_unended(self, job_ids: Collection[str]) -> int:
        """Return the number of these jobs that have not ended; -1 if the query fails."""
        terminal = [status for status in JobStatus if status.is_terminal]
        try:
            return (
                len(job_ids)
                - self.harness.rows(select(func.count()).where(Job.id.in_(job_ids), Job.status.in_(terminal)))[0]
            )
        except Exception:
            return -1


def job_spec(**options: object) -> dict[str, Any]:
    """Return the spec of a job with these options of the stub trainer."""
    return {**SPEC, "metadata": {name: str(value) for name, value in options.items()}}


def stub_losses(steps: int) -> list[float]:
    """Return the losses of an uninterrupted run of the stub trainer."""
    return list(accumulate(random.Random(f"0/{step}").random() for step in range(1, steps + 1)))
