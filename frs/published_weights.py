"""The published weights of recipes and backbones, listed in `published.yaml`. This module downloads nothing."""

import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from frs import backbones
from frs.backbones import CSPBackbone, ResNet
from frs.detector_spec import DescribedDetector

_BASE_BACKBONES: dict[str, backbones.Backbone] = {
    "rtmdet": CSPBackbone(type="CSPNeXt", deepen_factor=0.167, widen_factor=0.375),
    "yolox": CSPBackbone(type="CSPDarknet", deepen_factor=0.33, widen_factor=0.375),
}
"""Backbone of the base config by architecture; that of the others is a ResNet-50."""


class PublishedFile(BaseModel):
    """A weights file that its authors publish."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    """File name in the models folder, as recipes refer to it."""
    urls: tuple[str, ...] = ()
    """Download addresses: the publisher's, then mirrors of the same file."""
    recipes: tuple[str, ...] = ()
    """Names of the recipes that use the file."""
    source: str = ""
    """For ImageNet weights: what the config of their backbone names, such as `torchvision://resnet50`."""
    package: str = ""
    """Python package on PyPI that contains the file in its folder `models`."""
    hub: str = ""
    """Hugging Face repository that contains the file as `model.safetensors`."""
    by_order: bool = False
    """Whether the file has the backbone's tensors in their order, but under other names."""
    licence: str = ""
    """Licence of the weights, if it restricts their use beyond attribution."""

    @property
    def sha256_prefix(self) -> str:
        """First 8 hex digits of the file's SHA-256, taken from its name; empty if the name has none."""
        match = re.search(r"-([0-9a-f]{8})\.", self.file)
        return match[1] if match else ""

    @property
    def backbone(self) -> str:
        """Name of the backbone whose ImageNet weights the file has, such as `resnet18`; empty for other weights."""
        return self.source.rpartition("/")[2].removesuffix("_imagenet_600e.pth")

    @property
    def how_to_get(self) -> str:
        """The next step for a missing file, as a sentence."""
        if self.package:
            return "Install it with `pip install 'frs-distill[imagenet]'`."
        return f"Download it with `frs models pull {self.file}`, or put it into the models folder."

    def find(self, models: Path) -> Path | None:
        """Return the path of the file on this machine; None if it is missing.

        It is searched in the folder `models`, in the installed package, in torch's cache and in Hugging Face's.
        """
        return next((path for path in self._paths(models) if path.is_file()), None)

    def _paths(self, models: Path) -> Iterator[Path]:
        yield models / self.file
        module = find_spec(self.package.replace("-", "_")) if self.package else None
        if module and module.origin:
            yield Path(module.origin).parent / "models" / self.file
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        torch_home = Path(os.environ.get("TORCH_HOME") or caches / "torch").expanduser()
        yield torch_home / "hub" / "checkpoints" / self.file
        if self.hub:
            home = Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser()
            folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
            yield from folder.glob(f"models--{self.hub.replace('/', '--')}/snapshots/*/model.safetensors")


@cache
def published_files() -> tuple[PublishedFile, ...]:
    """Return the entries of `published.yaml`."""
    return tuple(PublishedFile(**row) for row in yaml.safe_load(files("frs").joinpath("published.yaml").read_text()))


def published_names() -> list[str]:
    """Return the names that `files_for` accepts: recipes, backbones, then files."""
    rows = [row for row in published_files() if row.urls]
    recipes = sorted({recipe for row in rows for recipe in row.recipes})
    backbones = dict.fromkeys(row.backbone for row in rows if row.backbone)
    return [*recipes, *backbones, *(row.file for row in rows)]


def files_for(name: str) -> list[PublishedFile]:
    """Return the file called `name`, the files that the recipe `name` uses, or the best file of the backbone `name`.

    Files that cannot be downloaded are left out. Empty if nothing has that name.
    """
    rows = [row for row in published_files() if row.urls]
    of_backbone = [row for row in rows if row.backbone == name][:1]
    return [row for row in rows if name == row.file or name in row.recipes] or of_backbone


@cache
def imagenet_files(source: str) -> tuple[PublishedFile, ...]:
    """Return the files with the ImageNet weights of `source`, best first; empty if none is listed."""
    return tuple(row for row in published_files() if source and row.source == source)


def imagenet_source(detector: DescribedDetector) -> str:
    """Return the source of the ImageNet weights of the detector's backbone; empty: none are published.

    The base config of FCOS has a ResNet of Caffe's style.
    """
    backbone = detector.backbone or _BASE_BACKBONES.get(detector.architecture, ResNet())
    if detector.architecture == "fcos" and isinstance(backbone, ResNet):
        return f"open-mmlab://detectron2/resnet{backbone.depth}_caffe"
    return backbones.imagenet_source(backbone)


@cache
def imagenet_sources() -> tuple[str, ...]:
    """Return the sources of all listed ImageNet weights."""
    return tuple(dict.fromkeys(row.source for row in published_files() if row.source))
