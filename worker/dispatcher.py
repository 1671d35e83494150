"""The thread that keeps a worker busy: looks for jobs in the database, broker or no broker, and takes back lost ones."""

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import jobs
from store.database import Database
from store.lease import Lease
from store.settings import Settings
from store.states import JobStatus
from store.tables import Job
from worker import workfolder
from worker.supervisor import Supervisor
from worker.trainer import COMMAND

LAST_WORDS_SECONDS = 10.0
"""Beyond `grace_seconds`: for what the trainers said last to be written down."""
MAX_PAUSE = 30.0
_log = structlog.get_logger()


class Dispatcher:
    def __init__(self, settings: Settings, database: Database, command: Sequence[str] = COMMAND) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.command = command
        self._settings, self._database = settings, database
        self._running: list[tuple[Supervisor, threading.Thread]] = []
        self._reap_at = 0.0
        self._woken = threading.Event()
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
            self._thread.join(self._settings.grace_seconds + LAST_WORDS_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._turn()
                failures = 0
            except Exception as error:  # whatever the database does, this thread lives
                failures += 1
                _log.warning("dispatcher", error=f"{type(error).__name__}: {error}"[:500])
            self._woken.wait(self._pause(failures))
            self._woken.clear()
        self._release()

    def _turn(self) -> None:
        if time.monotonic() >= self._reap_at:
            self._reap_at = time.monotonic() + self._settings.reap_seconds
            self._reap()
        while not self._closing.is_set() and self._slots_free() and (lease := self._claim()):
            self._supervise(lease)

    def _reap(self) -> None:
        folders = workfolder.attempts(self._settings.work_root)
        with self._database.write() as session:
            lost, orphans = jobs.requeue_lost(session), jobs.fail_orphans(session)
            running = _running(session)
            session.commit()
        workfolder.sweep(self._settings.work_root, folders, running)
        if lost or orphans:
            _log.info("reaped", lost=lost, orphans=orphans)

    def _slots_free(self) -> int:
        self._running = [(supervisor, thread) for supervisor, thread in self._running if thread.is_alive()]
        return self._settings.slots - len(self._running)

    def _claim(self) -> Lease | None:
        with self._database.write() as session:
            lease = jobs.claim(session, self.owner, self._settings.lease_seconds)
            session.commit()
        return lease

    def _supervise(self, lease: Lease) -> None:
        supervisor = Supervisor(self._database, self._settings, lease, self.command)
        thread = threading.Thread(target=self._to_its_end, args=[supervisor], name="supervisor", daemon=True)
        self._running.append((supervisor, thread))
        thread.start()

    def _to_its_end(self, supervisor: Supervisor) -> None:
        try:
            supervisor.run()
        except Exception:  # the lease runs out, and somebody else takes the job
            _log.exception("attempt abandoned")
        finally:
            self.wake()

    def _pause(self, failures: int) -> float:
        """At random around `poll_seconds`, so that workers do not ask all at once; longer after failures."""
        return min(MAX_PAUSE, self._settings.poll_seconds * 2 ** min(failures, 10)) * random.uniform(0.75, 1.25)

    def _release(self) -> None:
        for supervisor, _ in self._running:
            supervisor.release()
        until = time.monotonic() + self._settings.grace_seconds + LAST_WORDS_SECONDS
        for _, thread in self._running:
            thread.join(max(0, until - time.monotonic()))


def _running(session: Session) -> list[tuple[str, int]]:
    query = select(Job.id, Job.attempt).where(Job.status == JobStatus.RUNNING)
    return [(row.id, row.attempt) for row in session.execute(query)]
