"""Prometheus metrics that are read from the database at each scrape, in one short transaction.

No metric has a job id as a label, because the number of time series would grow without limit.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import and_, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.context import Context
from frs import __version__
from store.artifacts.free_space import disks
from store.db.database import now, time_of
from store.db.tables import Attempt, Job, Worker, WorkerRequest
from store.db.usage import FileKind, stored_bytes
from store.db.webhook_tables import Webhook
from store.scheduling import worker_registry
from store.scheduling.requirements import FREE_SPACE
from store.settings import Settings
from store.states import AttemptEnd, EndReason, JobStatus, RequestStatus, WaitingReason, WebhookStatus

REPORTED_REASONS = (WaitingReason.STORAGE, WaitingReason.DEVICE)
"""Reasons that an operator can act on; these are the values of the label `reason` of `frs_jobs_waiting`."""

MAX_OWNERS = 50
"""Owners whose stored files are reported one by one."""
OVERLAP_SECONDS = 3600.0
"""At each scrape, ends of this last time are read: longer than the time between two scrapes."""
WORKER_LABELS = ("worker", "host")
"""`worker` is the name, which survives a restart, unlike the id; the host for a worker without a name."""


def build_registry(context: Context) -> CollectorRegistry:
    """Return a registry with the metrics of the process and of the database."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="frs", registry=registry)
    registry.register(DatabaseCollector(context))
    return registry


class DatabaseCollector(Collector):
    """Read the metrics from the database at each scrape."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs_ended = EndCounter(Job.id, Job.finished_at, Job.end_reason)
        self._attempts_ended = EndCounter(Attempt.job_id, Attempt.ended_at, Attempt.end)
        with context.database.read() as session:
            self._jobs_ended.update(session)
            self._attempts_ended.update(session)
        self._lock = threading.Lock()
        """Two concurrent scrapes must not count the same rows."""

    def describe(self) -> Iterable[Metric]:
        """Return no descriptions, so that registration does not read the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        with self._context.database.read() as session:
            workers = worker_registry.alive(session)
            metrics = [
                *_queue_metrics(session),
                _waiting_metric(session, workers),
                _lease_metric(session),
                _stored_metric(session),
                *_count_metrics(session),
                _webhook_metric(session),
                *_speed_metrics(session),
            ]
            metrics += [*_worker_metrics(workers), *_per_worker_metrics(session, workers)]
            metrics += self._end_counters(session)
        yield from metrics
        yield from self._process_metrics()

    def _end_counters(self, session: Session) -> list[Metric]:
        with self._lock:
            self._jobs_ended.update(session)
            self._attempts_ended.update(session)
        jobs = "Jobs that have ended since the API started, by reason."
        attempts = (
            "Attempts that have ended since the API started; `lost`: no lease renewal; `crashed`: the trainer died."
        )
        return [
            _labelled(CounterMetricFamily, "jobs_ended", jobs, "reason", EndReason, self._jobs_ended.counts),
            _labelled(CounterMetricFamily, "attempts_ended", attempts, "end", AttemptEnd, self._attempts_ended.counts),
        ]

    def _process_metrics(self) -> Iterator[Metric]:
        yield from _disk_metrics(self._context.settings)
        yield _gauge("streams_open", "Open event streams of jobs.", self._context.streams.open)
        dropped = self._context.wakeups.dropped
        yield CounterMetricFamily("frs_wakeups_dropped", "Wake-ups of workers that were dropped: full queue.", dropped)
        yield InfoMetricFamily("frs_build", "Version of the service.", {"version": __version__})


class EndCounter:
    """Count the ends that appear in a table while this process runs, by their value.

    A count of rows would shrink when jobs are deleted; `rate()` and `increase()` need a counter that never does.
    """

    def __init__(
        self, id: InstrumentedAttribute[str], ended_at: InstrumentedAttribute[Any], value: InstrumentedAttribute[Any]
    ) -> None:
        self._recent = select(id, ended_at, value).where(ended_at > now() - OVERLAP_SECONDS, value.is_not(None))
        self._counted: set[tuple[str, float]] | None = None
        """The recent ends at the last update; None before the first one, which counts nothing."""
        self.counts: Counter[Any] = Counter()

    def update(self, session: Session) -> None:
        """Add the ends that were committed since the last update."""
        recent = {(id, ended_at): value for id, ended_at, value in session.execute(self._recent)}
        if self._counted is not None:
            self.counts.update(value for key, value in recent.items() if key not in self._counted)
        self._counted = set(recent)


def _queue_metrics(session: Session) -> Iterator[Metric]:
    oldest = session.scalar(select(func.min(Job.created_at)).where(Job.status == JobStatus.QUEUED))
    age = 0.0 if oldest is None else max(0.0, time_of(session) - oldest)
    yield _gauge("queue_oldest_seconds", "Seconds since the oldest queued job was submitted.", age)


def _waiting_metric(session: Session, workers: Sequence[Worker]) -> Metric:
    """Count queued jobs by the reasons that an operator can act on, with queries that an index answers."""
    queued = Job.status == JobStatus.QUEUED
    waits = and_(Job.status_reason_code == WaitingReason.STORAGE, Job.not_before > now())
    lacks_space = bool(workers) and all(
        any(entry["key"] == FREE_SPACE.key for entry in worker.missing or []) for worker in workers
    )
    counts = {
        WaitingReason.STORAGE: session.scalar(select(func.count()).where(queued, true() if lacks_space else waits)) or 0
    }
    if workers:
        max_gpus: dict[int, int] = {}
        for worker in workers:
            max_gpus[worker.nodes] = max(max_gpus.get(worker.nodes, 0), len(worker.gpus))
        too_large = or_(*(and_(Job.nodes == nodes, Job.devices > gpus) for nodes, gpus in max_gpus.items()))
        counts[WaitingReason.DEVICE] = session.scalar(select(func.count()).where(queued, too_large)) or 0
    documentation = "Queued jobs that wait for storage, or for more GPUs than any worker has."
    return _labelled(GaugeMetricFamily, "jobs_waiting", documentation, "reason", REPORTED_REASONS, counts)


def _lease_metric(session: Session) -> Metric:
    expired = select(func.count()).where(Job.status == JobStatus.RUNNING, Job.lease_expires_at < now())
    documentation = "Running jobs whose lease has expired: no worker runs them, and they were not requeued yet."
    return _gauge("jobs_lease_expired", documentation, session.scalar(expired.select_from(Job)) or 0)


def _stored_metric(session: Session) -> Metric:
    """Report the largest owners one by one, so that the number of time series is limited, and the others together."""
    sizes = sorted(stored_bytes(session).items(), key=lambda item: -sum(item[1].values()))
    by_owner = dict(sizes[:MAX_OWNERS])
    for _, by_kind in sizes[MAX_OWNERS:]:
        others = by_owner.setdefault("other", dict.fromkeys(FileKind, 0))
        by_owner["other"] = {kind: others[kind] + size for kind, size in by_kind.items()}
    family = GaugeMetricFamily("frs_stored_bytes", "Size of the files of an owner.", labels=["owner", "kind"])
    for owner, by_kind in by_owner.items():
        for kind, size in by_kind.items():
            family.add_metric([owner, kind], size)
    return family


def _disk_metrics(settings: Settings) -> Iterator[Metric]:
    """Report the disks that this API process sees."""
    size = GaugeMetricFamily("frs_disk_size_bytes", "Size of the disk of a folder.", labels=["disk"])
    free = GaugeMetricFamily("frs_disk_free_bytes", "Free space of the disk of a folder.", labels=["disk"])
    floor = GaugeMetricFamily("frs_disk_floor_bytes", "Free space below which jobs wait.", labels=["disk"])
    for disk in disks(settings):
        for family, value in ((size, disk.total), (free, disk.free), (floor, disk.floor)):
            family.add_metric([disk.name], value)
    yield from (size, free, floor)


def _count_metrics(session: Session) -> Iterator[Metric]:
    by_status = _count_by(session, Job.status)
    yield _gauge("queue_depth", "Queued jobs.", by_status.get(JobStatus.QUEUED, 0))
    yield _labelled(GaugeMetricFamily, "jobs", "Jobs by status.", "status", JobStatus, by_status)
    yield _labelled(
        GaugeMetricFamily,
        "worker_requests",
        "Probes and imports by status.",
        "status",
        RequestStatus,
        _count_by(session, WorkerRequest.status),
    )


def _webhook_metric(session: Session) -> Metric:
    by_status = Counter(webhook.status for webhook in session.scalars(select(Webhook)))
    documentation = "Webhooks by status; `dead`: a delivery was given up after 24 h, and none has succeeded since."
    return _labelled(GaugeMetricFamily, "webhooks", documentation, "status", WebhookStatus, by_status)


def _speed_metrics(session: Session) -> Iterator[Metric]:
    batch_size, accumulate = (Job.spec["schedule"][name].as_integer() for name in ("batch_size", "accumulate"))
    running = select(Job.progress, batch_size, accumulate).where(
        Job.status == JobStatus.RUNNING, Job.progress.is_not(None)
    )
    rows = session.execute(running).all()
    # a job that was stored before `accumulate` existed has none
    rates = [
        (row[0]["images_per_second"], row[1] and row[1] * (row[2] or 1))
        for row in rows
        if row[0].get("images_per_second")
    ]
    steps = [images / rate for rate, images in rates if images]
    yield _gauge("images_per_second", "Images per second of all running jobs together.", sum(rate for rate, _ in rates))
    if steps:
        yield _gauge("step_mean_seconds", "Seconds per training step, mean of the running jobs.", mean(steps))
        yield _gauge("step_max_seconds", "Seconds per training step of the slowest running job.", max(steps))


def _worker_metrics(workers: Sequence[Worker]) -> Iterator[Metric]:
    yield _gauge("workers_alive", "Workers with a heartbeat in the last minute.", len(workers))
    yield _gauge(
        "worker_concurrency",
        "Jobs that all workers together can run at a time.",
        sum(worker.concurrency for worker in workers),
    )
    yield _gpu_metric(workers, "memory_used", "gpu_memory_used_bytes", "Memory in use on a worker's GPU, in bytes.")
    yield _gpu_metric(workers, "memory_total", "gpu_memory_bytes", "Total memory of a worker's GPU, in bytes.")
    documentation = "Utilization of a worker's GPU, 0 to 1."
    yield _gpu_metric(workers, "utilization", "gpu_utilization_ratio", documentation, divisor=100)


def _per_worker_metrics(session: Session, workers: Sequence[Worker]) -> Iterator[Metric]:
    ids, present = [worker.id for worker in workers], time_of(session)
    jobs, failed = worker_registry.jobs_of(session, ids), worker_registry.failures_in_a_row(session, ids)
    running: Counter[tuple[str, ...]] = Counter()
    failures: Counter[tuple[str, ...]] = Counter()
    for worker in workers:
        running[_labels(worker)] += len(jobs[worker.id])
        failures[_labels(worker)] += failed[worker.id]
    ages: dict[tuple[str, ...], float] = {}
    for worker in worker_registry.recently_seen(session):
        age = max(0.0, present - worker.seen_at)
        ages[_labels(worker)] = min(age, ages.get(_labels(worker), age))
    documentation = "Seconds since the last heartbeat of a worker; reported for one hour after it."
    yield _per_worker("worker_jobs", "Jobs that a worker runs.", running)
    yield _per_worker("worker_seen_seconds", documentation, ages)
    documentation = "Jobs that crashed or were lost on a worker since its last attempt that ended well."
    yield _per_worker("worker_failures_in_a_row", documentation, failures)


def _gpu_metric(workers: Sequence[Worker], field: str, name: str, documentation: str, divisor: float = 1) -> Metric:
    values = {
        (*_labels(worker), str(gpu.get("index"))): gpu[field] / divisor
        for worker in workers
        for gpu in worker.gpus
        if gpu.get(field) is not None
    }
    return _per_worker(name, documentation, values, "gpu")


def _per_worker(name: str, documentation: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    """Return the gauge with one sample per worker; processes of one name share a sample."""
    family = GaugeMetricFamily(f"frs_{name}", documentation, labels=[*WORKER_LABELS, *labels])
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _labels(worker: Worker) -> tuple[str, ...]:
    return worker.name or worker.host, worker.host


def _count_by(session: Session, column: InstrumentedAttribute[Any]) -> dict[Any, int]:
    rows = session.execute(select(column, func.count()).where(column.is_not(None)).group_by(column)).all()
    return {row[0]: row[1] for row in rows}


def _labelled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    documentation: str,
    label: str,
    values: Iterable[str],
    counts: Mapping[Any, int],
) -> Metric:
    """Return the metric with all values of the label, including those at 0, because `rate()` needs a first sample."""
    family = kind(f"frs_{name}", documentation, labels=[label])
    for value in values:
        family.add_metric([str(value)], counts.get(value, 0))
    return family


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"frs_{name}", documentation, value)
