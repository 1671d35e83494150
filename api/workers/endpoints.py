"""Endpoint of the workers."""

from fastapi import APIRouter

from api.context import ContextDep
from api.http.auth import Reader
from api.http.schemas import Page
from api.workers import service
from api.workers.schemas import Worker

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("")
def list_workers(context: ContextDep, caller: Reader) -> Page[Worker]:
    """List the workers with a heartbeat in the last minute, oldest first, on one page."""
    return service.list_workers(context.database, caller)
