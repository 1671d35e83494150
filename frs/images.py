"""Images with their boxes, as mmdet's detectors take them."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import frs.prelude  # noqa: F401 - before mmdet

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch.utils.data import DataLoader, Dataset

from frs.dataset.coco import CocoFile
from frs.errors import BadDataset
from frs.sampling import Batches, Draw, seeded
from frs.spec import Schedule

Pipeline = list[dict[str, Any]]


class Images(Dataset[Any]):
    """One split through a pipeline of mmdet transforms; every random choice is a function of (seed, epoch, image)."""

    def __init__(self, coco: CocoFile, folder: Path, pipeline: Pipeline, seed: int, indices: Sequence[int]) -> None:
        self.coco, self.folder, self.seed = coco, folder, seed
        self.indices = np.asarray(indices)
        """Which of `coco.images`."""
        self.transform = Compose([TRANSFORMS.build(step) for step in pipeline])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        draw = draw if isinstance(draw, Draw) else Draw(0, draw)
        record = self.record(int(self.indices[draw.image]))
        with seeded(self.seed, draw):
            try:
                sample = self.transform(record)
            except (OSError, AttributeError, TypeError) as error:  # mmcv passes None on when it cannot decode
                raise BadDataset(f"{Path(record['img_path']).name} cannot be read: {error}.") from error
        if sample is None:
            raise BadDataset(f"{Path(record['img_path']).name} cannot be read.")
        return sample

    def record(self, index: int) -> dict[str, Any]:
        """What mmdet's `LoadImageFromFile` and `LoadAnnotations` start from."""
        image, boxes = self.coco.images[index], self.coco.boxes_of(index)
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


def with_boxes(coco: CocoFile, without: Collection[int]) -> list[int]:
    """Indices of the images that train a detector: at least one box that is no crowd, and not left out by id."""
    boxed = set(np.unique(coco.boxes.image[~coco.boxes.crowd]).tolist())
    return [i for i, image in enumerate(coco.images) if i in boxed and image.id not in without]


def training_pipeline(schedule: Schedule, stock: Config) -> Pipeline:
    return [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        _training_resize(schedule, stock),
        {"type": "RandomFlip", "prob": schedule.flip},
        {"type": "PackDetInputs"},
    ]


def test_pipeline(schedule: Schedule, stock: Config) -> Pipeline:
    size = schedule.image_size or next(step.scale for step in stock.test_pipeline if step.type == "Resize")
    return [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": tuple(size), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]


class TrainingLoaders:
    """`loaders(first, end)`: a loader of the batches of those steps, the same for any number of workers."""

    def __init__(self, images: Images, schedule: Schedule, workers: int) -> None:
        self.images, self.schedule, self.workers = images, schedule, workers

    def __call__(self, first: int, end: int) -> DataLoader[Any]:
        batches = Batches(len(self.images), self.schedule.batch_size, self.schedule.seed, first, end)
        return _loader(self.images, self.workers, batch_sampler=batches)

    def __len__(self) -> int:
        """Steps of an epoch; mmengine asks."""
        return -(-len(self.images) // self.schedule.batch_size)


def test_loader(images: Images, workers: int) -> DataLoader[Any]:
    """One image a batch, as stock mmdet evaluates: padding to a batch would change the numbers."""
    return _loader(images, workers, batch_size=1)


def _loader(images: Images, workers: int, **batching: Any) -> DataLoader[Any]:
    """With a generator of its own: an iterator draws a seed, which must not move the global one."""
    own = torch.Generator()
    return DataLoader(images, num_workers=workers, collate_fn=pseudo_collate, generator=own, **batching)


def _training_resize(schedule: Schedule, stock: Config) -> dict[str, Any]:
    if schedule.scales:
        return {"type": "RandomChoiceResize", "scales": [tuple(size) for size in schedule.scales], "keep_ratio": True}
    if schedule.image_size:
        return {"type": "Resize", "scale": tuple(schedule.image_size), "keep_ratio": True}
    pipeline = stock.train_dataloader.dataset.pipeline
    return dict(next(step for step in pipeline if step.type in ("Resize", "RandomResize", "RandomChoiceResize")))
