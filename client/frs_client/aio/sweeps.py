"""`client.sweeps`."""

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

from frs_client.aio.transport import AsyncTransport
from frs_client.answers import body_of, parse
from frs_client.models import Sweep, SweepDetails, SweepSpec
from frs_client.requests import PAGE_ROWS, path_of

POLL_SECONDS = 5.0
ACTIVE = ("searching", "confirming")


class AsyncSweeps:
    """Sweeps: a search over fields of a spec, with a verdict over seeds that took no part in the choice."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def create(self, sweep: SweepSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Sweep:
        """Start a sweep, such as `{"spec": spec, "space": {"distillation.feature_ratio": [10, 30, 100]}}`.

        Every setting is checked before the first job is posted. The service carries the request out once: see
        `jobs.submit`.
        """
        return parse(Sweep, await self._client.post("/sweeps", body_of(sweep), key=idempotency_key))

    async def list(self) -> AsyncIterator[Sweep]:
        """Yield the sweeps, newest first."""
        async for row in self._client.each("/sweeps", limit=PAGE_ROWS):
            yield parse(Sweep, row)

    async def get(self, sweep_id: str) -> SweepDetails:
        """Return a sweep: its trials, `table` of settings by rank, `best` one, and `confirmation` with the verdict."""
        return parse(SweepDetails, await self._client.get(path_of("sweeps", sweep_id)))

    async def wait(self, sweep_id: str, timeout: float = math.inf) -> SweepDetails:
        """Wait until the sweep is not active any more and return it: it has succeeded, failed or was stopped.

        Raises TimeoutError after `timeout` seconds; the sweep then continues.
        """
        async for answer in self._client.poll(path_of("sweeps", sweep_id), POLL_SECONDS, timeout):
            sweep = parse(SweepDetails, answer)
            if sweep.status not in ACTIVE:
                return sweep
        raise TimeoutError(f"The sweep {sweep_id} has not ended in time.")

    async def stop(self, sweep_id: str) -> Sweep:
        """Stop a sweep: no more jobs are posted, and those that have not ended are paused."""
        return parse(Sweep, await self._client.post(path_of("sweeps", sweep_id, "stop")))

    async def resume(self, sweep_id: str) -> Sweep:
        """Continue a sweep that was stopped or has failed."""
        return parse(Sweep, await self._client.post(path_of("sweeps", sweep_id, "resume")))

    async def delete(self, sweep_id: str) -> None:
        """Delete a sweep that is not active. Its jobs are kept; those that have not ended are cancelled."""
        await self._client.delete(path_of("sweeps", sweep_id))
