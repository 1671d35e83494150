"""The student's result files: plain mmdet weights and config that load with mmdet, without this package."""

import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
from mmengine.config import Config, ConfigDict
from torch import nn

from frs.detectors import weights
from frs.detectors.weights import SavedFile
from frs.evaluation.coco_scores import detection_limits
from frs.resolved import SplitFiles
from frs.spec import MAX_DETECTIONS
from frs.training.batches import Pipeline

NO_TEMPLATE = r"{\x7b"
"""Two braces within a string literal of a config, in which mmengine would replace `{{$HOME:x}}` and the like."""


class StudentWriter:
    """Write `<name>-<first 8 digits of the file's SHA-256>.pth`, its safetensors copy and the resolved config.

    The config works with mmdet's `init_detector` and `DetInferencer` and with mmengine's `Runner.test()`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        model: ConfigDict,
        classes: tuple[str, ...],
        pipeline: Pipeline,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        self.folder = folder
        self.name = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "student"
        self.model, self.classes, self.pipeline = model, classes, pipeline
        self.image_size: tuple[int, int] = next(step["scale"] for step in pipeline if step["type"] == "Resize")
        self.max_detections = max_detections

    def weights(self, student: nn.Module) -> SavedFile:
        """Write `state_dict`, on the CPU, and `meta` with mmdet's own keys.

        `meta` holds neither times nor paths, so that equal students give equal files.
        """
        state = {key: tensor.cpu() for key, tensor in student.state_dict().items()}
        meta = {"dataset_meta": {"classes": self.classes}, weights.IMAGE_SIZE: self.image_size}
        return weights.write({"meta": meta, "state_dict": state}, self.folder / f"{self.name}-{{sha8}}.pth")

    def safetensors_copy(self, student: nn.Module, file: SavedFile) -> SavedFile:
        """Write the same tensors and the class names as safetensors, next to `file`."""
        state = {key: tensor.cpu().contiguous().clone() for key, tensor in student.state_dict().items()}
        metadata = {
            "format": "pt",
            weights.CLASSES: json.dumps(self.classes),
            weights.IMAGE_SIZE: json.dumps(self.image_size),
        }
        return weights.write_bytes(safetensors.torch.save(state, metadata), file.path.with_suffix(".safetensors"))

    def config(self, file: SavedFile, val: SplitFiles) -> SavedFile:
        """Write an mmdet config that builds the student, next to `file`.

        mmengine's `Runner.test()` evaluates it on the validation split if it runs in the data set's folder.
        """
        text = Config(self._config(val)).pretty_text.replace("{{", NO_TEMPLATE)  # they occur in string literals alone
        return weights.write_bytes(text.encode(), file.path.with_suffix(".py"))

    def _config(self, val: SplitFiles) -> dict[str, Any]:
        metainfo = {"classes": self.classes}
        root = Path(os.path.commonpath([val.images, val.annotations]))
        annotations = str(val.annotations.relative_to(root))
        dataset = {
            "type": "CocoDataset",
            "data_root": "",
            "ann_file": annotations,
            "data_prefix": {"img": f"{val.images.relative_to(root)}/"},
            "metainfo": metainfo,
            "test_mode": True,
            "pipeline": self.pipeline,
        }
        imports = {"custom_imports": {"imports": ["mmpretrain.models"]}}  # mmdet's own configs name it this way
        return {
            **(imports if self.model.backbone.type.startswith("mmpretrain.") else {}),
            "default_scope": "mmdet",
            "model": self.model.to_dict(),
            "metainfo": metainfo,
            "test_pipeline": self.pipeline,
            "test_dataloader": {
                "batch_size": 1,
                "num_workers": 0,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "dataset": dataset,
            },
            "test_evaluator": {"metric": "bbox", "ann_file": annotations, **self._metric()},
            "test_cfg": {"type": "TestLoop"},
            "visualizer": {"type": "DetLocalVisualizer", "name": "visualizer"},  # DetInferencer fails without one
        }

    def _metric(self) -> dict[str, Any]:
        """Return the metric that counts `max_detections`. pycocotools, in `CocoMetric`, has no mAP but at 100."""
        if self.max_detections == MAX_DETECTIONS:
            return {"type": "CocoMetric"}
        return {"type": "FasterCocoMetric", "proposal_nums": detection_limits(self.max_detections)}
