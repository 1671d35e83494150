"""DetectionImages with their boxes, as mmdet's detectors take them."""

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
from frs.spec import Schedule
from frs.training import process_group
from frs.training.sampling import BatchSampler, ImageDraw, seeded
from frs.training.schedule import base_dataset

Pipeline = list[dict[str, Any]]
Batch = dict[str, Any]
RESIZES = ("Resize", "RandomResize", "RandomChoiceResize")


class DetectionImages(Dataset[Any]):
    """One split through a pipeline of mmdet transforms; every random choice is a function of (seed, epoch, image)."""

    def __init__(self, coco: CocoFile, folder: Path, pipeline: Pipeline, seed: int, indices: Sequence[int]) -> None:
        self.coco, self.folder, self.seed = coco, folder, seed
        self.indices = np.asarray(indices)
        """Which of `coco.images`."""
        self.load, *rest = (TRANSFORMS.build(step) for step in pipeline)
        self.transform = Compose(rest)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, draw: ImageDraw | int) -> dict[str, Any]:
        draw = draw if isinstance(draw, ImageDraw) else ImageDraw(0, draw)
        record = self.record(int(self.indices[draw.image]))
        try:
            loaded = self.load(record)
        except (OSError, AssertionError, AttributeError) as error:  # however mmcv says that it cannot decode
            raise BadDataset(f"{Path(record['img_path']).name} cannot be read.") from error
        with seeded(self.seed, draw):
            return self.transform(loaded)

    def record(self, index: int) -> dict[str, Any]:
        """What mmdet's `LoadImageFromFile` and `LoadAnnotations` start from."""
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


def training_pipeline(schedule: Schedule, base_config: Config) -> Pipeline:
    return [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        _training_resize(schedule, base_config),
        {"type": "RandomFlip", "prob": schedule.flip_prob},
        {"type": "PackDetInputs"},
    ]


def test_pipeline(schedule: Schedule, base_config: Config) -> Pipeline:
    return [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": test_size(schedule, base_config), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]


def test_size(schedule: Schedule, base_config: Config) -> tuple[int, int]:
    """Width and height that images are scaled into where a detector is measured."""
    size = schedule.image_size or next(step.scale for step in base_config.test_pipeline if step.type == "Resize")
    return size[0], size[1]


class TrainingLoaders:
    """`loaders(first, end)`: a loader of the batches of those steps, the same for any number of workers."""

    def __init__(
        self, images: DetectionImages, schedule: Schedule, workers: int, unlabelled: DetectionImages | None = None
    ) -> None:
        self.images, self.schedule, self.workers, self.unlabelled = images, schedule, workers, unlabelled

    def __call__(self, first: int, end: int) -> Iterable[Batch]:
        """A batch has `inputs` and `data_samples`, and as many under `unlabelled` where there are such images.

        It is this process's share of the step's.
        """
        labelled = self._loader(self.images, first, end)
        if self.unlabelled is None:
            return labelled
        return _add_unlabelled(labelled, self._loader(self.unlabelled, first, end))

    def _loader(self, images: DetectionImages, first: int, end: int) -> DataLoader[Any]:
        one_of = process_group.rank(), process_group.world_size()
        batches = BatchSampler(len(images), self.schedule.batch_size, self.schedule.seed, first, end, *one_of)
        return _loader(images, self.workers, batch_sampler=batches)

    def __len__(self) -> int:
        """Steps of an epoch; mmengine asks."""
        return -(-len(self.images) // self.schedule.batch_size)


def _add_unlabelled(labelled: Iterable[Batch], unlabelled: Iterable[Batch]) -> Iterator[Batch]:
    for batch, extra in zip(labelled, unlabelled, strict=True):
        yield batch | {"unlabelled": extra}


def test_loader(images: DetectionImages, workers: int) -> DataLoader[Any]:
    """One image a batch, as stock mmdet evaluates: padding to a batch would change the numbers."""
    return _loader(images, workers, batch_size=1)


def _loader(images: DetectionImages, workers: int, **batching: Any) -> DataLoader[Any]:
    """With a generator of its own: an iterator draws a seed, which must not move the global one."""
    own = torch.Generator()
    return DataLoader(images, num_workers=workers, collate_fn=pseudo_collate, generator=own, **batching)


def _training_resize(schedule: Schedule, base_config: Config) -> dict[str, Any]:
    if schedule.train_sizes:
        return {
            "type": "RandomChoiceResize",
            "scales": [tuple(size) for size in schedule.train_sizes],
            "keep_ratio": True,
        }
    if schedule.image_size:
        return {"type": "Resize", "scale": tuple(schedule.image_size), "keep_ratio": True}
    resizes = (step for step in base_dataset(base_config).pipeline if step.type in RESIZES)
    found = next(resizes, None)
    if found is None:
        raise InvalidSpec("The base config scales images in a way of its own.", "Set `schedule.image_size`.")
    return dict(found)
