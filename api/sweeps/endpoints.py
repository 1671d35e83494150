"""Endpoints of sweeps."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from api.context import ContextDep
from api.http.auth import Reader, Submitter
from api.http.idempotency import REPLAYED, IdempotencyKey
from api.http.pagination import Cursor, Limit
from api.http.schemas import Page, SweepId
from api.sweeps import service
from api.sweeps.schemas import Sweep, SweepDetails
from store.sweeps.definition import SweepSpec

router = APIRouter(prefix="/sweeps", tags=["sweeps"])
EXAMPLES = {
    "grid": {
        "summary": "Two fields, six settings, two seeds each",
        "value": {
            "spec": {
                "dataset": "shapes",
                "teacher": {"detector": "my-teacher"},
                "student": {"architecture": "gfl"},
                "schedule": {"epochs": 12},
            },
            "space": {
                "distillation.feature_ratio": [10, 30, 100],
                "schedule.optimizer.learning_rate": [0.0005, 0.001],
            },
            "seeds": 2,
        },
    }
}


@router.post("", status_code=201)
def create_sweep(
    context: ContextDep,
    caller: Submitter,
    response: Response,
    spec: Annotated[SweepSpec, Body(openapi_examples=EXAMPLES)],
    idempotency_key: IdempotencyKey = None,
) -> Sweep:
    """Search over fields of a job spec, then confirm the best setting on new seeds.

    Every setting is checked before anything is posted. The trials are jobs, posted a few at a time; each has the id of
    the sweep as a tag. When the search has ended, one more job compares the best setting with its baseline on seeds
    that took no part in the choice. A repeated request with the same `Idempotency-Key` returns the first sweep.
    """
    sweep, is_new = service.create(context, caller, spec, idempotency_key)
    response.headers["Location"] = f"/sweeps/{sweep.id}"
    if not is_new:
        response.headers.update(REPLAYED)
    return sweep


@router.get("")
def list_sweeps(context: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Sweep]:
    """List sweeps, newest first."""
    return service.list_sweeps(context.database, caller, limit, cursor)


@router.get("/{sweep_id}")
def get_sweep(context: ContextDep, caller: Reader, sweep_id: SweepId) -> SweepDetails:
    """Return a sweep: its trials, the table of its settings with intervals, the best one and the verdict."""
    return service.get(context.database, caller, sweep_id)


@router.post("/{sweep_id}/stop", status_code=202)
def stop_sweep(context: ContextDep, caller: Submitter, sweep_id: SweepId) -> Sweep:
    """Stop a sweep: post no more jobs, and pause those that have not ended. Idempotent."""
    return service.stop(context, caller, sweep_id)


@router.post("/{sweep_id}/resume", status_code=202)
def resume_sweep(context: ContextDep, caller: Submitter, sweep_id: SweepId) -> Sweep:
    """Continue a sweep that was stopped or has failed. Paused jobs continue from their last checkpoint."""
    return service.resume(context, caller, sweep_id)


@router.delete("/{sweep_id}", status_code=204)
def delete_sweep(context: ContextDep, caller: Submitter, sweep_id: SweepId) -> None:
    """Delete a sweep that is not active. Its jobs are kept; those that have not ended are cancelled."""
    service.delete(context, caller, sweep_id)
