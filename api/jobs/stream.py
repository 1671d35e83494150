"""Endpoint that streams the events of one job."""

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query

from api.context import ContextDep
from api.http import files
from api.http.auth import Caller, KeyStillValid, Reader
from api.http.pagination import MAX_SEQUENCE_NUMBER
from api.http.schemas import JobId
from api.streaming import history
from api.streaming.history import State
from api.streaming.streams import EventStream
from store.db.database import Database
from store.db.tables import Job
from store.errors import JobNotFound

router = APIRouter(prefix="/jobs", tags=["jobs"])
EventNumber = Annotated[
    int | None, Query(ge=0, le=MAX_SEQUENCE_NUMBER, description="Start after the event of this number.")
]
LastEventId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, le=MAX_SEQUENCE_NUMBER, description="Newest `id` that the client received."),
]


@router.get(
    "/{job_id}/stream",
    status_code=200,
    response_class=EventStream,
    responses=files.content_response(EventStream.media_type),
)
async def stream_job(
    context: ContextDep,
    caller: Reader,
    recheck_key: KeyStillValid,
    job_id: JobId,
    last_event_id: LastEventId = None,
    since: EventNumber = None,
    begin: Annotated[
        Literal["start", "now"],
        Query(alias="from", description="Start of the stream if neither `since` nor `Last-Event-ID` is set."),
    ] = "start",
) -> EventStream:
    """Stream the events of a job as server-sent events.

    The types `status`, `phase`, `metric`, `evaluation`, `checkpoint`, `artifact`, `log`, `rewound`, `changed` and the
    requested actions carry the event number as `id`. `progress` has no `id` and is sent when it changes.

    With `Last-Event-ID` the stream continues after that number, without gaps and without duplicates. `end` follows the
    last event of a job that has ended; do not reconnect after `closed`. A stream that starts after a `rewound` event
    omits the metrics which that event discarded; repeated measurements have new numbers.
    """
    state = await to_thread.run_sync(
        _read_state, context.database, caller, job_id, limiter=context.streams.page_limiter
    )
    requested = last_event_id if last_event_id is not None else since
    after = requested if requested is not None else {"start": 0, "now": state.newest}[begin]
    return await context.streams.follow(job_id, state, after, caller, recheck_key)


def _read_state(database: Database, caller: Caller, job_id: str) -> State:
    """Return the current state of the job's stream. Raises JobNotFound."""
    with database.read() as session:
        states = history.read_states(session, [job_id], caller.visible(Job))
    if job_id not in states:
        raise JobNotFound("There is no job of this id.")
    return states[job_id]
