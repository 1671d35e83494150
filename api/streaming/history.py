"""What happened to jobs, in the order of its numbers: events, and each batch of metrics as one entry.

A job's number rises in the transaction that writes what it numbers, so all up to `State.newest` is there to be read.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import JSON, ColumnElement, FromClause, Text, and_, cast, func, literal, select
from sqlalchemy.orm import Session

from store.db.tables import Document, Event, Job, Metric
from store.states import EndReason, JobStatus

METRIC = "metric"
Spans = Mapping[str, tuple[int, int]]
"""Of each job: after which number, and up to which."""


class State(NamedTuple):
    newest: int
    status: JobStatus
    end_reason: EndReason | None
    progress: str | None
    """JSON, as it was written."""


class Entry(NamedTuple):
    seq: int
    type: str
    data: Document


def states(session: Session, job_ids: Collection[str], *conditions: ColumnElement[bool]) -> dict[str, State]:
    """Of those that are there and meet the conditions."""
    columns = (Job.id, Job.last_event, Job.status, Job.end_reason, cast(Job.progress, Text))
    rows = session.execute(select(*columns).where(Job.id.in_(job_ids), *conditions))
    return {row[0]: State(*row[1:]) for row in rows}


def entries(session: Session, spans: Spans) -> dict[str, list[Entry]]:
    """In two queries however many jobs there are. Numbers of metrics that a later attempt made void are missing."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for job_id, entry in chain(_events(session, spans), _batches(session, spans)):
        found[job_id].append(entry)
    return {job_id: sorted(of_the_job, key=attrgetter("seq")) for job_id, of_the_job in found.items()}


def end_of_page(session: Session, job_id: str, after: int, newest: int, most: int) -> int:
    """The number up to which there are at most `most` events and `most` batches."""
    ends = [newest]
    for table in (Event, Metric):
        later = (table.job_id == job_id, table.seq > after, table.seq <= newest)
        ends += session.scalars(
            select(table.seq).distinct().where(*later).order_by(table.seq).offset(most - 1).limit(1)
        )
    return min(ends)


def _events(session: Session, spans: Spans) -> list[tuple[str, Entry]]:
    span, within = _within(session, spans, Event)
    query = select(Event.job_id, Event.seq, Event.type, Event.at, Event.attempt, Event.data)
    return [
        (row.job_id, Entry(row.seq, row.type, _stamp(row.at, row.attempt) | row.data))
        for row in session.execute(query.select_from(span).join(Event, within))
    ]


def _batches(session: Session, spans: Spans) -> list[tuple[str, Entry]]:
    span, within = _within(session, spans, Metric)
    query = select(
        Metric.job_id, Metric.seq, Metric.at, Metric.attempt, Metric.step, Metric.epoch, Metric.key, Metric.value
    )
    batches: dict[tuple[str, int], Document] = {}
    for row in session.execute(query.select_from(span).join(Metric, within)):
        of_all = {"step": row.step, "epoch": row.epoch, "values": {}}
        batch = batches.setdefault((row.job_id, row.seq), _stamp(row.at, row.attempt) | of_all)
        batch["values"][row.key] = row.value
    return [(job_id, Entry(seq, METRIC, batch)) for (job_id, seq), batch in batches.items()]


def _within(session: Session, spans: Spans, table: type[Event | Metric]) -> tuple[FromClause, ColumnElement[bool]]:
    """The spans as rows, from one parameter: the statement stays the same however many there are."""
    document = literal(spans, JSON)
    if session.get_bind().dialect.name == "sqlite":
        span = func.json_each(document).table_valued("key", "value")
        after, upto = (func.json_extract(span.c.value, f"$[{side}]") for side in range(2))
    else:
        span = func.json_each_text(document).table_valued("key", "value")
        after, upto = (cast(span.c.value, JSON)[side].as_integer() for side in range(2))
    return span, and_(table.job_id == span.c.key, table.seq > after, table.seq <= upto)


def _stamp(at: float, attempt: int) -> Document:
    return {"at": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%f}Z", "attempt": attempt}
