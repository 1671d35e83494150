"""Endpoints of API keys."""

from fastapi import APIRouter, Response

from api.context import ContextDep
from api.http.auth import Admin
from api.http.idempotency import IdempotencyKey
from api.http.pagination import Cursor, Limit
from api.http.schemas import KeyId, Page
from api.keys import service
from api.keys.schemas import Key, KeyCreate, KeyRotation, NewKey

router = APIRouter(prefix="/api-keys", tags=["api-keys"])


@router.post("", status_code=201)
def create(
    context: ContextDep,
    caller: Admin,
    response: Response,
    request: KeyCreate,
    idempotency_key: IdempotencyKey = None,
) -> NewKey:
    """Create an API key. The response contains the token, which is not stored and cannot be retrieved later.

    A repeated request with the same `Idempotency-Key` creates nothing: 409 `already_created` with the id of the key.
    """
    key = service.create_key(context.database, caller, request, idempotency_key)
    response.headers["Location"] = f"/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return key


@router.get("")
def list_keys(context: ContextDep, _: Admin, limit: Limit = 50, cursor: Cursor = None) -> Page[Key]:
    """List all keys, newest first, including revoked and expired ones."""
    return service.list_keys(context.database, limit, cursor)


@router.get("/{key_id}")
def get_key(context: ContextDep, _: Admin, key_id: KeyId) -> Key:
    """Return the owner, scopes, limits and expiry time of a key, but not its token."""
    return service.get_key(context.database, key_id)


@router.post("/{key_id}/rotate", status_code=201)
def rotate(
    context: ContextDep,
    caller: Admin,
    response: Response,
    key_id: KeyId,
    request: KeyRotation,
    idempotency_key: IdempotencyKey = None,
) -> NewKey:
    """Create a key with the same name, owner, scopes and limits, and let the old one expire after a grace period.

    Until then both are valid, so that clients can change over without downtime. A repeated request with the same
    `Idempotency-Key` creates nothing: 409 `already_created` with the id of the new key.
    """
    key = service.rotate_key(context.database, caller, key_id, request, idempotency_key)
    response.headers["Location"] = f"/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return key


@router.delete("/{key_id}", status_code=204)
def revoke(context: ContextDep, caller: Admin, key_id: KeyId) -> None:
    """Revoke a key. Idempotent.

    Requests with the key are rejected within a second. The jobs of its owner continue. The last valid admin key cannot
    be revoked (409).
    """
    service.revoke_key(context.database, caller, key_id)
