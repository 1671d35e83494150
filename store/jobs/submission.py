"""Add a job together with its run group: baselines, seed variants and the comparison."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import Session

from frs.detector_spec import DetectorOfJob, InitFromJob
from frs.spec import JobSpec, baseline_of, comparison_of, seed_variant
from store.db import audit, queries
from store.db.audit import Actor
from store.db.idempotency import Idempotency
from store.db.tables import Dataset, Detector, Document, Job
from store.jobs import lifecycle
from store.states import JobStatus


def derived_specs(spec: JobSpec) -> Iterator[JobSpec]:
    """Yield the specs of the baselines, of the seed variants and, last, of the comparison; none without a baseline."""
    yield from (baseline_of(spec, number) for number in range(spec.pairs))
    yield from (seed_variant(spec, number) for number in range(1, spec.pairs))
    if spec.pairs:
        yield comparison_of(spec)


def source_job_ids(spec: JobSpec) -> dict[str, str]:
    """Return the jobs whose students the spec refers to, by field: `student`, `teacher`."""
    detectors = {"student": spec.student, "teacher": spec.teacher}
    sources = {loc: (detector, getattr(detector, "init", None)) for loc, detector in detectors.items()}
    return {
        loc: source.job
        for loc, candidates in sources.items()
        for source in candidates
        if isinstance(source, DetectorOfJob | InitFromJob)
    }


def unfinished_sources(session: Session, spec: JobSpec) -> Sequence[Job]:
    """Return the jobs whose students the spec refers to and that have not succeeded."""
    ids = source_job_ids(spec).values()
    query = select(Job).where(Job.id.in_(ids), Job.status != JobStatus.SUCCEEDED)
    return session.scalars(query).all() if ids else []


def awaited_job_id(session: Session, spec: JobSpec) -> str | None:
    """Return the id of the job whose student the job waits for, or else of one whose student it uses; None: none."""
    ids = [job.id for job in unfinished_sources(session, spec)]
    return next(iter([*ids, *source_job_ids(spec).values()]), None)


def pin_references(session: Session, spec: JobSpec, actor: Actor) -> JobSpec:
    """Return the spec with ids instead of names of other owners' data sets and detectors, which an admin may use.

    By its name, another one would be used as soon as the admin has one of that name, and it could be deleted meanwhile.
    """
    if not queries.sees_all_owners(session, actor):
        return spec
    document = spec.model_dump(mode="json")
    detectors = [detector for detector in (document["student"], document["teacher"]) if detector]
    described = [part for detector in detectors for part in (detector, detector.get("init")) if isinstance(part, dict)]
    references: list[tuple[Document, str, Callable[..., Dataset | Detector | None]]] = [
        *((part, "detector", queries.find_detector) for part in described if "detector" in part),
        *([(document, "unlabelled", queries.find_dataset)] if spec.unlabelled else []),
    ]
    for part, field, find in references:
        row = find(session, part[field], actor.owner, all_owners=True)
        if row is not None and row.owner != actor.owner:
            part[field] = row.id
    return JobSpec.model_validate(document) if references else spec


def add_run_group(
    session: Session,
    spec: JobSpec,
    *,
    dataset_id: str,
    actor: Actor,
    idempotency: Idempotency | None = None,
    details: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Job, list[str]]:
    """Add a job with its run group; return it, and the ids of all added jobs. `details` are those of the audit entry.

    The caller has checked the references and the quotas. Raises AlreadySubmitted, IdempotencyKeyReused.
    """
    spec = pin_references(session, spec, actor)
    add = partial(lifecycle.add, session, dataset_id=dataset_id, owner=actor.owner, key_id=actor.key_id, actor=actor)
    job = add(spec, teacher_job_id=awaited_job_id(session, spec), idempotency=idempotency)
    added = [job.id]
    for child in derived_specs(spec):
        added.append(add(child, parent_id=job.id, teacher_job_id=awaited_job_id(session, child)).id)
    audit.record(session, actor, "job.submit", added, name=spec.name, dataset=dataset_id, **details)
    return job, added
