"""Run a job of kind `export`: write the files, compare them with the student, and report."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from frs.cpu_load import cpu_load, mean_load
from frs.dataset.splits import LoadedSplit, LoadedSplits
from frs.detectors.heads import Detector
from frs.detectors.weights import SavedFile, write_bytes
from frs.evaluation.coco_scores import score
from frs.evaluation.detections import Rows
from frs.evaluation.export_report import ExportReport, FileReport, nothing_to_compare
from frs.export import onnx_file, parity, quantise
from frs.export.names import FILE_NAMES, calibration_images
from frs.export.preprocessing import Preprocessing, preprocessing_of, usual_size
from frs.facts import RunFacts
from frs.preflight.context import RunContext
from frs.spec import ExportFormat
from frs.training.stop_request import Interrupted, StopRequest

FOLDER = "export"
"""Folder of the files in the work folder."""
MAX_DROP: dict[ExportFormat, float] = {"onnx": 0.05, "onnx-int8": 0.5, "onnx-no-nms": 0.05}
"""Default of `export.max_drop`, in points of mAP."""
BuildModel = Callable[[Detector, Preprocessing, Mapping[str, object]], ModelProto]
"""A function (student, preprocessing, metadata) that returns an fp32 model."""
TIMED_IMAGES = 20
"""Number of validation images whose time in torch is measured."""
INSPECTED_IMAGES = 1
"""Number of calibration images that the layers of a file are compared on; the outputs of all layers are in memory."""


@dataclass(frozen=True)
class WrittenFiles:
    """The files of an export before their comparison."""

    paths: dict[ExportFormat, Path]
    """The requested formats, and `onnx`, which `onnx-int8` is made from."""
    calibration: list[Path]
    """Training images that gave the ranges of the activations."""


def run(context: RunContext, data: LoadedSplits, student: nn.Module, stop: StopRequest) -> str:
    """Emit the exported files, their runner and `export.json` as artifacts; return the end reason.

    A file whose mAP drops too far is delivered, too; its report says so. Raises ExportUnsupported, ExportFailed, or
    Interrupted if `stop` requests an interruption.
    """
    reporter = context.reporter

    def progress(done: int, total: int) -> None:
        reporter.phase_progress(done, total)
        if stop.reason == "interrupted":
            raise Interrupted

    written = write_files(context, data, student, progress)
    reporter.phase("evaluating")
    scores, rows = context.evaluate(student, data.val)
    reporter.evaluation("student", scores, last=True)
    reports = []
    for name in context.job.export.formats:
        reporter.phase("comparing")
        saved = write_bytes(written.paths[name].read_bytes(), written.paths[name])
        reporter.artifact(FILE_NAMES[name], saved)
        reports.append(_compare(context, data.val, name, saved, rows, scores.mAP, progress))
        if not reports[-1].passed:
            reporter.warn(describe_drop(reports[-1]))
            if name == "onnx-int8" and not reports[-1].nothing_to_compare:
                reports[-1] = _with_layers(reports[-1], written, reporter.warn)
    latency_ms, load = _torch_latency_ms(context, data.val, student)
    report = ExportReport(
        student_sha256=context.spec.student.sha256,
        metrics=scores.metrics,
        latency_ms=latency_ms,
        load=load,
        images=scores.images,
        classes=data.classes,
        image_size=context.test_size,
        calibration_images=len(written.calibration),
        files=reports,
    )
    folder = context.workdir / FOLDER
    for path, content in [
        (folder / parity.RUNNER.name, parity.RUNNER.read_bytes()),
        (folder / "export.json", report.model_dump_json(indent=2).encode()),
    ]:
        reporter.artifact(path.name, write_bytes(content, path))
    reporter.facts(RunFacts(export=report.model_dump(mode="json")))
    return "completed"


def write_files(
    context: RunContext, data: LoadedSplits, student: nn.Module, progress: Callable[[int, int], None]
) -> WrittenFiles:
    """Write the files of all requested formats. Raises ExportUnsupported, and what `progress` raises."""
    reporter, settings = context.reporter, context.job.export
    reporter.phase("exporting")
    folder = context.workdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[ExportFormat, Path] = {}

    def write_model(name: ExportFormat, build: BuildModel, fixed: bool) -> None:
        preprocessing = _preprocessing(context, data.val, student, fixed)
        paths[name] = folder / FILE_NAMES[name]
        onnx_file.write(build(student, preprocessing, _metadata(context, data, preprocessing)), paths[name])

    if "onnx-no-nms" in settings.formats:  # first, because two-stage detectors are refused
        write_model("onnx-no-nms", onnx_file.build_candidates_model, fixed=True)
    write_model("onnx", onnx_file.build_model, fixed=settings.input_size == "fixed")
    if "onnx-int8" not in settings.formats:
        return WrittenFiles(paths, [])
    reporter.phase("calibrating")
    images = (data.train.files.images / data.train.coco.images[i].file_name for i in data.train.valid)
    calibration = calibration_images(images, settings.calibration_images)
    paths["onnx-int8"] = folder / FILE_NAMES["onnx-int8"]
    quantise.quantise(paths["onnx"], paths["onnx-int8"], calibration, progress)
    return WrittenFiles(paths, calibration)


def _preprocessing(context: RunContext, split: LoadedSplit, student: Detector, fixed: bool) -> Preprocessing:
    """Return how a file prepares an image; a fixed input has the size that most validation images are scaled to."""
    size = context.test_size
    if fixed:
        size = usual_size(((image.width, image.height) for image in split.coco.images), size)
    return preprocessing_of(student.data_preprocessor, size, fixed)


def describe_drop(file: FileReport) -> str:
    """Return the sentence about a file's loss of mAP."""
    if file.nothing_to_compare:
        return f"{file.name}: {file.nothing_to_compare}"
    drop = f"{file.name} loses {100 * file.drop:.2f} points of mAP"
    if file.drop_interval is not None:
        low, high = (100 * value for value in (file.drop_interval.low, file.drop_interval.high))
        drop += f" ({low:.2f} to {high:.2f} with 95 % confidence)"
    comparison = "at most" if file.passed else "more than"
    return f"{drop}, {comparison} the {100 * file.max_drop:g} of `export.max_drop`."


def _metadata(context: RunContext, data: LoadedSplits, preprocessing: Preprocessing) -> dict[str, object]:
    metadata: dict[str, object] = {
        "classes": data.classes,
        "image_size": context.test_size,
        "input_size": preprocessing.padded_size if preprocessing.fixed else "dynamic",
        "format": "onnx",
        "name": context.job.name,
        "student_sha256": context.spec.student.sha256,
        "annotations_sha256": data.val.sha256,
    }
    return dict(context.job.metadata) | metadata


def _compare(
    context: RunContext,
    split: LoadedSplit,
    name: ExportFormat,
    saved: SavedFile,
    student: Rows,
    student_mAP: float,
    progress: Callable[[int, int], None],
) -> FileReport:
    max_detections = context.job.evaluation.max_detections
    images = {split.coco.images[i].id: split.files.images / split.coco.images[i].file_name for i in split.valid}
    result = parity.run_file(saved.path, images, progress)
    scores = score(result.rows, split.coco, split.ids, max_detections)
    max_drop = (MAX_DROP[name] if context.job.export.max_drop is None else context.job.export.max_drop) / 100
    found = parity.differences(student, result.rows, progress)
    nothing = nothing_to_compare(student_mAP)
    return FileReport(
        format=name,
        name=FILE_NAMES[name],
        sha256=saved.sha256,
        bytes=saved.bytes,
        metrics=scores.metrics,
        drop=student_mAP - scores.mAP,
        drop_interval=parity.drop_interval(
            student, result.rows, split.coco, np.array(sorted(split.ids)), max_detections, progress
        ),
        max_drop=max_drop,
        passed=nothing is None and student_mAP - scores.mAP <= max_drop,
        nothing_to_compare=nothing,
        compared=found.compared,
        equal=found.equal,
        missing=found.missing,
        largest_box_difference=found.largest_box_difference,
        largest_score_difference=found.largest_score_difference,
        latency_ms=result.latency_ms,
        threads=parity.THREADS,
        load=result.load,
        peak_mb=result.peak_mb,
    )


def _with_layers(report: FileReport, written: WrittenFiles, warn: Callable[[str], None]) -> FileReport:
    """Add the layers that lose most. A failure is a warning: the file and its scores exist already."""
    try:
        paths, images = written.paths, written.calibration[:INSPECTED_IMAGES]
        layers = quantise.worst_layers(paths["onnx"], paths["onnx-int8"], images)
    except Exception as error:
        warn(f"The layers could not be compared: {type(error).__name__}: {error}.")
        return report
    return report.model_copy(update={"worst_layers": layers})


@torch.no_grad()
def _torch_latency_ms(context: RunContext, split: LoadedSplit, student: Detector) -> tuple[float, float | None]:
    """Return the median time of a validation image on the CPU, with the threads of the exported files, and the load."""
    threads, seconds, loads = torch.get_num_threads(), list[float](), list[float | None]()
    torch.set_num_threads(parity.THREADS)
    student.cpu().eval()
    for batch in context.test_loader(split, split.valid[:TIMED_IMAGES]):
        started = time.perf_counter()
        student.test_step(batch)
        seconds.append(time.perf_counter() - started)
        loads.append(cpu_load())
    torch.set_num_threads(threads)
    return 1000 * median(seconds), mean_load(loads)
