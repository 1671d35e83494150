"""Data sets, transform pipelines and data loaders that yield batches in mmdet's format."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch.utils.data import DataLoader, Dataset

from frs.dataset.coco import CocoFile
from frs.dataset.trainable import trainable_boxes
from frs.errors import BadDataset, InvalidSpec
from frs.schedule_spec import Schedule
from frs.training import process_group
from frs.training.augmentation import strong_transforms
from frs.training.sampling import BatchSampler, ImageDraw, seeded
from frs.training.schedule import base_dataset

Pipeline = list[dict[str, Any]]
"""Configs of mmdet transforms."""
Batch = dict[str, Any]
"""Raw images (3, H, W) under `inputs`, mmdet samples under `data_samples`."""
LOADING_TRANSFORMS = ("LoadImageFromFile", "LoadAnnotations")
"""Transforms at the start of our pipelines."""
RESIZE_TRANSFORMS = ("Resize", "RandomResize", "RandomChoiceResize")


class LoadedImages:
    """The images of one split after the transforms that load them, without random choices.

    Raises BadDataset if an image cannot be decoded.
    """

    def __init__(self, coco: CocoFile, folder: Path, loading: Pipeline, indices: Sequence[int]) -> None:
        self.coco, self.folder = coco, folder
        self.indices = np.asarray(indices)
        """Positions in `coco.images`."""
        self.load = Compose([TRANSFORMS.build(config) for config in loading])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        record = self.record(int(self.indices[position]))
        try:
            return self.load(record)
        except (OSError, AssertionError, AttributeError) as error:  # mmcv raises any of these if it cannot decode
            raise BadDataset(f"{Path(record['img_path']).name} cannot be read.") from error

    def record(self, index: int) -> dict[str, Any]:
        """Return the input of mmdet's `LoadImageFromFile` and `LoadAnnotations` for the image at `index`.

        The boxes are corners in pixels of the original image; boxes that training cannot use are left out.
        """
        image, boxes = self.coco.images[index], self.coco.boxes_of(index)
        boxes = boxes.take(np.flatnonzero(trainable_boxes(boxes, image.width, image.height)))
        corners = np.concatenate([boxes.xywh[:, :2], boxes.xywh[:, :2] + boxes.xywh[:, 2:]], axis=1)
        instances = [
            {"bbox": corner.tolist(), "bbox_label": int(label), "ignore_flag": int(crowd)}
            for corner, label, crowd in zip(corners, boxes.label, boxes.crowd, strict=True)
        ]
        return {
            "img_path": str(self.folder / image.file_name),
            "img_id": image.id,
            "height": image.height,
            "width": image.width,
            "instances": instances,
        }


class DetectionImages(Dataset[Any]):
    """One split after a pipeline of mmdet transforms. Every random choice is a function of (seed, epoch, image).

    `early`, if given, is a pipeline and the number of epochs, from the first, that have it instead of `pipeline`.
    """

    def __init__(
        self,
        coco: CocoFile,
        folder: Path,
        pipeline: Pipeline,
        seed: int,
        indices: Sequence[int],
        early: tuple[Pipeline, int] | None = None,
    ) -> None:
        self.seed = seed
        loading, transforms = _split_loading(pipeline)
        self.images = LoadedImages(coco, folder, loading, indices)
        self.transforms = [TRANSFORMS.build(config) for config in transforms]
        early_pipeline, self.early_epochs = early or ([], 0)
        self.early_transforms = [TRANSFORMS.build(config) for config in _split_loading(early_pipeline)[1]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: ImageDraw | int) -> dict[str, Any]:
        draw = draw if isinstance(draw, ImageDraw) else ImageDraw(0, draw)
        results = self.images[draw.image]
        with seeded(self.seed, draw):
            for transform in self.early_transforms if draw.epoch < self.early_epochs else self.transforms:
                if hasattr(transform, "get_indexes"):  # it mixes images; as in mmdet's MultiImageMixDataset
                    indexes = transform.get_indexes(self.images)
                    mixed = indexes if isinstance(indexes, list) else [indexes]
                    results["mix_results"] = [self.images[index] for index in mixed]
                results = transform(results)
                results.pop("mix_results", None)
        return results


def training_pipeline(schedule: Schedule, base_config: Config, mixing: tuple[str, ...] = ()) -> Pipeline:
    """Return the transforms for training. Raises InvalidSpec if neither spec nor base config has an image size.

    For `mixing` see `frs.training.augmentation`.
    """
    if schedule.augmentation == "strong":
        transforms = strong_transforms(test_size(schedule, base_config), mixing)
    else:
        transforms = [_training_resize(schedule, base_config)]
    return [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        *transforms,
        {"type": "RandomFlip", "prob": schedule.flip_prob},
        {"type": "PackDetInputs"},
    ]


def test_pipeline(size: tuple[int, int]) -> Pipeline:
    """Return the transforms for evaluation; images are scaled into `size`, [width, height] in pixels."""
    return [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": size, "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]


def test_size(schedule: Schedule, base_config: Config) -> tuple[int, int]:
    """Return the [width, height] in pixels that images are scaled into for evaluation of a student that is trained."""
    scales = (transform.scale for transform in base_config.test_pipeline if transform.type == "Resize")
    size = schedule.image_size or next(scales, None)
    if size is None:
        raise InvalidSpec("The base config's test pipeline has no `Resize`.", "Set `schedule.image_size`.")
    return size[0], size[1]


class TrainingLoaders:
    """A callable `loaders(first, end)` that returns the batches of those steps, the same for any number of workers."""

    def __init__(
        self, images: DetectionImages, schedule: Schedule, workers: int, unlabelled: DetectionImages | None = None
    ) -> None:
        self.images, self.schedule, self.workers, self.unlabelled = images, schedule, workers, unlabelled

    def __call__(self, first: int, end: int) -> Iterable[Batch]:
        """Return this process's part of the batches of the steps `first` to `end` - 1.

        A batch has `inputs` and `data_samples`. If there are unlabelled images, it has a batch of them under
        `unlabelled`.
        """
        labelled = self._loader(self.images, first, end)
        if self.unlabelled is None:
            return labelled
        return _add_unlabelled(labelled, self._loader(self.unlabelled, first, end))

    def _loader(self, images: DetectionImages, first: int, end: int) -> DataLoader[Any]:
        batches = BatchSampler(
            len(images),
            self.schedule.batch_size,
            self.schedule.seed,
            self.first_batch(first),
            self.first_batch(end),
            process_group.rank(),
            process_group.world_size(),
        )
        return _loader(images, self.workers, batch_sampler=batches)

    def first_batch(self, step: int) -> int:
        """Return the number of batches before `step`: `schedule.accumulate` a step; an epoch's last has the rest."""
        epoch, position = divmod(step, len(self))
        batches_per_epoch = -(-len(self.images) // self.schedule.batch_size)
        return epoch * batches_per_epoch + position * self.schedule.accumulate

    def __len__(self) -> int:
        """Return the number of steps per epoch, which mmengine reads."""
        return -(-len(self.images) // self.schedule.images_per_step)


def _add_unlabelled(labelled: Iterable[Batch], unlabelled: Iterable[Batch]) -> Iterator[Batch]:
    for batch, unlabelled_batch in zip(labelled, unlabelled, strict=True):
        yield batch | {"unlabelled": unlabelled_batch}


def test_loader(images: DetectionImages, workers: int) -> DataLoader[Any]:
    """Return a loader with one image per batch, as in stock mmdet: padding would change the scores."""
    return _loader(images, workers, batch_size=1)


def _loader(images: DetectionImages, workers: int, **batching: Any) -> DataLoader[Any]:
    """Return a loader with its own generator, so that its iterator does not advance the global one."""
    generator = torch.Generator()
    return DataLoader(images, num_workers=workers, collate_fn=pseudo_collate, generator=generator, **batching)


def _split_loading(pipeline: Pipeline) -> tuple[Pipeline, Pipeline]:
    """Return the transforms that load an image and its boxes, and the others."""
    count = sum(transform["type"] in LOADING_TRANSFORMS for transform in pipeline)
    return pipeline[:count], pipeline[count:]


def _training_resize(schedule: Schedule, base_config: Config) -> dict[str, Any]:
    if schedule.train_sizes:
        return {
            "type": "RandomChoiceResize",
            "scales": [tuple(size) for size in schedule.train_sizes],
            "keep_ratio": True,
        }
    if schedule.image_size:
        return {"type": "Resize", "scale": tuple(schedule.image_size), "keep_ratio": True}
    for augmentation in base_config.model.data_preprocessor.get("batch_augments") or ():
        if augmentation.type == "BatchSyncRandomResize":  # draws a size for a batch; here, for an image
            first, last = augmentation.random_size_range
            sizes = range(first, last + 1, augmentation.get("size_divisor", 32))
            return {"type": "RandomChoiceResize", "scales": [(size, size) for size in sizes], "keep_ratio": True}
    transforms = base_dataset(base_config).get("pipeline") or ()
    mosaic = next((transform for transform in transforms if "Mosaic" in transform.type), None)
    if mosaic is not None:  # a resize after it scales four images at once
        return {"type": "Resize", "scale": tuple(mosaic.img_scale), "keep_ratio": True}
    resize = next((transform for transform in transforms if transform.type in RESIZE_TRANSFORMS), None)
    if resize is None:
        raise InvalidSpec(
            f"The base config's training pipeline has none of the transforms {', '.join(RESIZE_TRANSFORMS)}.",
            "Set `schedule.image_size`.",
        )
    return dict(resize)
