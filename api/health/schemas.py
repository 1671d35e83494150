"""Response schemas of health checks and of the version."""

from typing import Literal

from api.http.schemas import ResponseModel


class Health(ResponseModel):
    """Result of a successful health check."""

    status: Literal["ok"] = "ok"


class Version(ResponseModel):
    """Versions in use."""

    frs: str
    """Version of the service."""
    python: str
    """Version of Python."""
