"""A whole service: the API and workers as processes of their own, a user who asks over HTTP, a look behind the scenes."""

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
from servers import free_port
from sqlalchemy import func, select, update
from worker_harness import SHORT, STUB, WorkerHarness, until

from store.db.database import open_database
from store.db.tables import Dataset, Job
from store.initialise import initialise
from store.settings import Settings
from store.states import DatasetStatus, JobStatus

STUB_WORKER = Path(STUB[-1]).with_name("stub_worker.py")
ROOT = Path(__file__).parents[2]
LEASE = {"heartbeat_seconds": 0.5, "fence_seconds": 4, "lease_seconds": 6}
SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
PASSING = (429, 500, 502, 503, 504, 507)
"""What a client tries again."""


class ServiceHarness:
    def __init__(self, logs: Path, **settings: Any) -> None:
        """On SQLite, with the broker and everything else in a data folder, unless the settings say otherwise."""
        self.settings = Settings(**{"data": logs / "data", **SHORT, **LEASE, **settings})
        self.logs = logs
        initialise(self.settings)
        self.harness = WorkerHarness(self.settings, open_database(self.settings.database_url))
        self.harness.add_dataset()
        self.harness.do(
            lambda session: session.execute(update(Dataset).values(status=DatasetStatus.READY, classes=["box"]))
        )
        self.port = free_port()
        key = self.settings.api_key_file.read_text().strip()
        self._http = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {key}"}, limits=httpx2.Limits()
        )
        self.children: list[subprocess.Popen[bytes]] = []
        self.answers: list[int] = []
        """Status of every answer so far; 0 for none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        self._http.close()
        self.harness.database.engine.dispose()
        until(lambda: self.harness.trainers() == [], 10)

    def api(self) -> subprocess.Popen[bytes]:
        process = self._start(sys.executable, "-m", "api", "--port", str(self.port))
        until(lambda: self.ask("GET", "/health/ready") is not None, 30)
        return process

    def worker(self, **changes: Any) -> subprocess.Popen[bytes]:
        return self._start(sys.executable, str(STUB_WORKER), **changes)

    def ask(self, method: str, path: str, timeout: float = 60, **request: Any) -> httpx2.Response | None:
        """None: no answer."""
        try:
            answer = self._http.request(method, path, timeout=timeout, **request)
        except httpx2.RequestError:
            self.answers.append(0)
            return None
        self.answers.append(answer.status_code)
        return answer

    def patiently(self, method: str, path: str, seconds: float = 90, **request: Any) -> dict[str, Any]:
        """As a careful user's client: tries again what may pass."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.ask(method, path, **request)
            if answer is not None and answer.status_code not in PASSING:
                assert answer.is_success, answer.text
                return answer.json()
            assert time.monotonic() < deadline, "nothing but refusals"
            time.sleep(0.2)

    def post(self, **requested_actions: object) -> str:
        """The id of an acknowledged job, asked for under one Idempotency-Key until it was."""
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        return self.patiently("POST", "/jobs", headers=headers, json=spec(**requested_actions))["id"]

    def until_ended(self, job_ids: Collection[str], seconds: float = 60) -> None:
        """As the database says, which may be away meanwhile."""
        until(lambda: self._unended(job_ids) == 0, seconds)

    def all_is_well(self, job_ids: Sequence[str], losses: Sequence[float]) -> None:
        """Each acknowledged job has succeeded, with these losses, and every invariant holds."""
        oracle.check(self.harness.database, self.harness.artifacts, Expected(acknowledged=job_ids))
        for job_id in job_ids:
            job = self.harness.job(job_id)
            assert job.status == JobStatus.SUCCEEDED, (job_id, job.status, job.end_reason, job.error)
            assert self.harness.losses(job_id) == losses

    def no_jobs_but(self, job_ids: Sequence[str]) -> None:
        assert set(self.harness.rows(select(Job.id))) == set(job_ids)

    def _unended(self, job_ids: Collection[str]) -> int:
        ended = [status for status in JobStatus if status.is_terminal]
        try:
            return (
                len(job_ids)
                - self.harness.rows(select(func.count()).where(Job.id.in_(job_ids), Job.status.in_(ended)))[0]
            )
        except Exception:
            return -1

    def _start(self, *command: str, **changes: Any) -> subprocess.Popen[bytes]:
        told = self.settings.model_dump(exclude_unset=True) | changes
        environment = (
            os.environ | {"PYTHONPATH": str(ROOT)} | {f"FRS_{name.upper()}": str(value) for name, value in told.items()}
        )
        with (self.logs / f"{len(self.children)}.log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.children.append(process)
        return process


def spec(**requested_actions: object) -> dict[str, Any]:
    return {**SPEC, "metadata": {name: str(value) for name, value in requested_actions.items()}}


def losses_of(steps: int) -> list[float]:
    """Of an undisturbed run of the stub."""
    return list(accumulate(random.Random(f"0/{step}").random() for step in range(1, steps + 1)))
