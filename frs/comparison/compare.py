"""Compares the runs of a run_group: report, intervals and pictures, from what each run found on the validation images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from frs import events
from frs.comparison.pictures import curves, precision_recall, side_by_side
from frs.comparison.pictures.side_by_side import MatchedDetections
from frs.dataset import coco
from frs.dataset.coco import CocoFile
from frs.detectors import weights
from frs.errors import RunsDiffer
from frs.evaluation import bootstrap, detections, matching, report
from frs.evaluation.detections import Detections
from frs.evaluation.report import Comparison, ImageInterval, Pair, Report, Scores, SeedInterval
from frs.files import digest
from frs.resolved import MAP, FinishedRun, ResolvedSpec, RunGroup
from frs.training.event_reporter import EventReporter
from frs.training.stop_request import Interrupted, StopRequest

ProgressCallback = Callable[[int, int], None]
_KINDS = ("student", "baseline")


@dataclass(frozen=True, eq=False)
class RunScores:
    """One run's numbers, on the images as they are and on each resample."""

    run: FinishedRun
    scores: Scores
    resampled: dict[str, NDArray[np.float64]]

    @property
    def mAP(self) -> float:
        return self.scores.metrics["bbox_mAP"] or 0.0


def run(spec: ResolvedSpec, run_group: RunGroup, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Emits `report.json` and the pictures as artifacts and the comparison as a fact; returns the end reason.

    Raises DetectionsUnusable, RunsDiffer, BadDataset, Interrupted.
    """
    reporter = EventReporter(emit, workdir)

    def tick(done: int, total: int) -> None:
        reporter.phase_progress(done, total)
        if stop.why == "interrupted":
            raise Interrupted

    runs = pair_runs(run_group.runs)
    reporter.phase("matching")
    court = ComparisonData(spec, tick)
    teacher = court.seen(run_group.teacher) if run_group.teacher else None
    reporter.phase("resampling")
    judged = [court.judge(run) for run in runs]
    found = _report(judged, court.scores(teacher) if teacher else None, len(court.images), run_group)
    reporter.artifact(
        "report.json", weights.write_bytes(found.model_dump_json(indent=2).encode(), workdir / "report.json")
    )
    reporter.facts(comparison=found.model_dump(mode="json")["comparison"])
    reporter.phase("drawing")
    sides = ({"teacher": teacher} if teacher else {}) | {
        role: court.seen(next(run.detections for run in runs if run.role == role)) for role in ("baseline", "student")
    }
    for name, draw in court.pictures(runs, sides, found).items():
        try:
            reporter.artifact(name, weights.write_bytes(draw(), workdir / name))
        except (ValueError, OSError, Image.DecompressionBombError) as error:  # no picture is worth the proof
            reporter.log(f"{name} could not be drawn: {type(error).__name__}: {error}.", "warning")
    return "completed"


class ComparisonData:
    """The validation images and their objects, against which every run is held."""

    def __init__(self, spec: ResolvedSpec, tick: ProgressCallback) -> None:
        self.folder, self.tick = spec.val.images, tick
        self.truth: CocoFile = coco.read(spec.val.annotations)
        self.sha256 = digest(spec.val.annotations)
        self.images: NDArray[np.int64] = np.zeros(0, np.int64)
        """Ids of those that were looked at: known from the first run that is read."""
        self.times: bootstrap.Multiplicities = np.zeros((0, 0), np.int64)

    def seen(self, path: Path) -> MatchedDetections:
        """Raises DetectionsUnusable, RunsDiffer."""
        found = detections.read(path)
        self._check(found, path.name)
        return MatchedDetections(found.rows, matching.match(self.truth, found.rows, self.images, self.tick))

    def judge(self, run: FinishedRun) -> RunScores:
        matches = self.seen(run.detections).matches
        precisions = bootstrap.average_precisions(matches, self.times, self.tick)
        return RunScores(run, self._scores(matches), bootstrap.coco_numbers(precisions))

    def scores(self, seen: MatchedDetections) -> Scores:
        return self._scores(seen.matches)

    def pictures(
        self, runs: Sequence[FinishedRun], sides: dict[str, MatchedDetections], found: Report
    ) -> dict[str, Callable[[], bytes]]:
        teacher = next((row.metrics["bbox_mAP"] for row in found.rows if row.role == "teacher"), None)
        matches = {role: seen.matches for role, seen in sides.items()}
        return {
            "curves.png": partial(curves.draw, runs, teacher),
            "precision-restore_warnings.png": partial(precision_recall.draw, matches),
            "detections.png": partial(side_by_side.draw, self.truth, self.folder, self.images, sides),
        }

    def _scores(self, matches: Sequence[matching.ClassMatches]) -> Scores:
        precisions = bootstrap.each_once(matches)
        six = {name: float(value[0]) for name, value in bootstrap.coco_numbers(precisions).items()}
        per_class = zip((of_class.name for of_class in matches), bootstrap.per_class(precisions), strict=True)
        return Scores(
            metrics={name: None if np.isnan(value) else value for name, value in six.items()}, per_class=dict(per_class)
        )

    def _check(self, found: Detections, name: str) -> None:
        if found.annotations_sha256 != self.sha256:
            raise RunsDiffer(f"{name} was found on another annotation file than the validation split's.")
        if found.classes != self.truth.classes:
            raise RunsDiffer(f"{name} has other classes than the validation split.")
        if not len(self.times):
            known = {image.id for image in self.truth.images}
            if not len(found.images) or not known.issuperset(found.images.tolist()):
                raise RunsDiffer(f"{name} was found on images the validation split does not have.")
            self.images, self.times = found.images, bootstrap.draw_resamples(len(found.images))
        if not np.array_equal(found.images, self.images):
            raise RunsDiffer(f"{name} was found on other images than the runs before it.")


def pair_runs(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """By kind and seed, students first. Raises RunsDiffer unless every seed has one student and one baseline."""
    ordered = sorted(runs, key=lambda run: (_KINDS.index(run.role), run.seed))
    seeds = {role: [run.seed for run in ordered if run.role == role] for role in _KINDS}
    if not ordered or seeds["student"] != seeds["baseline"] or len(set(seeds["student"])) < len(seeds["student"]):
        said = " and ".join(f"{role}s of seeds {values}" for role, values in seeds.items())
        raise RunsDiffer(f"There are {said}.")
    return ordered


def compare(judged: Sequence[RunScores], images: int) -> Comparison:
    """`judged`: students, then baselines, both by seed."""
    half = len(judged) // 2
    sides = list(zip(judged[:half], judged[half:], strict=True))
    pairs = [
        Pair(seed=ours.run.seed, student=ours.mAP, baseline=theirs.mAP, gain=ours.mAP - theirs.mAP)
        for ours, theirs in sides
    ]
    by_number = {
        name: bootstrap.interval(
            np.mean([ours.resampled[name] - theirs.resampled[name] for ours, theirs in sides], axis=0)
        )
        for name in report.NAMES
    }
    decisive = by_number["bbox_mAP"]
    if decisive is None:
        raise RunsDiffer("The validation split has no objects to compare the runs by.")
    return Comparison(
        gain=float(np.mean([pair.gain for pair in pairs])),
        image_interval=ImageInterval(
            **decisive.model_dump(),
            level=bootstrap.LEVEL,
            resamples=bootstrap.RESAMPLES,
            images=images,
            by_number=by_number,
        ),
        seed_interval=seed_interval([pair.gain for pair in pairs]),
        pairs=pairs,
        step_mismatch=step_mismatch([(ours.run, theirs.run) for ours, theirs in sides]),
    )


def step_mismatch(sides: Sequence[tuple[FinishedRun, FinishedRun]]) -> str | None:
    """What to say where a time limit ended one of a pair before the other."""
    steps = [[(run.curves.get(MAP) or [(0, None)])[-1][0] for run in pair] for pair in sides]
    told = [
        f"seed {ours.seed}: {own} steps distilled, {other} alone"
        for (ours, _), (own, other) in zip(sides, steps, strict=True)
        if own != other
    ]
    return f"The runs are not of the same length ({'; '.join(told)})." if told else None


def seed_interval(gains: Sequence[float], level: float = bootstrap.LEVEL) -> SeedInterval | None:
    """Student's t interval of the mean gain; None for a single pair."""
    if len(gains) < 2:
        return None
    mean, error = float(np.mean(gains)), float(stats.sem(gains))
    reach = float(stats.t.ppf((1 + level) / 2, len(gains) - 1)) * error
    return SeedInterval(mean=mean, low=mean - reach, high=mean + reach, level=level, n=len(gains))


def _report(judged: Sequence[RunScores], teacher: Scores | None, images: int, run_group: RunGroup) -> Report:
    half = len(judged) // 2
    return report.build(
        [run.scores for run in judged[:half]],
        teacher,
        [run.scores for run in judged[half:]],
        pairs=half,
        wants_teacher=teacher is not None,
        facts=run_group.facts,
        comparison=compare(judged, images),
    )
