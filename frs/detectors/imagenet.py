"""Find and load the published ImageNet weights of a backbone. Nothing is downloaded."""

import json
from collections.abc import Mapping
from pathlib import Path

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import mmengine
import timm
import torch
from mmpretrain.models import TIMMBackbone
from torch import nn

from frs import published_weights
from frs.detectors import weights
from frs.detectors.checkpoint_layouts import State, without_wrappers
from frs.errors import WeightsNotFound, WeightsUnreadable
from frs.files import digest
from frs.published_weights import PublishedFile


def load(backbone: nn.Module, source: str, models: Path) -> None:
    """Load the ImageNet weights of `source` into the backbone.

    Raises WeightsNotFound if there are none or no file is found, WeightsUnreadable if the file is not the published
    one, and what `load_file` raises.
    """
    published, path = find(source, models)
    if not digest(path).startswith(published.sha256_prefix):
        raise WeightsUnreadable(
            f"{path.name} is not the published file: its sha256 does not begin with {published.sha256_prefix}.",
            "Download it again. For weights of your own, set `init: {backbone: FILE}`.",
        )
    load_file(backbone, path, published.by_order)


def find(source: str, models: Path) -> tuple[PublishedFile, Path]:
    """Return the first file with the ImageNet weights of `source`: see `PublishedFile.find` for where it is searched.

    Raises WeightsNotFound if there is none.
    """
    files = published_weights.imagenet_files(source) or _files_of_a_config(source)
    if not files:
        raise WeightsNotFound(
            f"No ImageNet weights are published for this backbone ({source or 'its config names none'}).",
            "Set `init: random`, or choose a backbone with published weights: `frs models list`.",
        )
    for published in files:
        if path := published.find(models):
            return published, path
    names = " or ".join(published.file for published in files)
    raise WeightsNotFound(
        f"The ImageNet weights {names} are neither in the models folder nor in a package or cache on this machine.",
        f"{files[0].how_to_get} Or set `init: random` to start from random weights.",
    )


def _files_of_a_config(source: str) -> tuple[PublishedFile, ...]:
    """Return the file behind an address in a base config of mmdet that is not listed."""
    openmmlab = json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text())
    url = openmmlab.get(source.removeprefix("open-mmlab://"), source)
    if not url.startswith("https://"):
        return ()
    return (PublishedFile(file=url.rpartition("/")[2], urls=(url,)),)


def load_file(backbone: nn.Module, path: Path, by_order: bool = False) -> None:
    """Load a backbone's weights from a file of a backbone, a classifier or a detector.

    `by_order`: the file has the backbone's tensors under other names, in the same order, then others. Raises
    TeacherWeightsMismatch if it lacks tensors of the backbone, WeightsRefused or WeightsUnreadable.
    """
    state = weights.state_of(weights.read(path), path.name)
    if by_order:
        state = dict(zip(backbone.state_dict(), state.values(), strict=False))
    elif isinstance(backbone, TIMMBackbone):
        state |= _renamed(state, _names_in_timm(backbone))
    weights.load_backbone(backbone, state, path.name)


def _names_in_timm(backbone: TIMMBackbone) -> dict[str, str]:
    """Return the names of the backbone's tensors by their names in timm's whole network.

    For a pyramid of features timm drops the end of a network and may rename the rest; the order stays.
    """
    with torch.device("meta"):
        network = timm.create_model(backbone.timm_model.default_cfg["architecture"])
    return dict(zip(network.state_dict(), backbone.state_dict(), strict=False))


def _renamed(state: State, names: Mapping[str, str]) -> State:
    inner = without_wrappers(state, [name for name in names if not name.endswith("num_batches_tracked")])
    return {new: inner[name] for name, new in names.items() if name in inner}
