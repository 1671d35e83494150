"""Endpoint of the disk usage."""

from fastapi import APIRouter

from api.context import ContextDep
from api.http.auth import Reader
from api.usage import service
from api.usage.schemas import Usage

router = APIRouter(prefix="/usage", tags=["usage"])


@router.get("")
def get_usage(context: ContextDep, caller: Reader) -> Usage:
    """Return the disk space used by owner and kind of file, the owner's limit, and the free space of the disks.

    An admin receives all owners, largest first; others receive their own.
    """
    return service.get_usage(context, caller)
