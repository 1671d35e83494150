"""Endpoint of the job queue."""

from fastapi import APIRouter

from api.context import ContextDep
from api.http.auth import Reader
from api.http.pagination import Cursor, Limit
from api.queue import service
from api.queue.schemas import Queue

router = APIRouter(prefix="/queue", tags=["queue"])


@router.get("")
def get_queue(context: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Queue:
    """List the queued jobs in the order in which workers take them, and the running jobs.

    Within a priority, owners take turns, each with its oldest job; the owner whose job started least recently is first.
    A job whose teacher is not trained yet, or that does not fit any worker's free GPUs, is skipped and keeps its
    position; the owner's next job takes the turn. Jobs that start between two requests move the others forward: a later
    page may then repeat jobs, but leaves none out.

    `empty_at` is an estimate: the time that running jobs have left, and for each queued job the median duration of
    its kind among the last 200 succeeded jobs, divided among the slots of the workers. Jobs of a kind without a
    succeeded job are left out; `empty_at_reason` names the kind. Failures and numbers of GPUs are ignored.
    """
    return service.read_queue(context.database, caller, limit, cursor)
