from fastapi import APIRouter

from api.context import ContextDep
from api.http.auth import Reader
from api.http.pagination import Cursor, Limit
from api.queue import service
from api.queue.schemas import Queue

router = APIRouter(prefix="/queue", tags=["queue"])


@router.get("")
def get_queue(here: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Queue:
    """The line: who is next, and what each waits for; beside it what is running.

    By priority, then age. A job whose teacher is not there yet, or that no worker has room for, is passed over until
    then and keeps its place.
    """
    return service.read(here.database, caller, limit, cursor)
