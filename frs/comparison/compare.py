"""Compare the runs of a run group: report, confidence intervals and pictures from their detections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from frs import events
from frs.comparison import details
from frs.comparison.pictures import confusion, curves, precision_recall, side_by_side
from frs.comparison.pictures.side_by_side import MatchedDetections
from frs.dataset import coco
from frs.dataset.coco import CocoFile
from frs.detectors import weights
from frs.errors import RunsDiffer
from frs.evaluation import bootstrap, detections, matching, report
from frs.evaluation.advice import Training
from frs.evaluation.confusion import confusion_matrix
from frs.evaluation.detections import Detections
from frs.evaluation.report import Report, Scores
from frs.evaluation.verdict import Comparison, ImageInterval, Pair, SeedInterval
from frs.facts import RunFacts
from frs.files import digest
from frs.resolved import MAP, ComparisonInputs, FinishedRun, ResolvedSpec
from frs.training.event_reporter import EventReporter
from frs.training.stop_request import Interrupted, StopRequest

ProgressCallback = Callable[[int, int], None]
_ROLES = ("student", "baseline")


@dataclass(frozen=True, eq=False)
class RunScores:
    """The scores of one run on the original images and on each resample."""

    run: FinishedRun
    scores: Scores
    resampled: dict[str, NDArray[np.float64]]
    """COCO metrics by name, each (resamples,)."""

    @property
    def mAP(self) -> float:
        """Box mAP on the original images, 0 to 1."""
        return self.scores.metrics["bbox_mAP"] or 0.0


def run(
    spec: ResolvedSpec, comparison_inputs: ComparisonInputs, workdir: Path, emit: events.Emit, stop: StopRequest
) -> str:
    """Emit the report and pictures as artifacts and the comparison as a fact; return the end reason.

    Raises DetectionsUnusable, RunsDiffer or BadDataset if the runs cannot be compared, Interrupted if `stop` requests
    an interruption.
    """
    reporter = EventReporter(emit, workdir)

    def progress(done: int, total: int) -> None:
        reporter.phase_progress(done, total)
        if stop.reason == "interrupted":
            raise Interrupted

    runs = pair_runs(comparison_inputs.runs)
    reporter.phase("matching")
    data = ComparisonData(spec, progress)
    teacher = data.match(comparison_inputs.teacher) if comparison_inputs.teacher else None
    reporter.phase("resampling")
    run_scores = [data.score_run(run) for run in runs]
    teacher_scores = data.scores(teacher.matches) if teacher else None
    result = _build_report(run_scores, teacher_scores, len(data.images), comparison_inputs)
    reporter.artifact(
        "report.json", weights.write_bytes(result.model_dump_json(indent=2).encode(), workdir / "report.json")
    )
    reporter.facts(RunFacts(comparison=result.model_dump(mode="json")["comparison"]))
    reporter.phase("drawing")
    matched = ({"teacher": teacher} if teacher else {}) | {
        role: data.match(next(run.detections for run in runs if run.role == role)) for role in ("baseline", "student")
    }
    confusions = {role: confusion_matrix(data.truth, detector.rows, data.images) for role, detector in matched.items()}
    content = details.build(data.truth, data.images, matched, confusions).model_dump_json().encode()
    reporter.artifact("details.json", weights.write_bytes(content, workdir / "details.json"))
    for name, draw in data.pictures(runs, matched, confusions, result).items():
        try:
            reporter.artifact(name, weights.write_bytes(draw(), workdir / name))
        except (ValueError, OSError, Image.DecompressionBombError) as error:  # a failed picture does not fail the job
            reporter.log(f"{name} could not be drawn: {type(error).__name__}: {error}.", "warning")
    return "completed"


class ComparisonData:
    """The validation images and objects that all runs are matched against."""

    def __init__(self, spec: ResolvedSpec, progress: ProgressCallback) -> None:
        self.folder, self.progress = spec.val.images, progress
        self.max_detections = spec.job.evaluation.max_detections
        self.truth: CocoFile = coco.read(spec.val.annotations)
        self.sha256 = digest(spec.val.annotations)
        self.images: NDArray[np.int64] = np.zeros(0, np.int64)
        """(images,): ids of the evaluated images; set from the first run that is read."""
        self.multiplicities: bootstrap.Multiplicities = np.zeros((0, 0), np.int64)

    def match(self, path: Path) -> MatchedDetections:
        """Read a run's detections and match them. Raise DetectionsUnusable or RunsDiffer if they do not fit."""
        run_detections = detections.read(path)
        self._check(run_detections, path.name)
        matches = matching.match(self.truth, run_detections.rows, self.images, self.progress, self.max_detections)
        return MatchedDetections(run_detections.rows, matches)

    def score_run(self, run: FinishedRun) -> RunScores:
        """Return the run's scores on the original images and on each resample."""
        matches = self.match(run.detections).matches
        precisions = bootstrap.average_precisions(matches, self.multiplicities, self.progress)
        return RunScores(run, self.scores(matches), bootstrap.coco_metrics(precisions))

    def scores(self, matches: Sequence[matching.ClassMatches]) -> Scores:
        """Return the COCO metrics on the original images."""
        precisions = bootstrap.point_estimate(matches)
        metrics = {name: float(value[0]) for name, value in bootstrap.coco_metrics(precisions).items()}
        names = (class_matches.name for class_matches in matches)
        return Scores(
            metrics={name: None if np.isnan(value) else value for name, value in metrics.items()},
            per_class=dict(zip(names, bootstrap.class_precisions(precisions), strict=True)),
        )

    def pictures(
        self,
        runs: Sequence[FinishedRun],
        matched: Mapping[str, MatchedDetections],
        confusions: Mapping[str, NDArray[np.int64]],
        result: Report,
    ) -> dict[str, Callable[[], bytes]]:
        """Return the functions that draw the pictures, by file name. `matched` and `confusions` are by role."""
        teacher_mAP = next((row.metrics["bbox_mAP"] for row in result.rows if row.role == "teacher"), None)
        matches = {role: role_detections.matches for role, role_detections in matched.items()}
        return {
            "curves.png": partial(curves.draw, runs, teacher_mAP),
            "precision-recall.png": partial(precision_recall.draw, matches),
            "confusion.png": partial(
                confusion.draw, {role: confusions[role] for role in ("baseline", "student")}, self.truth.classes
            ),
            "detections.png": partial(side_by_side.draw, self.truth, self.folder, self.images, matched),
        }

    def _check(self, run_detections: Detections, name: str) -> None:
        """Raise RunsDiffer if the detections are of other annotations, classes or images than those before."""
        if run_detections.annotations_sha256 != self.sha256:
            raise RunsDiffer(f"{name} belongs to another annotation file than the validation split's.")
        self.truth = self.truth.matching(run_detections.classes)
        if run_detections.classes != self.truth.classes:
            raise RunsDiffer(f"{name} has other classes than the validation split.")
        if not len(self.multiplicities):
            listed = {image.id for image in self.truth.images}
            if not len(run_detections.images) or not listed.issuperset(run_detections.images.tolist()):
                raise RunsDiffer(f"{name} has images that the validation split does not have.")
            self.images = run_detections.images
            self.multiplicities = bootstrap.draw_resamples(len(run_detections.images))
        if not np.array_equal(run_detections.images, self.images):
            raise RunsDiffer(f"{name} has other images than the previous runs.")


def pair_runs(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Return the runs by role and seed, students first.

    Raises RunsDiffer unless every seed has one student and one baseline.
    """
    ordered = sorted(runs, key=lambda run: (_ROLES.index(run.role), run.seed))
    seeds = {role: [run.seed for run in ordered if run.role == role] for role in _ROLES}
    if not ordered or seeds["student"] != seeds["baseline"] or len(set(seeds["student"])) < len(seeds["student"]):
        listed = " and ".join(f"{role}s with seeds {values}" for role, values in seeds.items())
        raise RunsDiffer(f"The runs do not form pairs: {listed}.")
    return ordered


def compare(run_scores: Sequence[RunScores], images: int) -> Comparison:
    """Return the comparison of students and baselines on `images` validation images.

    `run_scores` has the students, then the baselines, both by seed. Raises RunsDiffer if there are no objects.
    """
    count = len(run_scores) // 2
    run_pairs = list(zip(run_scores[:count], run_scores[count:], strict=True))
    pairs = [
        Pair(seed=student.run.seed, student=student.mAP, baseline=baseline.mAP, gain=student.mAP - baseline.mAP)
        for student, baseline in run_pairs
    ]
    by_number = {
        name: bootstrap.interval(
            np.mean([student.resampled[name] - baseline.resampled[name] for student, baseline in run_pairs], axis=0)
        )
        for name in report.NAMES
    }
    mAP_interval = by_number["bbox_mAP"]
    if mAP_interval is None:
        raise RunsDiffer("The validation split has no objects, so the runs cannot be compared.")
    return Comparison(
        gain=float(np.mean([pair.gain for pair in pairs])),
        image_interval=ImageInterval(
            **mAP_interval.model_dump(),
            level=bootstrap.LEVEL,
            resamples=bootstrap.RESAMPLES,
            images=images,
            by_number=by_number,
        ),
        seed_interval=seed_interval([pair.gain for pair in pairs]),
        pairs=pairs,
        step_mismatch=step_mismatch([(student.run, baseline.run) for student, baseline in run_pairs]),
    )


def step_mismatch(run_pairs: Sequence[tuple[FinishedRun, FinishedRun]]) -> str | None:
    """Return a message about pairs with different numbers of steps; None if there are none.

    A time limit or `schedule.patience` can end one of the two earlier.
    """
    steps = [[(run.curves.get(MAP) or [(0, None)])[-1][0] for run in pair] for pair in run_pairs]
    mismatches = [
        f"seed {student.seed}: {student_steps} steps with distillation, {baseline_steps} without"
        for (student, _), (student_steps, baseline_steps) in zip(run_pairs, steps, strict=True)
        if student_steps != baseline_steps
    ]
    return f"The runs of a pair have different lengths ({'; '.join(mismatches)})." if mismatches else None


def seed_interval(gains: Sequence[float], level: float = bootstrap.LEVEL) -> SeedInterval | None:
    """Return Student's t interval of the mean gain; None for a single pair."""
    if len(gains) < 2:
        return None
    mean, error = float(np.mean(gains)), float(stats.sem(gains))
    reach = float(stats.t.ppf((1 + level) / 2, len(gains) - 1)) * error
    return SeedInterval(mean=mean, low=mean - reach, high=mean + reach, level=level, n=len(gains))


def _build_report(
    run_scores: Sequence[RunScores], teacher: Scores | None, images: int, comparison_inputs: ComparisonInputs
) -> Report:
    count, first = len(run_scores) // 2, run_scores[0].run
    return report.build(
        [run.scores for run in run_scores[:count]],
        teacher,
        [run.scores for run in run_scores[count:]],
        pairs=count,
        expects_teacher=teacher is not None,
        facts=comparison_inputs.facts,
        comparison=compare(run_scores, images),
        training=Training(first.curves.get(MAP, ()), first.end_reason),
    )
