"""Take back the jobs of workers that failed, and continue sweeps.

Workers and API processes reap, so that one living process suffices.
"""

import logging
import time

from store.db.database import Database
from store.jobs import lifecycle
from store.requests import worker_requests
from store.settings import Settings
from store.sweeps.advance import advance_all

_log = logging.getLogger(__name__)


class Reaper:
    """Requeues jobs with an expired lease and advances sweeps every `reap_seconds`. Only one thread may use it.

    While the database is unavailable, no worker can renew its lease. After such an outage the reaper therefore waits
    two heartbeats, in which living workers renew their leases or return their jobs.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._due_at = 0.0
        self._failed = False

    def reap_when_due(self) -> None:
        """Reap if it is due. Raises the errors of the database; the next call is the retry."""
        if time.monotonic() < self._due_at:
            return
        try:
            if self._failed:
                self._wait_after_outage()
            else:
                self._due_at = time.monotonic() + self._settings.reap_seconds
                reap(self._database)
                advance_all(self._database, self._settings)
        except Exception:
            self._failed, self._due_at = True, 0.0
            raise

    def _wait_after_outage(self) -> None:
        with self._database.read() as session:
            session.connection()
        self._failed = False
        self._due_at = time.monotonic() + 2 * self._settings.heartbeat_seconds


def reap(database: Database) -> None:
    """Requeue jobs with an expired lease, fail dependents of failed jobs, delete old requests. Uses no disk."""
    with database.write() as session:
        lost, orphans = lifecycle.requeue_expired(session), lifecycle.fail_dependents(session)
        worker_requests.delete_old(session)
        session.commit()
    if lost or orphans:
        _log.info("Jobs were reaped. Requeued: %s. Failed with the job they depend on: %s.", lost, orphans)
