"""Endpoint of a clean-up."""

from fastapi import APIRouter

from api.clean import service
from api.clean.schemas import CleanRequest, CleanResult
from api.context import ContextDep
from api.http.auth import Submitter

router = APIRouter(prefix="/clean", tags=["usage"])


@router.post("")
def clean(context: ContextDep, caller: Submitter, clean_request: CleanRequest) -> CleanResult:
    """Remove old jobs, training checkpoints or metrics, by default as a dry run that removes nothing.

    The weights of published detectors are kept in any case.
    """
    return service.clean(context, caller, clean_request)
