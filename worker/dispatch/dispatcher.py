"""The thread that keeps a worker busy: looks for jobs in the database, broker or no broker, and takes back lost ones."""

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TypeVar

import structlog

from store.db.database import Database
from store.db.tables import Document
from store.jobs import lifecycle
from store.jobs.lease import Lease
from store.requests import worker_requests
from store.requests.worker_requests import RequestLease
from store.scheduling import worker_registry
from store.scheduling.queue import GpuCapacity
from store.settings import Settings
from worker.attempt.supervisor import Supervisor
from worker.attempt.worker_request import RequestRun
from worker.dispatch import reaper
from worker.dispatch.availability import Availability
from worker.dispatch.job_selector import JobSelector
from worker.dispatch.periodic_tasks import PeriodicTask
from worker.process import gpus
from worker.process.trainer import COMMAND

DEREGISTER_SECONDS = 10.0
"""Beyond `grace_seconds`: for what the trainers said last to be written down."""
MAX_POLL_SECONDS = 30.0
SWEEP_SECONDS = 600.0
"""Between looks for unpacked data sets that nobody needs any more."""
CLAIM_TRIES = 3
"""Where others have taken every job looked at, before the next look after a pause."""
T = TypeVar("T")
_log = structlog.get_logger()


@dataclass(frozen=True)
class Slot:
    """What runs in a slot."""

    run: Supervisor | RequestRun
    thread: threading.Thread
    gpus: Sequence[str]


class Dispatcher:
    def __init__(self, settings: Settings, database: Database, command: Sequence[str] = COMMAND) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.command = command
        self._settings, self._database = settings, database
        self._gpus = gpus.gpu_ids()
        self._slots = settings.concurrency or max(1, len(self._gpus))
        self._woken = threading.Event()
        self._availability = Availability(settings, tell=self.wake)
        self._selector = JobSelector(database, self._availability)
        self._chores = [
            PeriodicTask("sweeping", partial(reaper.remove_work_folders, settings, database), settings.reap_seconds),
            PeriodicTask("sweeping uploads", partial(reaper.remove_unused_uploads, settings, database), SWEEP_SECONDS),
        ]
        self._running: list[Slot] = []
        self._reap_at = self._check_in_at = 0.0
        self._told: list[Document] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look now: there may be a job, or a slot."""
        self._woken.set()

    def stop(self) -> None:
        """Claim no more and give back what runs; returns at once."""
        self._closing.set()
        self._woken.set()

    def join(self) -> None:
        """Waits for what `stop` began; what is not done after the grace period dies with this process."""
        if self._thread.is_alive():
            self._thread.join(self._settings.grace_seconds + DEREGISTER_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._turn()
                failures = 0
                self._show_life()
            except Exception as error:  # whatever the database does, this thread lives
                failures += 1
                _log.warning("dispatcher", error=f"{type(error).__name__}: {error}"[:500])
            self._woken.wait(self._pause(failures))
            self._woken.clear()
        self._availability.close()
        self._release()

    def _turn(self) -> None:
        self._check_in_when_due()
        if time.monotonic() >= self._reap_at:
            self._reap_at = time.monotonic() + self._settings.reap_seconds
            reaper.reap(self._database)
        for chore in self._chores:
            chore.begin_when_due()
        while not self._closing.is_set() and self._slots_free() and (held := self._claim()):
            self._running.append(held)
            held.thread.start()

    def _show_life(self) -> None:
        file = self._settings.heartbeat_file
        if file is not None:
            part = file.with_name(f"{file.name}.part")
            part.write_text(f"{int(time.clock_gettime(time.CLOCK_BOOTTIME))}\n")
            part.replace(file)

    def _check_in_when_due(self) -> None:
        """At once where it lacks something else than it told."""
        if time.monotonic() < self._check_in_at and self._availability.told() == self._told:
            return
        self._check_in_at = time.monotonic() + self._settings.heartbeat_seconds
        self._check_in(draining=False)
        self._selector.jobs(
            GpuCapacity(len(self._gpus), len(self._gpus))
        )  # to tell, though busy, what it will have to leave

    def _check_in(self, draining: bool) -> None:
        state, self._told = gpus.gpu_states(), self._availability.told()
        with self._database.write() as session:
            worker_registry.register(
                session,
                self.owner,
                host=socket.gethostname(),
                version=version("frs"),
                concurrency=self._slots,
                gpus=state,
                draining=draining,
                missing=self._told,
            )
            session.commit()

    def _slots_free(self) -> int:
        self._running = [held for held in self._running if held.thread.is_alive()]
        return self._slots - len(self._running)

    def _claim(self) -> Slot | None:
        """An worker_request before a job: it takes seconds."""
        taken = {gpu for held in self._running for gpu in held.gpus}
        free = [gpu for gpu in self._gpus if gpu not in taken]
        capacity = GpuCapacity(gpus=len(self._gpus), free=len(free))
        lease = self._claim_worker_request(capacity) or self._claim_job(capacity)
        if lease is None:
            return None
        needed = min(1, len(self._gpus)) if lease.devices is None else lease.devices
        return self._held(lease, free[:needed])

    def _claim_worker_request(self, capacity: GpuCapacity) -> RequestLease | None:
        return (
            self._claimed(worker_requests.claim, capacity, among)
            if (among := self._selector.worker_requests(capacity))
            else None
        )

    def _claim_job(self, capacity: GpuCapacity) -> Lease | None:
        for _ in range(CLAIM_TRIES):
            among = self._selector.jobs(capacity)
            if not among:
                return None
            lease = self._claimed(partial(lifecycle.claim, exclusions=self._selector.exclusions), capacity, among)
            if lease is not None:
                return lease
        return None

    def _claimed(self, claim: Callable[..., T], capacity: GpuCapacity, among: Sequence[str]) -> T:
        with self._database.write() as session:
            lease = claim(session, self.owner, self._settings.lease_seconds, capacity=capacity, among=among)
            session.commit()
        return lease

    def _held(self, lease: Lease | RequestLease, its_gpus: Sequence[str]) -> Slot:
        told = its_gpus if self._gpus else None
        run: Supervisor | RequestRun
        if isinstance(lease, Lease):
            run = Supervisor(self._database, self._settings, lease, self.command, told)
        else:
            run = RequestRun(self._database, self._settings, lease, self.command, told)
        thread = threading.Thread(target=self._to_its_end, args=[run], name=type(run).__name__.lower(), daemon=True)
        return Slot(run, thread, its_gpus)

    def _to_its_end(self, run: Supervisor | RequestRun) -> None:
        try:
            run.run()
        except Exception:  # the lease runs out, and somebody else takes it
            _log.exception("attempt abandoned")
        finally:
            self.wake()

    def _pause(self, failures: int) -> float:
        """At random around `poll_seconds`, so that workers do not ask all at once; longer after failures."""
        return min(MAX_POLL_SECONDS, self._settings.poll_seconds * 2 ** min(failures, 10)) * random.uniform(0.75, 1.25)

    def _release(self) -> None:
        self._tell_the_fleet(partial(self._check_in, draining=True))
        for held in self._running:
            held.run.release()
        until = time.monotonic() + self._settings.grace_seconds + DEREGISTER_SECONDS
        for held in self._running:
            held.thread.join(max(0, until - time.monotonic()))
        self._tell_the_fleet(self._check_out)

    def _check_out(self) -> None:
        with self._database.write() as session:
            worker_registry.deregister(session, self.owner)
            session.commit()

    def _tell_the_fleet(self, what: Callable[[], None]) -> None:
        """As a courtesy: where it cannot be told, silence will tell."""
        try:
            what()
        except Exception as error:
            _log.warning("fleet not told", error=type(error).__name__)
