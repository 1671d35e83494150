"""A disk cache of the frozen teacher's outputs, for runs whose augmentation yields the same pixels in every epoch.

That is the case if every image is scaled to the same shape and augmented by flips only. Then batches have no padding,
and the teacher's outputs for an image depend only on the image and the flip.
"""

import errno
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from frs.dataset.splits import LoadedSplits
from frs.distillation.teacher import Levels, Teacher
from frs.errors import InvalidSpec
from frs.spec import JobSpec
from frs.training.process_group import rank
from frs.training.schedule import ResolvedSchedule

MIN_EPOCHS = 4
"""Number of epochs from which `auto` uses a cache: each flip of an image then occurs twice."""
MAX_DISK_FRACTION = 0.25
"""Largest fraction of the free disk space that a cache may take with `auto`."""
RESERVED_DISK_BYTES = 2 << 30
"""Disk space in bytes that the cache always leaves free, for checkpoints and other files."""
TeacherOutputs = tuple[Levels, Levels]
"""Features (N, C, H, W) and class logits (N, K, H, W), by stride."""


class TeacherCache:
    """Return the outputs of `Teacher.observe` from files, if all images of a batch are cached."""

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher, self.folder = teacher, folder
        self.full = False
        """Whether the disk is full; nothing is written then, and existing files are still read."""
        folder.mkdir(parents=True, exist_ok=True)

    def observe(self, inputs: list[Tensor], samples: Sequence[Any]) -> TeacherOutputs:
        """Return the teacher's outputs for raw images `inputs` (3, H, W), and cache the missing ones.

        The metadata of `samples` identifies the image of each input and its flip. A single image is not cached.
        """
        if len(inputs) == 1:  # convolutions of a single image differ in the last digits from those of a batch
            return self.teacher.observe(inputs)
        files = [self.folder / f"{_key(sample)}.safetensors" for sample in samples]
        cached = [_read(file, inputs[0].device) for file in files]
        if all(cached):
            return self._stack([image for image in cached if image])
        outputs = self.teacher.observe(inputs)
        for index, file in enumerate(files):
            if not cached[index]:
                self._write(file, {name: tensor[index] for name, tensor in _tensors_by_name(outputs).items()})
        return outputs

    def remove(self) -> None:
        """Delete the cache's folder. Errors are ignored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stack(self, images: list[dict[str, Tensor]]) -> TeacherOutputs:
        batch = {name: torch.stack([image[name] for image in images]) for name in images[0]}
        features, logits = (
            {stride: batch[f"{kind}{stride}"] for stride in self.teacher.strides} for kind in ("feature", "logit")
        )
        return features, logits

    def _write(self, file: Path, image: dict[str, Tensor]) -> None:
        """Write the outputs for one image, unless the disk is full."""
        self.full = self.full or shutil.disk_usage(self.folder).free < RESERVED_DISK_BYTES
        if self.full:
            return
        temporary = file.with_suffix(f".{rank()}.part")
        try:
            content = {name: tensor.cpu().contiguous().clone() for name, tensor in image.items()}
            temporary.write_bytes(safetensors.torch.save(content))
            temporary.rename(file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.full = True
            temporary.unlink(missing_ok=True)


def open_teacher_cache(
    teacher: Teacher,
    job: JobSpec,
    data: LoadedSplits,
    schedule: ResolvedSchedule,
    size: tuple[int, int] | None,
    workdir: Path,
    precision: str,
) -> TeacherCache | None:
    """Return the cache that the spec selects, or None.

    With `auto` there is a cache if caching is possible, the run has at least `MIN_EPOCHS` epochs and the cache fits
    on the disk. `size` is the [width, height] that every image is scaled into, None if each draw of an image has a
    random size. Raises InvalidSpec if the spec has `teacher_cache: on` and caching is impossible.
    """
    mode, root = job.distillation.teacher_cache, workdir / "teacher-cache"
    shape = cached_shape(job, data, size)
    if mode == "off" or shape is None:
        return None
    if mode == "auto" and (schedule.epochs < MIN_EPOCHS or not _fits_on_disk(teacher, data, job, shape, workdir)):
        return None
    return TeacherCache(teacher, root / f"{teacher.sha256[:16]}-{precision}")


def cached_shape(job: JobSpec, data: LoadedSplits, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the [width, height] of all training images as the teacher sees them; None if their shapes differ.

    For `size` see `open_teacher_cache`. Raises InvalidSpec if the spec has `teacher_cache: on` and the shapes differ.
    """
    shape = common_shape(data, size) if size else None
    if shape is None and job.distillation.teacher_cache == "on":
        raise InvalidSpec(
            "`distillation.teacher_cache: on` needs training images that are all scaled to one shape.",
            "Use `auto`, which caches only if that is so, or use images of one shape and no `schedule.train_sizes`.",
        )
    return shape


def common_shape(data: LoadedSplits, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the [width, height] of all training images after scaling into `size`; None if their shapes differ."""
    splits = [(data.train, data.trained)] + ([(data.unlabelled, data.unlabelled.valid)] if data.unlabelled else [])
    images = (split.coco.images[index] for split, indices in splits for index in indices)
    originals = {(image.width, image.height) for image in images}
    shapes = {mmcv.rescale_size(original, tuple(size)) for original in originals}
    return shapes.pop() if len(shapes) == 1 else None


def _fits_on_disk(teacher: Teacher, data: LoadedSplits, job: JobSpec, shape: tuple[int, int], workdir: Path) -> bool:
    images = len(data.trained) + (len(data.unlabelled.valid) if data.unlabelled else 0)
    variants = 1 if job.schedule.flip_prob in (0, 1) else 2
    width, height = shape
    probe = torch.zeros(3, height, width, dtype=torch.uint8, device=next(teacher.detector.parameters()).device)
    outputs = _tensors_by_name(teacher.observe([probe]))
    bytes_per_image = sum(tensor.numel() * tensor.element_size() for tensor in outputs.values())
    return images * variants * bytes_per_image < MAX_DISK_FRACTION * shutil.disk_usage(workdir).free


def _key(sample: Any) -> str:
    """Return the file name of an image's outputs: a hash of its path, shape and flip."""
    meta = sample.metainfo
    direction = meta.get("flip_direction") if meta.get("flip") else None
    return hashlib.sha256(repr((meta["img_path"], meta["img_shape"], direction)).encode()).hexdigest()[:32]


def _tensors_by_name(outputs: TeacherOutputs) -> dict[str, Tensor]:
    features, logits = outputs
    return {f"feature{stride}": tensor for stride, tensor in features.items()} | {
        f"logit{stride}": tensor for stride, tensor in logits.items()
    }


def _read(file: Path, device: torch.device) -> dict[str, Tensor] | None:
    """Return the tensors of a cache file; None if the file is missing or incomplete."""
    try:
        return safetensors.torch.load_file(file, device=str(device))
    except (OSError, SafetensorError):
        return None
