"""The parity gate: an exported file against the student, on the same validation images.

The file is run by `frs_runner.py` in a process of its own, without torch, as its users run it.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TextIO

import numpy as np
from faster_coco_eval.core import mask
from numpy.typing import NDArray

from frs.cpu_load import cpu_load, mean_load
from frs.dataset.coco import CocoFile
from frs.errors import ExportFailed
from frs.evaluation import bootstrap, matching
from frs.evaluation.detections import Rows
from frs.evaluation.export_report import COMPARED_SCORE, EQUAL_IOU, EQUAL_SCORE, PAIRED_IOU
from frs.evaluation.verdict import Interval

ProgressCallback = Callable[[int, int], None]
RUNNER = Path(__file__).with_name("frs_runner.py")
THREADS = 1
"""CPU threads of the measured latency."""


@dataclass(frozen=True, eq=False)
class RunnerResult:
    """What `frs_runner.py` returned for the validation images."""

    rows: Rows
    """Detections as from `frs.evaluation.coco_scores.detect`."""
    latency_ms: float
    """Median time of an image in ms."""
    load: float | None
    """Mean load of the CPUs meanwhile; None if unknown."""
    peak_mb: float | None
    """Peak memory of the process in MB."""


@dataclass(frozen=True)
class Differences:
    """The student's detections beside the file's. For the fields see `frs.evaluation.export_report.FileReport`."""

    compared: int
    equal: int
    missing: int
    largest_box_difference: float
    largest_score_difference: float


def run_file(model: Path, images: Mapping[int, Path], progress: ProgressCallback) -> RunnerResult:
    """Return the detections of a file on images by id. Raise ExportFailed if an image has no result."""
    command = [
        sys.executable,
        "-I",
        str(RUNNER),
        str(model),
        "--json",
        "--cpu",
        "--threshold=-1",
        f"--threads={THREADS}",
    ]
    rows: list[Rows] = [np.zeros((0, 7))]
    latencies, loads = list[float](), list[float | None]()
    with (
        (model.parent / "runner.log").open("w+") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdin and process.stdout
        for number, (image_id, path) in enumerate(images.items(), 1):
            with _reported(process, log, f"{model.name} does not run on {path.name}"):
                print(path, file=process.stdin, flush=True)
                result = json.loads(process.stdout.readline())
                rows.append(_rows_of(result, image_id))
                latencies.append(float(result["ms"]))
                loads.append(cpu_load())  # of this process instead of the runner, which waits for the next image
            progress(number, len(images))
        with _reported(process, log, f"{model.name} has no result"):
            process.stdin.close()
            peak = json.loads(process.stdout.readline())["peak_mb"]
    return RunnerResult(np.concatenate(rows), median(latencies), mean_load(loads), peak)


@contextmanager
def _reported(process: subprocess.Popen[str], log: TextIO, message: str) -> Iterator[None]:
    """Raise ExportFailed with the last line of the runner's log if the runner has ended or its answer is incomplete."""
    try:
        yield
    except (OSError, ValueError, KeyError):
        process.kill()
        log.seek(0)
        reason = log.read().strip().splitlines()[-1:] or ["it ended"]
        raise ExportFailed(f"{message}: {reason[0][:300]}") from None


def _rows_of(result: Mapping[str, object], image_id: int) -> Rows:
    boxes = np.asarray(result["boxes"], np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    columns = [np.full(len(boxes), image_id), boxes, np.asarray(result["scores"]), np.asarray(result["labels"])]
    return np.column_stack(columns)


def drop_interval(
    student: Rows,
    file: Rows,
    truth: CocoFile,
    images: NDArray[np.int64],
    max_detections: int,
    progress: ProgressCallback,
) -> Interval | None:
    """Return the 95 % bootstrap interval of the drop in mAP, 0 to 1: student minus file on the same resampled images.

    None if no image has an object. `progress(done, classes)` is called after each class of each part.
    """
    multiplicities = bootstrap.draw_resamples(len(images))
    values = []
    for rows in (student, file):
        matches = matching.match(truth, rows, images, progress, max_detections)
        precisions = bootstrap.average_precisions(matches, multiplicities, progress)
        values.append(bootstrap.coco_metrics(precisions)["bbox_mAP"])
    return bootstrap.interval(values[0] - values[1])


def differences(student: Rows, file: Rows, progress: ProgressCallback) -> Differences:
    """Compare each of the student's detections with the file's of the same image and class that has the highest IoU.

    `progress(done, groups)` is called for each image and class.
    """
    student = student[student[:, 5] >= COMPARED_SCORE]
    equal, missing, box, score = 0, 0, 0.0, 0.0
    groups, file_groups = _by_image_and_class(student), _by_image_and_class(file)
    for number, (group, ours) in enumerate(groups.items(), 1):
        progress(number, len(groups))
        theirs = file_groups.get(group, file[:0])
        overlaps = np.zeros((len(ours), 1))
        if len(theirs):
            overlaps = np.asarray(mask.iou(ours[:, 1:5].tolist(), theirs[:, 1:5].tolist(), [0] * len(theirs)))
        paired = overlaps.max(axis=1) >= PAIRED_IOU
        missing += int((~paired).sum())
        if not paired.any():
            continue
        scores = np.abs(ours[:, 5, None] - theirs[None, :, 5])
        equal += int(((overlaps > EQUAL_IOU) & (scores <= EQUAL_SCORE)).any(axis=1).sum())
        nearest = overlaps.argmax(axis=1)
        box = max(box, float(np.abs(corners(ours) - corners(theirs)[nearest])[paired].max()))
        score = max(score, float(scores[np.arange(len(ours)), nearest][paired].max()))
    return Differences(len(student), equal, missing, box, score)


def _by_image_and_class(rows: Rows) -> dict[tuple[float, float], Rows]:
    """Return the rows of each image and class, in their order."""
    rows = rows[np.lexsort((rows[:, 6], rows[:, 0]))]
    is_next = (rows[1:, [0, 6]] != rows[:-1, [0, 6]]).any(axis=1)
    return {(part[0, 0], part[0, 6]): part for part in np.split(rows, np.flatnonzero(is_next) + 1) if len(part)}


def corners(rows: Rows) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 of rows, (N, 4)."""
    return np.hstack([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]])
