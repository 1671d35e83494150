"""History of jobs: events and batches of metrics, in the order of their sequence numbers.

The last sequence number of a job is incremented in the transaction that writes the numbered row, so all rows up to
`State.newest` are visible.
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
"""Event type of a batch of metrics."""
Spans = Mapping[str, tuple[int, int]]
"""By job: the sequence number to start after, and the last one to include."""


class State(NamedTuple):
    """State of a job."""

    newest: int
    """Last sequence number."""
    status: JobStatus
    end_reason: EndReason | None
    progress: str | None
    """JSON, as stored."""


class Entry(NamedTuple):
    """One event, or one batch of metrics."""

    seq: int
    type: str
    data: Document


def read_states(session: Session, job_ids: Collection[str], *conditions: ColumnElement[bool]) -> dict[str, State]:
    """Return the states of the given jobs that exist and meet the conditions."""
    columns = (Job.id, Job.last_event, Job.status, Job.end_reason, cast(Job.progress, Text))
    rows = session.execute(select(*columns).where(Job.id.in_(job_ids), *conditions))
    return {row[0]: State(*row[1:]) for row in rows}


def read_entries(session: Session, spans: Spans) -> dict[str, list[Entry]]:
    """Return the entries of each job within its span, in order, with two queries for any number of jobs.

    Metrics that a later attempt invalidated are absent, so there are gaps in the sequence numbers.
    """
    by_job: dict[str, list[Entry]] = defaultdict(list)
    for job_id, entry in chain(_events(session, spans), _batches(session, spans)):
        by_job[job_id].append(entry)
    return {job_id: sorted(job_entries, key=attrgetter("seq")) for job_id, job_entries in by_job.items()}


def end_of_page(session: Session, job_id: str, after: int, newest: int, limit: int) -> int:
    """Return the last sequence number of a page with at most `limit` events and `limit` batches of metrics."""
    ends = [newest]
    for table in (Event, Metric):
        in_span = (table.job_id == job_id, table.seq > after, table.seq <= newest)
        ends += session.scalars(
            select(table.seq).distinct().where(*in_span).order_by(table.seq).offset(limit - 1).limit(1)
        )
    return min(ends)


def _events(session: Session, spans: Spans) -> list[tuple[str, Entry]]:
    span, join_condition = _join_spans(session, spans, Event)
    query = select(Event.job_id, Event.seq, Event.type, Event.at, Event.attempt, Event.data)
    return [
        (row.job_id, Entry(row.seq, row.type, _common_fields(row.at, row.attempt) | row.data))
        for row in session.execute(query.select_from(span).join(Event, join_condition))
    ]


def _batches(session: Session, spans: Spans) -> list[tuple[str, Entry]]:
    span, join_condition = _join_spans(session, spans, Metric)
    query = select(
        Metric.job_id, Metric.seq, Metric.at, Metric.attempt, Metric.step, Metric.epoch, Metric.key, Metric.value
    )
    batches: dict[tuple[str, int], Document] = {}
    for row in session.execute(query.select_from(span).join(Metric, join_condition)):
        fields = {"step": row.step, "epoch": row.epoch, "values": {}}
        batch = batches.setdefault((row.job_id, row.seq), _common_fields(row.at, row.attempt) | fields)
        batch["values"][row.key] = row.value
    return [(job_id, Entry(seq, METRIC, batch)) for (job_id, seq), batch in batches.items()]


def _join_spans(session: Session, spans: Spans, table: type[Event | Metric]) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the spans as a table built from one JSON parameter, and the condition to join it with `table`.

    The SQL statement is the same for any number of spans.
    """
    document = literal(spans, JSON)
    if session.get_bind().dialect.name == "sqlite":
        span = func.json_each(document).table_valued("key", "value")
        after, upto = (func.json_extract(span.c.value, f"$[{index}]") for index in range(2))
    else:
        span = func.json_each_text(document).table_valued("key", "value")
        after, upto = (cast(span.c.value, JSON)[index].as_integer() for index in range(2))
    return span, and_(table.job_id == span.c.key, table.seq > after, table.seq <= upto)


def _common_fields(at: float, attempt: int) -> Document:
    return {"at": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%f}Z", "attempt": attempt}
