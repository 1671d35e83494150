"""The context of a run: its spec, work folder, device and base config, and how it loads images and evaluates."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from frs.dataset.splits import LoadedSplit, LoadedSplits
from frs.detectors import builder, loading, weights
from frs.evaluation.coco_scores import Scores, detect, score
from frs.evaluation.detections import Detections, Rows, pack
from frs.events import Emit, Role
from frs.resolved import ResolvedDetector, ResolvedSpec, detections_file
from frs.spec import JobSpec
from frs.training import augmentation, batches, precision, process_group, schedule
from frs.training.batches import DetectionImages, Pipeline, TrainingLoaders
from frs.training.devices import choose_device, loader_workers
from frs.training.event_reporter import EventReporter
from frs.training.precision import ResolvedPrecision


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run reads."""

    spec: ResolvedSpec
    workdir: Path
    reporter: EventReporter
    device: torch.device
    precision: ResolvedPrecision
    base_config: Config
    """mmdet config of the student."""
    workers: int
    """Number of processes that load images."""

    @property
    def job(self) -> JobSpec:
        """The job spec."""
        return self.spec.job

    @property
    def training_pipeline(self) -> Pipeline:
        """Transforms for training, without those that mix images."""
        return batches.training_pipeline(self.job.schedule, self.base_config)

    @property
    def training_size(self) -> tuple[int, int] | None:
        """The [width, height] in pixels that every training image is scaled into; None if it is drawn at random."""
        return next((step["scale"] for step in self.training_pipeline if step["type"] == "Resize"), None)

    @cached_property
    def test_size(self) -> tuple[int, int]:
        """The [width, height] in pixels that images are scaled into for evaluation of the student."""
        if not self.job.trains:
            return self.evaluation_size(self.spec.student)
        return batches.test_size(self.job.schedule, self.base_config)

    @property
    def test_pipeline(self) -> Pipeline:
        """Transforms for evaluation of the student."""
        return batches.test_pipeline(self.test_size)

    def evaluation_size(self, detector: ResolvedDetector) -> tuple[int, int]:
        """Return the [width, height] in pixels at which a detector is evaluated that the job does not train.

        It is `schedule.image_size`, or the size that the detector was trained at, or the base config's.
        """
        trained_size = None if self.job.schedule.image_size else loading.trained_size(detector)
        return trained_size or batches.test_size(self.job.schedule, self.base_config)

    def training_loaders(self, data: LoadedSplits, workers: int) -> TrainingLoaders:
        """Return the loaders of training batches, including the unlabelled images if there are any."""
        images = self._images(data.train, data.trained, self.training_pipeline, self._mixing(data))
        split = data.unlabelled
        unlabelled = self._images(split, split.valid, self.training_pipeline) if split else None
        return TrainingLoaders(images, self.job.schedule, workers, unlabelled)

    def test_loader(
        self, split: LoadedSplit, indices: list[int], size: tuple[int, int] | None = None
    ) -> DataLoader[object]:
        """Return the loader of the split's images at `indices`, scaled into `size` (None: `test_size`)."""
        pipeline = batches.test_pipeline(size or self.test_size)
        return batches.test_loader(self._images(split, indices, pipeline), self.workers)

    def evaluate(
        self, detector: nn.Module, split: LoadedSplit, size: tuple[int, int] | None = None
    ) -> tuple[Scores, Rows]:
        """Return the detector's COCO metrics and detections on `split`, scaled into `size` (None: `test_size`)."""
        process_group.broadcast_from_rank0(detector.buffers())
        loader = self.test_loader(split, process_group.shard(split.valid), size)
        rows = process_group.all_gather_rows(detect(detector, loader, self.reporter.phase_progress))
        return score(rows, split.coco, split.ids, self.job.evaluation.max_detections), rows

    def save_detections(self, role: Role, rows: Rows, split: LoadedSplit) -> None:
        """Write the detections on `split` for comparisons of runs image by image; only rank 0 writes."""
        if process_group.rank() != 0:
            return
        content = pack(Detections(rows, np.array(sorted(split.ids)), split.coco.classes, split.sha256))
        name = detections_file(role)
        self.reporter.artifact(name, weights.write_bytes(content, self.workdir / name))

    def _mixing(self, data: LoadedSplits) -> tuple[Pipeline, int] | None:
        """Return the pipeline that mixes images, and its epochs; None without, and for unlabelled images."""
        job_schedule, mixing = self.job.schedule, augmentation.stock_mixing(self.base_config)
        if job_schedule.augmentation == "light" or not mixing:
            return None
        epochs = schedule.resolve_schedule(job_schedule, self.base_config, len(data.trained)).epochs
        pipeline = batches.training_pipeline(job_schedule, self.base_config, mixing)
        return pipeline, augmentation.mixed_epochs(epochs)

    def _images(
        self,
        split: LoadedSplit,
        indices: list[int],
        pipeline: Pipeline,
        early: tuple[Pipeline, int] | None = None,
    ) -> DetectionImages:
        return DetectionImages(split.coco, split.files.images, pipeline, self.job.schedule.seed, indices, early)


def open_context(spec: ResolvedSpec, workdir: Path, emit: Emit) -> RunContext:
    """Return the context of a run. Raise DeviceUnavailable, PrecisionUnsupported or InvalidSpec."""
    device = choose_device(spec.job.resources)
    quantizes = spec.job.kind == "quantize"
    if quantizes:
        spec = _at_trained_size(spec)
    return RunContext(
        spec,
        workdir,
        EventReporter(emit, workdir),
        device,
        # bf16 has 8 significant bits: it would round what is rounded to 8 bits once more
        precision.choose_precision("fp32" if quantizes else spec.job.schedule.precision, device),
        builder.load_base_config(spec.student.description),
        loader_workers(spec.job.resources, device),
    )


def _at_trained_size(spec: ResolvedSpec) -> ResolvedSpec:
    """Return the spec with the image size that the student was trained at, unless it sets a size."""
    schedule, size = spec.job.schedule, loading.trained_size(spec.student)
    if schedule.image_size or size is None:
        return spec
    schedule = schedule.model_copy(update={"image_size": size})
    return spec.model_copy(update={"job": spec.job.model_copy(update={"schedule": schedule})})
