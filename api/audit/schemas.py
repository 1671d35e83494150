"""Response schema of the audit trail."""

from typing import Any

from api.http.schemas import ResponseModel, ResponseTime


class AuditEntry(ResponseModel):
    """A change that a user requested."""

    id: str
    at: ResponseTime
    action: str
    """What was done, such as `job.cancel`, `dataset.delete` or `key.create`."""
    target: str | None
    """Id of the changed object, which may have been deleted since."""
    owner: str | None
    """Owner of the API key that requested the change."""
    key_id: str | None
    address: str | None
    """Network address of the client."""
    request_id: str | None
    """`X-Request-Id` of the request, also in the log."""
    details: dict[str, Any]
    """Arguments of the action; never a secret."""
