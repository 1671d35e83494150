# Written by `make client` from aio/sweeps.py: change that file.
"""`client.sweeps`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from frs_client.answers import body_of, parse
from frs_client.models import Sweep, SweepDetails, SweepSpec
from frs_client.requests import PAGE_ROWS, path_of
from frs_client.sync.transport import Transport

POLL_SECONDS = 5.0
ACTIVE = ("searching", "confirming")


class Sweeps:
    """Sweeps: a search over fields of a spec, with a verdict over seeds that took no part in the choice."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(self, sweep: SweepSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Sweep:
        """Start a sweep, such as `{"spec": spec, "space": {"distillation.feature_ratio": [10, 30, 100]}}`.

        Every setting is checked before the first job is posted. The service carries the request out once: see
        `jobs.submit`.
        """
        return parse(Sweep, self._client.post("/sweeps", body_of(sweep), key=idempotency_key))

    def list(self) -> Iterator[Sweep]:
        """Yield the sweeps, newest first."""
        for row in self._client.each("/sweeps", limit=PAGE_ROWS):
            yield parse(Sweep, row)

    def get(self, sweep_id: str) -> SweepDetails:
        """Return a sweep: its trials, `table` of settings by rank, `best` one, and `confirmation` with the verdict."""
        return parse(SweepDetails, self._client.get(path_of("sweeps", sweep_id)))

    def wait(self, sweep_id: str, timeout: float = math.inf) -> SweepDetails:
        """Wait until the sweep is not active any more and return it: it has succeeded, failed or was stopped.

        Raises TimeoutError after `timeout` seconds; the sweep then continues.
        """
        for answer in self._client.poll(path_of("sweeps", sweep_id), POLL_SECONDS, timeout):
            sweep = parse(SweepDetails, answer)
            if sweep.status not in ACTIVE:
                return sweep
        raise TimeoutError(f"The sweep {sweep_id} has not ended in time.")

    def stop(self, sweep_id: str) -> Sweep:
        """Stop a sweep: no more jobs are posted, and those that have not ended are paused."""
        return parse(Sweep, self._client.post(path_of("sweeps", sweep_id, "stop")))

    def resume(self, sweep_id: str) -> Sweep:
        """Continue a sweep that was stopped or has failed."""
        return parse(Sweep, self._client.post(path_of("sweeps", sweep_id, "resume")))

    def delete(self, sweep_id: str) -> None:
        """Delete a sweep that is not active. Its jobs are kept; those that have not ended are cancelled."""
        self._client.delete(path_of("sweeps", sweep_id))
