"""What a scrape finds in the database, in one short transaction. No label says which job: there are ever more of them."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from statistics import mean
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.context import Context
from store.db.database import time_of
from store.db.tables import Attempt, Job, Worker, WorkerRequest
from store.scheduling import worker_registry
from store.states import AttemptEnd, EndReason, JobStatus, RequestStatus, WaitingReason

REPORTED_REASONS = (WaitingReason.STORAGE, WaitingReason.RETRY_BACKOFF, WaitingReason.DEVICE)


def registry_of(context: Context) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(namespace="frs", registry=registry)
    registry.register(DatabaseCollector(context))
    return registry


class DatabaseCollector(Collector):
    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is read before somebody asks

    def collect(self) -> Iterator[Metric]:
        with self._context.database.read() as session:
            workers = worker_registry.alive(session)
            found = [*_queue(session), _waiting(session, workers), *_counts(session), *_speed(session)]
            found += [*_workers(workers), *_each_worker(session, workers)]
        yield from found
        yield from self._of_this_process()

    def _of_this_process(self) -> Iterator[Metric]:
        yield _gauge("streams_open", "Streams of events that clients follow.", self._context.streams.open)
        dropped = self._context.wakeups.dropped
        yield CounterMetricFamily("frs_hints_dropped", "Hints to workers there was no room for.", dropped)
        yield InfoMetricFamily("frs_build", "The version that runs.", {"version": version("frs")})


def _queue(session: Session) -> Iterator[Metric]:
    oldest = session.scalar(select(func.min(Job.created_at)).where(Job.status == JobStatus.QUEUED))
    age = 0.0 if oldest is None else max(0.0, time_of(session) - oldest)
    yield _gauge("queue_oldest_seconds", "Since the oldest queued job was posted.", age)


def _waiting(session: Session, workers: Sequence[Worker]) -> Metric:
    """By those of the reasons that somebody has to see to, and that one look at an index tells."""
    queued = Job.status == JobStatus.QUEUED
    stored = select(Job.status_reason_code, func.count()).where(queued).group_by(Job.status_reason_code)
    counts = {code: count for code, count in session.execute(stored).all() if code}
    if workers:
        most = max(len(worker.gpus) for worker in workers)
        beyond = select(func.count()).where(queued, Job.status_reason_code.is_(None), Job.devices > most)
        counts[WaitingReason.DEVICE] = session.scalar(beyond) or 0
    told = "Queued jobs that wait for space, for their next try, or for more GPUs than any worker has."
    return _labelled("jobs_waiting", told, "reason", REPORTED_REASONS, counts)


def _counts(session: Session) -> Iterator[Metric]:
    by_status = _by(session, Job.status)
    yield _gauge("queue_depth", "Jobs that wait for a worker.", by_status.get(JobStatus.QUEUED, 0))
    yield _labelled("jobs", "Jobs by status.", "status", JobStatus, by_status)
    yield _labelled("jobs_ended", "Jobs that have ended, by reason.", "reason", EndReason, _by(session, Job.end_reason))
    told = "Attempts by how they ended; `lost`: nobody renewed their lease; `crashed`: the trainer died."
    yield _labelled("attempts", told, "end", AttemptEnd, _by(session, Attempt.end))
    yield _labelled(
        "worker_requests", "Probes and imports by status.", "status", RequestStatus, _by(session, WorkerRequest.status)
    )


def _speed(session: Session) -> Iterator[Metric]:
    batch_size = Job.spec["schedule"]["batch_size"].as_integer()
    running = select(Job.progress, batch_size).where(Job.status == JobStatus.RUNNING, Job.progress.is_not(None))
    rows = session.execute(running).all()
    rates = [(row[0]["images_per_second"], row[1]) for row in rows if row[0].get("images_per_second")]
    steps = [batch / rate for rate, batch in rates if batch]
    yield _gauge("images_per_second", "Of all running jobs together.", sum(rate for rate, _ in rates))
    seconds = GaugeMetricFamily("frs_step_seconds", "A training step of the running jobs.", labels=["of"])
    for name, value in (("mean", mean(steps)), ("slowest", max(steps))) if steps else ():
        seconds.add_metric([name], value)
    yield seconds


def _workers(workers: Sequence[Worker]) -> Iterator[Metric]:
    yield _gauge("workers_alive", "Workers that have said so within the last minute.", len(workers))
    yield _gauge("worker_concurrency", "Jobs they can run at a time.", sum(worker.concurrency for worker in workers))
    yield _of_gpus(workers, "memory_used", "gpu_memory_used_bytes", "Memory in use of a worker's GPU.")
    yield _of_gpus(workers, "memory_total", "gpu_memory_bytes", "Memory of a worker's GPU.")
    yield _of_gpus(workers, "utilization", "gpu_utilization_percent", "Of the time, how much a worker's GPU is busy.")


def _each_worker(session: Session, workers: Sequence[Worker]) -> Iterator[Metric]:
    held, now = worker_registry.jobs_of(session, [worker.id for worker in workers]), time_of(session)
    running = GaugeMetricFamily("frs_worker_jobs", "Jobs a worker runs.", labels=["worker", "host"])
    told = "Since a worker said it is there; for an hour where it fell silent."
    silent = GaugeMetricFamily("frs_worker_seen_seconds", told, labels=["worker", "host"])
    for worker in workers:
        running.add_metric([worker.id, worker.host], len(held[worker.id]))
    for worker in worker_registry.recently_seen(session):
        silent.add_metric([worker.id, worker.host], max(0.0, now - worker.seen_at))
    yield running
    yield silent


def _of_gpus(workers: Sequence[Worker], field: str, name: str, told: str) -> Metric:
    run_group = GaugeMetricFamily(f"frs_{name}", told, labels=["worker", "host", "gpu"])
    for worker in workers:
        for gpu in worker.gpus:
            if gpu.get(field) is not None:
                run_group.add_metric([worker.id, worker.host, str(gpu.get("index"))], gpu[field])
    return run_group


def _by(session: Session, column: InstrumentedAttribute[Any]) -> dict[Any, int]:
    rows = session.execute(select(column, func.count()).where(column.is_not(None)).group_by(column)).all()
    return {row[0]: row[1] for row in rows}


def _labelled(name: str, told: str, label: str, values: Iterable[str], counts: dict[Any, int]) -> Metric:
    """With every value of the label, those at 0 too: a rate needs them there from the start."""
    run_group = GaugeMetricFamily(f"frs_{name}", told, labels=[label])
    for value in values:
        run_group.add_metric([str(value)], counts.get(value, 0))
    return run_group


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"frs_{name}", told, value)
