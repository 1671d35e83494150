from fastapi import APIRouter

from api.context import ContextDep
from api.http.auth import Reader
from api.http.schemas import Page
from api.workers import service
from api.workers.schemas import Worker

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("")
def list_workers(here: ContextDep, caller: Reader) -> Page[Worker]:
    """Those that were heard of within the last minute, on one page, the oldest first."""
    return service.listing(here.database, caller)
