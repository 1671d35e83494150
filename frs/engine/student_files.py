"""The student as plain mmdet weights: loads with mmdet alone, without this package."""

import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
from mmengine.config import Config, ConfigDict
from torch import nn

from frs.detectors import weights
from frs.detectors.weights import SavedFile
from frs.resolved import SplitFiles
from frs.training.batches import Pipeline


class StudentWriter:
    """Writes `<name>-<first 8 of the file's sha256>.pth`, its safetensors safetensors_copy and the resolved config."""

    def __init__(
        self, folder: Path, name: str, model: ConfigDict, classes: tuple[str, ...], pipeline: Pipeline
    ) -> None:
        self.folder = folder
        self.name = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "student"
        self.model, self.classes, self.pipeline = model, classes, pipeline

    def weights(self, student: nn.Module) -> SavedFile:
        """`meta` (mmdet's own keys alone: no times, no paths) and `state_dict`, on the CPU."""
        state = {key: tensor.cpu() for key, tensor in student.state_dict().items()}
        meta = {"dataset_meta": {"classes": self.classes}}
        return weights.write({"meta": meta, "state_dict": state}, self.folder / f"{self.name}-{{sha8}}.pth")

    def safetensors_copy(self, student: nn.Module, file: SavedFile) -> SavedFile:
        """The same tensors as safetensors, beside `file`."""
        state = {key: tensor.cpu().contiguous().clone() for key, tensor in student.state_dict().items()}
        return weights.write_bytes(safetensors.torch.save(state), file.path.with_suffix(".safetensors"))

    def config(self, file: SavedFile, val: SplitFiles) -> SavedFile:
        """An mmdet config that builds the student; run from the data set's folder, `Runner.test()` evaluates it."""
        text = Config(self._config(val)).pretty_text
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
        return {
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
            "test_evaluator": {"type": "CocoMetric", "metric": "bbox", "ann_file": annotations},
            "test_cfg": {"type": "TestLoop"},
        }
