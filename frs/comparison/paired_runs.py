"""Paired runs of the engine alone: which there are, in which folders, and what a finished one has left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from frs import events
from frs.errors import CheckpointUnusable, DetectionsUnusable
from frs.resolved import FinishedRun, ResolvedSpec, RunGroup, is_drawn
from frs.spec import baseline_of, comparison_of, seed_variant

SPEC, JOURNAL = "spec.json", "events.jsonl"
_Role = Literal["student", "baseline"]


@dataclass(frozen=True)
class PlannedRun:
    role: _Role
    seed: int
    spec: ResolvedSpec

    @property
    def name(self) -> str:
        return f"{self.role}-seed{self.seed}"


def planned_runs(spec: ResolvedSpec) -> Iterator[PlannedRun]:
    """Student, then baseline, seed by seed."""
    for number in range(spec.job.pairs):
        student, baseline = seed_variant(spec.job, number), baseline_of(spec.job, number)
        yield PlannedRun("student", student.schedule.seed, spec.model_copy(update={"job": student}))
        without = spec.model_copy(update={"job": baseline, "teacher": None})
        yield PlannedRun("baseline", baseline.schedule.seed, without)


def is_done(folder: Path, spec: ResolvedSpec) -> bool:
    """Whether that very run has ended well there. Raises CheckpointUnusable where another spec was run."""
    if not (folder / SPEC).is_file():
        return False
    if (folder / SPEC).read_text() != spec.model_dump_json():
        raise CheckpointUnusable(f"{folder} holds a run of another spec.")
    return _ended_well(folder)


def comparison_spec(students: Sequence[Path], baselines: Sequence[Path]) -> ResolvedSpec:
    """A comparison of the runs in these folders. Raises DetectionsUnusable where one is not finished."""
    runs = [_run(folder, "student") for folder in students] + [_run(folder, "baseline") for folder in baselines]
    first, teacher = _spec(students[0]), students[0] / "detections-teacher.npz"
    facts: dict[str, Any] = {}
    for event in _read_events(students[0]):
        facts |= event.values if isinstance(event, events.Facts) else {}
    run_group = RunGroup(runs=tuple(runs), teacher=teacher if teacher.is_file() else None, facts=facts)
    return first.model_copy(update={"job": comparison_of(first.job), "teacher": None, "run_group": run_group})


def _run(folder: Path, role: _Role) -> FinishedRun:
    seed = _spec(folder).job.schedule.seed
    if not _ended_well(folder):
        raise DetectionsUnusable(f"The run in {folder} has not ended well.", "FinishedRun it to its end first.")
    return FinishedRun(role=role, seed=seed, detections=folder / "detections-student.npz", curves=_curves(folder))


def _ended_well(folder: Path) -> bool:
    told = list(_read_events(folder))
    return bool(told) and isinstance(told[-1], events.Outcome) and told[-1].status == "succeeded"


def _spec(folder: Path) -> ResolvedSpec:
    try:
        return ResolvedSpec.model_validate_json((folder / SPEC).read_bytes())
    except (OSError, ValidationError):
        hint = "Name work folders of `python -m frs train` that have ended."
        raise DetectionsUnusable(f"{folder} is no work folder: it has no {SPEC} of a run.", hint) from None


def _curves(folder: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Of every attempt what the next one did not go back behind."""
    points: dict[str, dict[int, float | None]] = {}
    for event in _read_events(folder):
        if isinstance(event, events.Rewound):
            kept = event.to_step
            points = {key: {step: y for step, y in curve.items() if step <= kept} for key, curve in points.items()}
        elif isinstance(event, events.Metrics):
            for key in filter(is_drawn, event.values):
                points.setdefault(key, {})[event.step] = event.values[key]
    return {key: sorted(curve.items()) for key, curve in points.items()}


def _read_events(folder: Path) -> Iterator[events.Event]:
    """What the run said; a last line that was cut off when it was killed is passed over."""
    try:
        lines = (folder / JOURNAL).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield events.parse(line)
        except ValueError:
            continue
