"""The audit trail: which key requested which change. Triggers of the database refuse to update or delete its rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from store.db.database import insert
from store.db.tables import AuditEntry


@dataclass(frozen=True)
class Actor:
    """Who requests a change, and with which request."""

    owner: str
    key_id: str | None
    """None: the service itself."""
    address: str | None = None
    """Network address of the client."""
    request_id: str | None = None


SETUP = Actor("(setup)", key_id=None)
RETENTION = Actor("(retention)", key_id=None)
"""The service itself: `python -m store init`, and workers that apply the retention settings. No owner is named so."""


def record(session: Session, actor: Actor | None, action: str, targets: Sequence[str], **details: Any) -> None:
    """Insert one row for each changed object, in the transaction of the change; `details` must not contain secrets.

    Without an actor, or without targets, nothing is inserted.
    """
    if actor is None or not targets:
        return
    values = {"action": action, **asdict(actor), "details": details}
    session.execute(insert(session, AuditEntry.__table__), [{**values, "target": target} for target in targets])
