"""The client: the resources of the API, and the calls that have none."""

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from frs_client.aio.datasets import AsyncDatasets
from frs_client.aio.detectors import AsyncDetectors
from frs_client.aio.jobs import AsyncJobs
from frs_client.aio.keys import AsyncKeys
from frs_client.aio.sweeps import AsyncSweeps
from frs_client.aio.transport import AsyncTransport
from frs_client.aio.webhooks import AsyncWebhooks
from frs_client.answers import body_of, parse
from frs_client.models import (
    AuditEntry,
    CleanRequest,
    CleanResult,
    Health,
    Queue,
    Recipe,
    SideBySide,
    Usage,
    Version,
    Worker,
)
from frs_client.requests import PAGE_ROWS, time_text


class AsyncClient(AsyncTransport):
    """A client of the service.

    An absent `url` is `FRS_URL`, an absent `api_key` is `FRS_API_KEY`; if these are not set, they are those that
    `frs up` wrote to its data folder: `data`, `FRS_DATA` or `./data`. `timeout` limits each answer, in seconds.

    Calls raise ServiceError: ApiError if the service returns an error (`code`, `hint`, `errors`), NoAnswer if it does
    not answer. Requests whose connection breaks are sent again if the service then carries them out once; requests
    that are refused for now are sent again after the time that the service names, for a minute at most.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        data: Path | None = None,
        timeout: float = 60.0,
    ) -> None:
        super().__init__(url, api_key, data=data, timeout=timeout)
        self.jobs = AsyncJobs(self)
        self.datasets = AsyncDatasets(self)
        self.detectors = AsyncDetectors(self)
        self.sweeps = AsyncSweeps(self)
        self.keys = AsyncKeys(self)
        self.webhooks = AsyncWebhooks(self)

    async def health(self) -> Health:
        """Return the health of the service. Raises ApiError, status 503, if its database does not respond."""
        return parse(Health, await self._request("GET", "/health/ready", is_patient=False))

    async def version(self) -> Version:
        """Return the version of the service."""
        return parse(Version, await self.get("/version"))

    async def queue(self, limit: int = 50) -> Queue:
        """Return the first `limit` (1 to 200) queued jobs in the order they will run, and the running jobs."""
        return parse(Queue, await self.get("/queue", limit=limit))

    async def workers(self) -> AsyncIterator[Worker]:
        """Yield the registered workers, their GPUs and their running jobs."""
        async for row in self.each("/workers"):
            yield parse(Worker, row)

    async def usage(self) -> Usage:
        """Return the disk space used by owner and kind of file, and the free space of the disks, in bytes."""
        return parse(Usage, await self.get("/usage"))

    async def compare(self, job_ids: Collection[str], keys: Collection[str] | None = None) -> SideBySide:
        """Compare 2 to 16 jobs: differences of their specs, curves of the metrics `keys`, last evaluations."""
        query = {"jobs": ",".join(job_ids), "keys": None if keys is None else ",".join(keys)}
        return parse(SideBySide, await self.get("/compare", **query))

    async def recipes(self) -> AsyncIterator[Recipe]:
        """Yield the built-in specs, with the mAP that their papers report."""
        async for row in self.each("/recipes"):
            yield parse(Recipe, row)

    async def clean(self, request: CleanRequest | Mapping[str, Any]) -> CleanResult:
        """Remove old jobs, checkpoints or metrics, or report what would be removed (`dry_run`).

        One request handles up to 500 run groups; send it again with `after` = `next_after` until that is None.
        """
        return parse(CleanResult, await self.post("/clean", body_of(request)))

    async def audit(
        self,
        *,
        owner: str | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[AuditEntry]:
        """Yield what users changed, newest first. Needs a key with the scope `admin`.

        `owner` is that of the key, `action` such as `job.cancel`, `target` an id. Times without a zone are local.
        """
        filters = {"owner": owner, "action": action, "target": target}
        rows = self.each("/audit", **filters, since=time_text(since), until=time_text(until), limit=PAGE_ROWS)
        async for row in rows:
            yield parse(AuditEntry, row)
