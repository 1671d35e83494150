from fastapi import APIRouter, Response

from api.context import ContextDep
from api.http.auth import Admin
from api.http.pagination import Cursor, Limit
from api.http.schemas import KeyId, Page
from api.keys import service
from api.keys.schemas import Key, KeyCreate, NewKey

router = APIRouter(prefix="/api-keys", tags=["api-keys"])


@router.post("", status_code=201)
def create(here: ContextDep, _: Admin, response: Response, request: KeyCreate) -> NewKey:
    """Makes a key. Its token is in this answer and nowhere else."""
    key = service.create(here.database, request)
    response.headers["Location"] = f"/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return key


@router.get("")
def list_keys(here: ContextDep, _: Admin, limit: Limit = 50, cursor: Cursor = None) -> Page[Key]:
    """Newest first, with those that were revoked or have expired."""
    return service.listing(here.database, limit, cursor)


@router.get("/{key_id}")
def get_key(here: ContextDep, _: Admin, key_id: KeyId) -> Key:
    """Whose it is, what it opens and until when; never its token."""
    return service.find(here.database, key_id)


@router.delete("/{key_id}", status_code=204)
def revoke(here: ContextDep, _: Admin, key_id: KeyId) -> None:
    """Within a second nobody comes in with it any more; its owner's jobs go on. The last admin key stays."""
    service.revoke(here.database, key_id)
