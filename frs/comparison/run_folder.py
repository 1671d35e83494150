"""The work folder of a run of the command line: its spec, its events and its student."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from frs import events
from frs.errors import DetectionsUnusable, InvalidSpec
from frs.resolved import ResolvedDetector, ResolvedSpec
from frs.spec import JobSpec

SPEC, EVENT_LOG, CHECKPOINTS = "spec.json", "events.jsonl", "checkpoints"


def read_spec(folder: Path) -> ResolvedSpec:
    """Return the spec of the run. Raise DetectionsUnusable if the folder holds none."""
    try:
        return ResolvedSpec.model_validate_json((folder / SPEC).read_bytes())
    except (OSError, ValidationError):
        hint = "Name work folders of finished `python -m frs train` runs."
        raise DetectionsUnusable(f"{folder} is not a work folder: it has no valid {SPEC}.", hint) from None


def require_success(folder: Path) -> None:
    """Raise DetectionsUnusable unless the run has succeeded."""
    if not has_succeeded(folder):
        raise DetectionsUnusable(f"The run in {folder} has not succeeded.", "Run it to its end first.")


def has_succeeded(folder: Path) -> bool:
    """Return whether the run's last event is that it has succeeded."""
    logged = list(read_events(folder))
    return bool(logged) and isinstance(logged[-1], events.Outcome) and logged[-1].status == "succeeded"


def open_event_log(folder: Path) -> TextIO:
    """Open the log of the run's events for writing: a new one, unless the run continues from a checkpoint."""
    continues = any((folder / CHECKPOINTS).glob("step_*.pth"))
    return (folder / EVENT_LOG).open("a" if continues else "w")


def read_events(folder: Path) -> Iterator[events.Event]:
    """Yield the events that the run logged. Invalid lines, such as an incomplete last one, are skipped."""
    try:
        lines = (folder / EVENT_LOG).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield events.parse(line)
        except ValueError:
            continue


def last_student(folder: Path) -> events.Checkpoint:
    """Return the event of the last student's weights. Raise DetectionsUnusable if the run has not saved any."""
    saved = [event for event in read_events(folder) if isinstance(event, events.Checkpoint) and event.kind == "student"]
    last = next((event for event in reversed(saved) if "last" in event.labels), None)
    if last is None:
        raise DetectionsUnusable(f"The run in {folder} has saved no student.", "Run it to its end first.")
    return last


def export_spec(folder: Path, settings: Mapping[str, object]) -> ResolvedSpec:
    """Return the spec that exports the student of a finished run with `settings`, the fields of `ExportSettings`.

    Raises DetectionsUnusable if the folder holds no finished run, InvalidSpec if a setting is invalid.
    """
    spec, student = read_spec(folder), last_student(folder)
    require_success(folder)
    try:
        job = JobSpec.model_validate(
            {
                "kind": "export",
                "name": spec.job.name,
                "dataset": spec.job.dataset,
                "student": spec.job.student,
                "schedule": {"image_size": spec.job.schedule.image_size},
                "evaluation": spec.job.evaluation,
                "max_invalid_fraction": spec.job.max_invalid_fraction,
                "resources": {"devices": 0},
                "export": settings,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidSpec(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    weights = ResolvedDetector(
        description=spec.student.description, weights=folder / student.path, sha256=student.sha256
    )
    return ResolvedSpec(job=job, train=spec.train, val=spec.val, student=weights, models=spec.models)
