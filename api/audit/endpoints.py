"""Endpoint of the audit trail."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.audit import service
from api.audit.schemas import AuditEntry
from api.context import ContextDep
from api.http.auth import Admin
from api.http.pagination import Cursor, Limit
from api.http.schemas import Page, RequestTime

router = APIRouter(tags=["monitoring"])


@router.get("/audit")
def list_audit_entries(
    context: ContextDep,
    _: Admin,
    limit: Limit = 50,
    cursor: Cursor = None,
    owner: Annotated[str | None, Query(max_length=100, description="Only changes by keys of this owner.")] = None,
    action: Annotated[str | None, Query(max_length=100, description="Only this action, such as `job.cancel`.")] = None,
    target: Annotated[str | None, Query(max_length=100, description="Only changes of the object of this id.")] = None,
    since: Annotated[RequestTime | None, Query(description="Only changes from this time on.")] = None,
    until: Annotated[RequestTime | None, Query(description="Only changes before this time.")] = None,
) -> Page[AuditEntry]:
    """List the changes that users requested, newest first: who changed what, from which address, with which request.

    Entries are inserted in the transaction of the change; they are never changed or deleted.
    """
    audit_filter = service.AuditFilter(owner, action, target, since, until)
    return service.list_entries(context.database, audit_filter, limit, cursor)
