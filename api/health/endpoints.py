from fastapi import APIRouter

from api.context import ContextDep
from api.health import service
from api.health.schemas import Health, Version
from api.http.auth import Reader

router = APIRouter(tags=["health"])


@router.get("/health/live")
async def live() -> Health:
    """The process answers. Needs no key."""
    return Health()  # without a thread, of which none may be free


@router.get("/health/ready")
def ready(here: ContextDep) -> Health:
    """The database answers, too, and has the tables this version needs; 503 otherwise. Needs no key."""
    service.check(here.database)
    return Health()


@router.get("/version")
def version(_: Reader) -> Version:
    """Of the service and of what it speaks."""
    return service.version()
