"""Endpoints of health checks and of the version."""

from fastapi import APIRouter

from api.context import ContextDep
from api.health import service
from api.health.schemas import Health, Version
from api.http.auth import Reader

router = APIRouter(tags=["health"])


@router.get("/health/live")
async def live() -> Health:
    """Return 200 if the process responds. Requires no key."""
    return Health()  # an async endpoint, because all threads may be in use


@router.get("/health/ready")
def ready(context: ContextDep) -> Health:
    """Return 200 if the database responds and has the tables of this version, else 503. Requires no key."""
    service.check_database(context.database)
    return Health()


@router.get("/version")
def version(_: Reader) -> Version:
    """Return the versions of the service and of Python."""
    return service.get_version()
