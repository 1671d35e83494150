"""What the frozen teacher makes of an image, kept on disk between epochs where augmentation comes back to the same pixels.

That is so where every image is scaled to one and the same shape and at most flipped: then no batch is padded, and what
the teacher sees of an image depends on nothing but the image and the flip.
"""

import errno
import hashlib
import os
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
from frs.training.schedule import ResolvedSchedule

WORTH_EPOCHS = 4
"""`auto` caches from so many on: each flip of an image is then seen twice."""
SHARE_OF_DISK = 0.25
"""Of what is free, `auto` takes no more."""
RESERVE = 2 << 30
"""Bytes of the disk that are left free in any case: checkpoints and whatever else lives there need room."""
TeacherOutputs = tuple[Levels, Levels]


class TeacherCache:
    """Answers for `Teacher.observe`; a batch is answered from disk when all its images are there."""

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher, self.folder = teacher, folder
        self.full = False
        """Set when the disk is: what is there is still read."""
        folder.mkdir(parents=True, exist_ok=True)

    def observe(self, inputs: list[Tensor], samples: Sequence[Any]) -> TeacherOutputs:
        """As `Teacher.observe`. `samples` say which image each input is, and how it was flipped."""
        if len(inputs) == 1:  # convolutions of a single image differ in the last digits from those of a batch
            return self.teacher.observe(inputs)
        files = [self.folder / f"{_key(sample)}.safetensors" for sample in samples]
        kept = [_read(file, inputs[0].device) for file in files]
        if all(kept):
            return self._together([image for image in kept if image])
        seen = self.teacher.observe(inputs)
        for number, file in enumerate(files):
            if not kept[number]:
                self._keep(file, {name: tensor[number] for name, tensor in _named(seen).items()})
        return seen

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _together(self, images: list[dict[str, Tensor]]) -> TeacherOutputs:
        batch = {name: torch.stack([image[name] for image in images]) for name in images[0]}
        features, logits = ({s: batch[f"{kind}{s}"] for s in self.teacher.strides} for kind in ("feature", "logit"))
        return features, logits

    def _keep(self, file: Path, image: dict[str, Tensor]) -> None:
        self.full = self.full or shutil.disk_usage(self.folder).free < RESERVE
        if self.full:
            return
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            content = {name: tensor.cpu().contiguous().clone() for name, tensor in image.items()}
            part.write_bytes(safetensors.torch.save(content))
            part.rename(file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.full = True
            part.unlink(missing_ok=True)


def cache_for(
    teacher: Teacher,
    job: JobSpec,
    data: LoadedSplits,
    plan: ResolvedSchedule,
    size: tuple[int, int] | None,
    workdir: Path,
    precision: str,
) -> TeacherCache | None:
    """The cache that the spec asks for; `auto` where it is possible, repays and fits. `size` is [width, height] that every image
    is scaled into, None where it is drawn anew each time. Raises InvalidSpec where `on` is impossible.
    """
    asked, root = job.distillation.teacher_cache, workdir / "teacher-cache"
    shape = common_shape(data, size) if size else None
    if asked == "on" and shape is None:
        raise InvalidSpec(
            "`teacher_cache: on` needs training images that are all scaled to one shape.",
            "Use `auto`, which caches where that is so, or images of one shape and no `schedule.train_sizes`.",
        )
    if asked == "off" or shape is None:
        return None
    if asked == "auto" and (plan.epochs < WORTH_EPOCHS or not _fits(teacher, data, job, shape, workdir)):
        return None
    return TeacherCache(teacher, root / f"{teacher.fingerprint()[:16]}-{precision}")


def common_shape(data: LoadedSplits, size: tuple[int, int]) -> tuple[int, int] | None:
    """[width, height] of every training image once scaled into `size`; None where they differ."""
    halves = [(data.train, data.labelled)] + ([(data.unlabelled, data.unlabelled.valid)] if data.unlabelled else [])
    images = (half.coco.images[index] for half, kept in halves for index in kept)
    originals = {(image.width, image.height) for image in images}
    shapes = {mmcv.rescale_size(original, tuple(size)) for original in originals}
    return shapes.pop() if len(shapes) == 1 else None


def _fits(teacher: Teacher, data: LoadedSplits, job: JobSpec, shape: tuple[int, int], workdir: Path) -> bool:
    images = len(data.labelled) + (len(data.unlabelled.valid) if data.unlabelled else 0)
    variants = 1 if job.schedule.flip_prob in (0, 1) else 2
    width, height = shape
    probe = torch.zeros(3, height, width, dtype=torch.uint8, device=next(teacher.detector.parameters()).device)
    each = sum(tensor.numel() * tensor.element_size() for tensor in _named(teacher.observe([probe])).values())
    return images * variants * each < SHARE_OF_DISK * shutil.disk_usage(workdir).free


def _key(sample: Any) -> str:
    meta = sample.metainfo
    direction = meta.get("flip_direction") if meta.get("flip") else None
    return hashlib.sha256(repr((meta["img_path"], meta["img_shape"], direction)).encode()).hexdigest()[:32]


def _named(seen: TeacherOutputs) -> dict[str, Tensor]:
    features, logits = seen
    return {f"feature{s}": tensor for s, tensor in features.items()} | {f"logit{s}": t for s, t in logits.items()}


def _read(file: Path, device: torch.device) -> dict[str, Tensor] | None:
    """None for what is not there or not whole."""
    try:
        return safetensors.torch.load_file(file, device=str(device))
    except (OSError, SafetensorError):
        return None
