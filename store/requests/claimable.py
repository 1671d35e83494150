"""How much there is to claim for a worker of a given size, for schedulers that start workers."""

from sqlalchemy import Select, func, select

from store.requests import worker_requests
from store.scheduling import queue
from store.scheduling.queue import GpuCapacity


def claimable_count(capacity: GpuCapacity) -> Select[int]:
    """Return the query of the number of jobs and worker requests that an idle worker may claim.

    The files that jobs require are not considered: each worker checks those on its disks.
    """
    jobs = select(func.count()).select_from(queue.claimable(capacity).subquery()).scalar_subquery()
    requests = select(func.count()).select_from(worker_requests.claimable(capacity).subquery()).scalar_subquery()
    return select(jobs + requests)
