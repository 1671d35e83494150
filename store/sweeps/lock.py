"""The lock of a sweep's row, which every change of a sweep takes first."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, update
from sqlalchemy.orm import Session

from store.db.sweep_tables import Sweep


def lock_sweeps(session: Session, *conditions: ColumnElement[bool], **values: Any) -> Sequence[Sweep]:
    """Lock the sweeps that meet the conditions until the transaction ends, set `values` and return the sweeps.

    One guarded UPDATE, as `store.jobs.lease.lock_jobs`.
    """
    statement = update(Sweep).where(*conditions).values(values or {"status": Sweep.status}).returning(Sweep)
    fresh = {"populate_existing": True, "synchronize_session": False}
    return session.scalars(statement, execution_options=fresh).all()
