"""Paired runs of the command line: their specs, their work folders and the results of finished ones."""

from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from frs import events
from frs.comparison.run_folder import SPEC, has_succeeded, read_events, read_spec, require_success
from frs.errors import CheckpointUnusable, DetectionsUnusable, RunsDiffer
from frs.facts import RunFacts
from frs.resolved import ComparisonInputs, FinishedRun, ResolvedSpec, detections_file, is_drawn
from frs.spec import baseline_of, comparison_of, seed_variant

_Role = Literal["student", "baseline"]
CHANGES_NO_RESULT: dict[str, Any] = {
    "job": {"name": True, "priority": True, "tags": True, "metadata": True, "resources": {"loader_workers"}},
    "unlabelled": True,
}
"""Fields of a resolved spec that change no result. The job names the unlabelled images, too."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a pair."""

    role: _Role
    seed: int
    spec: ResolvedSpec

    @property
    def name(self) -> str:
        """Name of the run's work folder."""
        return f"{self.role}-seed{self.seed}"


def planned_runs(spec: ResolvedSpec) -> Iterator[PlannedRun]:
    """Yield the runs of a spec with a baseline: seed by seed, student before baseline."""
    for number in range(spec.job.pairs):
        student, baseline = seed_variant(spec.job, number), baseline_of(spec.job, number)
        yield PlannedRun("student", student.schedule.seed, spec.model_copy(update={"job": student}))
        baseline_spec = spec.model_copy(update={"job": baseline, "teacher": None, "unlabelled": None})
        yield PlannedRun("baseline", baseline.schedule.seed, baseline_spec)


def is_done(folder: Path, spec: ResolvedSpec) -> bool:
    """Return whether a run of `spec` has succeeded in `folder`. Raise CheckpointUnusable if it ran another spec."""
    if not (folder / SPEC).is_file():
        return False
    if not _gives_the_result_of(folder, spec):
        raise CheckpointUnusable(f"{folder} holds a run of another spec.")
    return has_succeeded(folder)


def _gives_the_result_of(folder: Path, spec: ResolvedSpec) -> bool:
    """Return whether the run in `folder` has the values of `spec`; fields newer than the run have their defaults."""
    try:
        stored = read_spec(folder)
    except DetectionsUnusable:
        return False
    return stored.model_dump(exclude=CHANGES_NO_RESULT) == spec.model_dump(exclude=CHANGES_NO_RESULT)


def comparison_spec(students: Sequence[Path], baselines: Sequence[Path]) -> ResolvedSpec:
    """Return the spec of a comparison of the runs in these work folders.

    Raises DetectionsUnusable if a folder holds no run, or one that has not succeeded; RunsDiffer if they were evaluated
    with different limits on the detections.
    """
    runs = [_run(folder, "student") for folder in students] + [_run(folder, "baseline") for folder in baselines]
    limits = {folder: read_spec(folder).job.evaluation.max_detections for folder in (*students, *baselines)}
    if len(set(limits.values())) > 1:
        listed = ", ".join(f"{folder} {limit}" for folder, limit in limits.items())
        raise RunsDiffer(f"The runs were evaluated with different `evaluation.max_detections`: {listed}.")
    first, logged = read_spec(students[0]), list(read_events(students[0]))
    facts = ChainMap(*(event.values for event in reversed(logged) if isinstance(event, events.Facts)))
    teacher = detections_file("teacher")
    has_teacher = any(isinstance(event, events.Artifact) and event.name == teacher for event in logged)
    comparison_inputs = ComparisonInputs(
        runs=tuple(runs),
        teacher=students[0] / teacher if has_teacher else None,
        facts=RunFacts.model_validate(dict(facts)),
    )
    return first.model_copy(
        update={"job": comparison_of(first.job), "teacher": None, "comparison_inputs": comparison_inputs}
    )


def _run(folder: Path, role: _Role) -> FinishedRun:
    seed = read_spec(folder).job.schedule.seed
    require_success(folder)
    return FinishedRun(
        role=role,
        seed=seed,
        detections=folder / detections_file("student"),
        curves=_curves(folder),
        end_reason=_end_reason(folder),
    )


def _end_reason(folder: Path) -> str | None:
    outcomes = [event for event in read_events(folder) if isinstance(event, events.Outcome)]
    return outcomes[-1].end_reason if outcomes else None


def _curves(folder: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Return the run's metrics by key as (step, value) pairs, without the points that a rewind made void."""
    points: dict[str, dict[int, float | None]] = {}
    for event in read_events(folder):
        if isinstance(event, events.Rewound):
            last = event.to_step
            points = {key: {step: y for step, y in curve.items() if step <= last} for key, curve in points.items()}
        elif isinstance(event, events.Metrics):
            for key in filter(is_drawn, event.values):
                points.setdefault(key, {})[event.step] = event.values[key]
    return {key: sorted(curve.items()) for key, curve in points.items()}
