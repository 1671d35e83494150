from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query

from api.context import ContextDep
from api.http import files
from api.http.auth import Caller, KeyStillValid, Reader
from api.http.schemas import JobId
from api.streaming import history
from api.streaming.history import State
from api.streaming.streams import EventStream
from store.db.database import Database
from store.db.tables import Job
from store.errors import JobNotFound

router = APIRouter(prefix="/jobs", tags=["jobs"])
EventNumber = Annotated[int | None, Query(ge=0, lt=2**53, description="Begin after this number.")]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**53, description="The newest `id` seen.")]


@router.get(
    "/{job_id}/stream",
    status_code=200,
    response_class=EventStream,
    responses=files.content_response(EventStream.media_type),
)
async def stream_job(
    here: ContextDep,
    caller: Reader,
    still_known: KeyStillValid,
    job_id: JobId,
    last_event_id: LastEventId = None,
    since: EventNumber = None,
    begin: Annotated[Literal["start", "now"], Query(alias="from", description="Where neither is given.")] = "start",
) -> EventStream:
    """Server-sent events: `status`, `phase`, `metric`, `evaluation`, `checkpoint`, `artifact`, `log`, `rewound`, `changed` and
    what was requested, each under its number as `id`; `progress`, without one, where it changed.

    With `Last-Event-ID` it goes on after that number: nothing is missing, nothing comes twice. After the last event of a
    job that has ended comes `end`; after `closed` there is nothing to come back for. Metrics that a `rewound` made void
    are no longer told to who begins later; what was measured anew comes under new numbers.
    """
    state = await to_thread.run_sync(_state, here.database, caller, job_id, limiter=here.streams.paging)
    first = last_event_id if last_event_id is not None else since
    after = first if first is not None else {"start": 0, "now": state.newest}[begin]
    return here.streams.follow(job_id, state, after, caller, still_known)


def _state(database: Database, caller: Caller, job_id: str) -> State:
    """Raises JobNotFound."""
    with database.read() as session:
        found = history.states(session, [job_id], caller.visible(Job))
    if job_id not in found:
        raise JobNotFound("No such job.")
    return found[job_id]
