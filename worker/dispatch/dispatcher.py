"""The main loop of a worker: claim jobs from the database, with or without a broker, and requeue lost ones."""

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from frs import __version__, published_weights
from store.db.database import Database
from store.db.tables import Document
from store.jobs import lifecycle
from store.jobs.lease import Lease
from store.reaper import Reaper
from store.requests import worker_requests
from store.requests.worker_requests import RequestLease
from store.scheduling import wakeups, worker_registry
from store.scheduling.queue import GpuCapacity
from store.scheduling.requirements import FREE_SPACE, imagenet_weights
from store.settings import Settings
from worker.attempt.supervisor import Supervisor
from worker.attempt.worker_request import RequestRun
from worker.dispatch import clean_up
from worker.dispatch.file_availability import FileAvailability
from worker.dispatch.job_selector import JobSelector
from worker.dispatch.periodic_tasks import PeriodicTask
from worker.dispatch.worker_name import take_name
from worker.process import gpus
from worker.process.trainer import COMMAND

DEREGISTER_SECONDS = 10.0
"""Time in addition to `grace_seconds` in which the last events of the trainers are recorded."""
MAX_POLL_SECONDS = 30.0
"""Longest pause between two polls of the database, after failures."""
SWEEP_SECONDS = 600.0
"""Interval of retention and of the removal of unpacked data sets that are no longer used."""
CLAIM_TRIES = 3
"""Selections in a row when other workers have claimed every candidate; then the dispatcher waits for the next poll."""
MAX_CHECK_SECONDS = 60.0
"""Time in addition to `Once.wait_seconds` in which file checks are awaited; a disk may hang."""
T = TypeVar("T")
_log = structlog.get_logger()


@dataclass(frozen=True)
class Slot:
    """A running attempt of a job or worker request: the run, its thread and its GPUs."""

    run: Supervisor | RequestRun
    thread: threading.Thread
    gpus: Sequence[str]


@dataclass(frozen=True)
class Once:
    """What a dispatcher may claim that ends after one job or worker request."""

    job_id: str | None = None
    """The only job that it claims; None allows every job and worker request."""
    wait_seconds: float = 0.0
    """Time after which the dispatcher ends if there was nothing to claim."""
    min_gpus: int = 0
    """It claims nothing that takes fewer GPUs."""
    nodes: int = 1
    """It claims jobs that run on as many hosts, this one and those that run `python -m frs join`."""


class Dispatcher:
    """Claims jobs and worker requests and runs each in a thread of its own.

    It owns the thread `dispatcher`, which alone uses the selector and the slots, and the threads of the slots. The
    public methods may be called from any thread and from signal handlers, except `join`. Errors of the database are
    logged and retried with backoff; nothing is raised.
    """

    def __init__(
        self, settings: Settings, database: Database, command: Sequence[str] = COMMAND, once: Once | None = None
    ) -> None:
        """With `once`, the dispatcher ends by itself after one job or worker request."""
        self._name = take_name(settings)
        self.owner = f"{self._name}:{os.getpid()}:{secrets.token_hex(4)}"
        """Id of this process in leases and in the worker registry; the worker's name survives a restart."""
        self.command = command
        """Command line of the engine, without its subcommand."""
        self._settings, self._database = settings, database
        self._gpus = gpus.gpu_ids()
        self._concurrency = settings.concurrency or max(1, len(self._gpus))
        self._wakeup = threading.Event()
        self._availability = FileAvailability(settings, on_change=self.wake)
        self._free_space = FileAvailability(settings, on_change=self.wake)
        """Checks `FREE_SPACE` in a thread of its own, which a hanging disk of data sets does not hold up."""
        self._imagenet = FileAvailability(settings, on_change=self.wake)
        """Checks all published ImageNet weights, since a plan reads the result before any job requires them."""
        self._imagenet_weights = [imagenet_weights(source, None) for source in published_weights.imagenet_sources()]
        self._selector = JobSelector(database, self._availability)
        remove_folders = partial(clean_up.remove_work_folders, settings, database)
        remove_uploads = partial(clean_up.remove_unused_uploads, settings, database)
        self._periodic_tasks = [
            PeriodicTask("remove work folders", remove_folders, settings.reap_seconds),
            PeriodicTask("remove unused uploads", remove_uploads, SWEEP_SECONDS),
            PeriodicTask("apply retention", partial(clean_up.remove_expired, settings, database), SWEEP_SECONDS),
            PeriodicTask("remove read wake-ups", partial(wakeups.remove_read, settings), SWEEP_SECONDS),
            PeriodicTask("end a killed backup", partial(clean_up.end_killed_backup, settings), SWEEP_SECONDS),
        ]
        self._slots: list[Slot] = []
        self._register_at = 0.0
        self._reaper = Reaper(settings, database)
        self._reported_missing: list[Document] = []
        self._once = once
        self._only_lease: Lease | RequestLease | None = None
        self._idle_polls = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread poll the database now, because there may be a job or a free slot."""
        self._wakeup.set()

    def stop(self) -> None:
        """Make the thread stop claiming and return the running jobs to the queue. Return at once."""
        self._stopping.set()
        self._wakeup.set()

    def join(self) -> None:
        """Wait for the end of the thread after `stop`. Attempts that outlast the grace period die with this process."""
        if self._thread.is_alive():
            self._thread.join(self._settings.grace_seconds + DEREGISTER_SECONDS)

    def wait_for_end(self) -> Lease | RequestLease | None:
        """Wait until the dispatcher has ended by itself or by `stop`; return its lease if it claimed something."""
        self._thread.join()
        return self._only_lease

    def missing_for_jobs(self) -> list[str]:
        """Return what this worker lacked for queued jobs when it registered last."""
        return [entry["message"] for entry in self._reported_missing if entry["owner"] is not None]

    def _run(self) -> None:
        started, failures = time.monotonic(), 0
        while not self._stopping.is_set():
            try:
                self._run_once()
                failures = 0
                self._write_heartbeat_file()
                if self._once and self._is_done(self._once, time.monotonic() - started):
                    break
            except Exception as error:  # the thread survives every error of the database
                failures += 1
                _log.warning("The dispatcher failed and will retry.", error=f"{type(error).__name__}: {error}"[:500])
            self._wakeup.wait(self._poll_delay(failures))
            self._wakeup.clear()
        self._availability.close()
        self._free_space.close()
        self._imagenet.close()
        self._shut_down()

    def _run_once(self) -> None:
        self._reaper.reap_when_due()  # first, so that the reaper notices every outage of the database
        self._register_when_due()
        for task in self._periodic_tasks:
            task.start_when_due()
        while not self._stopping.is_set() and self._free_slots() and (slot := self._claim()):
            self._slots.append(slot)
            slot.thread.start()

    def _is_done(self, once: Once, seconds: float) -> bool:
        """Return whether the only run has ended, or there was nothing to claim for the time to wait.

        Two polls in a row must find nothing, as a file check may have ended after the first.
        """
        if self._only_lease:
            return self._free_slots() == self._concurrency
        if seconds < once.wait_seconds + MAX_CHECK_SECONDS and self._availability.has_unchecked():
            self._idle_polls = 0
            return False
        self._idle_polls += 1
        return self._idle_polls > 1 and seconds >= once.wait_seconds

    def _write_heartbeat_file(self) -> None:
        file = self._settings.heartbeat_file
        if file is not None:
            part = file.with_name(f"{file.name}.part")
            part.write_text(f"{int(time.clock_gettime(time.CLOCK_BOOTTIME))}\n")
            part.replace(file)

    def _register_when_due(self) -> None:
        """Update the registry every `heartbeat_seconds`, and at once when the missing requirements have changed."""
        self._free_space.unmet([FREE_SPACE])  # a busy worker, too, checks and reports it
        self._imagenet.unmet(self._imagenet_weights)
        if time.monotonic() < self._register_at and self._missing() == self._reported_missing:
            return
        self._register_at = time.monotonic() + self._settings.heartbeat_seconds
        self._register(draining=False)
        # As if all GPUs were free: a busy worker, too, requests the checks of the jobs in the queue and reports them.
        self._selector.select_jobs(self._capacity(len(self._gpus)))

    def _register(self, draining: bool) -> None:
        gpu_states, self._reported_missing = gpus.gpu_states(), self._missing()
        with self._database.write() as session:
            worker_registry.register(
                session,
                self.owner,
                name=self._name,
                host=socket.gethostname(),
                version=__version__,
                concurrency=self._concurrency,
                gpus=gpu_states,
                nodes=self._capacity(0).nodes,
                draining=draining,
                missing=self._reported_missing,
            )
            session.commit()

    def _missing(self) -> list[Document]:
        imagenet = [] if self._imagenet.has_unchecked() else self._imagenet.report()
        return [*self._free_space.report(), *self._availability.report(), *imagenet]

    def _free_slots(self) -> int:
        self._slots = [slot for slot in self._slots if slot.thread.is_alive()]
        return self._concurrency - len(self._slots)

    def _claim(self) -> Slot | None:
        """Claim a worker request, which takes seconds, or else a job. Return None if there is nothing to claim."""
        if self._only_lease:
            return None
        used_gpus = {gpu for slot in self._slots for gpu in slot.gpus}
        free_gpus = [gpu for gpu in self._gpus if gpu not in used_gpus]
        capacity = self._capacity(len(free_gpus))
        lease = self._claim_worker_request(capacity) or self._claim_job(capacity)
        if lease is None:
            return None
        self._only_lease = lease if self._once else None
        devices = min(1, len(self._gpus)) if lease.devices is None else lease.devices
        return self._new_slot(lease, free_gpus[:devices])

    def _capacity(self, free: int) -> GpuCapacity:
        once = self._once or Once()
        return GpuCapacity(len(self._gpus), free, at_least=once.min_gpus, nodes=once.nodes)

    def _claim_worker_request(self, capacity: GpuCapacity) -> RequestLease | None:
        if self._once and self._once.job_id:
            return None
        candidates = self._selector.select_worker_requests(capacity)
        return self._claim_one_of(candidates, worker_requests.claim, capacity) if candidates else None

    def _claim_job(self, capacity: GpuCapacity) -> Lease | None:
        if self._free_space.unmet([FREE_SPACE]):
            return None
        for _ in range(CLAIM_TRIES):
            job_id = self._once.job_id if self._once else None
            candidates = self._selector.select_job(job_id) if job_id else self._selector.select_jobs(capacity)
            if not candidates:
                return None
            claim = partial(lifecycle.claim, exclusions=self._selector.exclusions())
            if (lease := self._claim_one_of(candidates, claim, capacity)) is not None:
                return lease
        return None

    def _claim_one_of(self, candidates: Sequence[str], claim: Callable[..., T], capacity: GpuCapacity) -> T:
        with self._database.write() as session:
            lease = claim(session, self.owner, self._settings.lease_seconds, capacity=capacity, among=candidates)
            session.commit()
        return lease

    def _new_slot(self, lease: Lease | RequestLease, assigned_gpus: Sequence[str]) -> Slot:
        visible_gpus = assigned_gpus if self._gpus else None
        run: Supervisor | RequestRun
        if isinstance(lease, Lease):
            run = Supervisor(self._database, self._settings, lease, self.command, visible_gpus)
        else:
            run = RequestRun(self._database, self._settings, lease, self.command, visible_gpus)
        thread = threading.Thread(target=self._run_slot, args=[run], name=type(run).__name__.lower(), daemon=True)
        return Slot(run, thread, assigned_gpus)

    def _run_slot(self, run: Supervisor | RequestRun) -> None:
        try:
            run.run()
        except Exception:  # the lease expires, and another attempt starts
            _log.exception("An attempt was abandoned.")
        finally:
            self.wake()

    def _poll_delay(self, failures: int) -> float:
        """Return a random delay around `poll_seconds`, so that workers do not poll all at once; longer after failures.

        The unit is seconds.
        """
        return min(MAX_POLL_SECONDS, self._settings.poll_seconds * 2 ** min(failures, 10)) * random.uniform(0.75, 1.25)

    def _shut_down(self) -> None:
        for slot in self._slots:  # before the registry: a trainer that got SIGTERM, too, would count as crashed
            slot.run.release()
        self._try_update_registry(partial(self._register, draining=True))
        until = time.monotonic() + self._settings.grace_seconds + DEREGISTER_SECONDS
        for slot in self._slots:
            slot.thread.join(max(0, until - time.monotonic()))
        self._try_update_registry(self._deregister)

    def _deregister(self) -> None:
        with self._database.write() as session:
            worker_registry.deregister(session, self.owner)
            session.commit()

    def _try_update_registry(self, update: Callable[[], None]) -> None:
        """Update the registry, best effort; otherwise the worker's registration expires."""
        try:
            update()
        except Exception as error:
            _log.warning("The worker registry could not be updated.", error=type(error).__name__)
