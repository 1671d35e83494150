"""The module `mmcv._ext`, for an mmcv that was installed without it."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

import torch
import torchvision

from mmcv_torchvision import boxes, deformable, focal, pooling
from mmcv_torchvision.unavailable import unavailable

EXTENSION = "mmcv._ext"


def get_compiler_version() -> str:
    return f"not compiled: mmcv_torchvision over torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """The CUDA release torch was built for; mmcv's own words where there is none."""
    return torch.version.cuda or "not available"


OPERATORS: tuple[Callable[..., Any], ...] = (
    get_compiler_version,
    get_compiling_cuda_version,
    boxes.nms,
    boxes.softnms,
    boxes.nms_match,
    boxes.bbox_overlaps,
    pooling.roi_align_forward,
    pooling.roi_align_backward,
    pooling.roi_pool_forward,
    pooling.roi_pool_backward,
    deformable.deform_conv_forward,
    deformable.deform_conv_backward_input,
    deformable.deform_conv_backward_parameters,
    deformable.modulated_deform_conv_forward,
    deformable.modulated_deform_conv_backward,
    focal.sigmoid_focal_loss_forward,
    focal.sigmoid_focal_loss_backward,
    focal.softmax_focal_loss_forward,
    focal.softmax_focal_loss_backward,
)


class ExtensionFinder(MetaPathFinder, Loader):
    """Finds `mmcv._ext` after every other finder has failed, so a compiled one always comes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        return spec_from_loader(fullname, self, origin="mmcv_torchvision")

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update({operator.__name__: operator for operator in OPERATORS})
        module.__dict__["__getattr__"] = _any_other_operator


def install() -> None:
    """From now on `import mmcv._ext` succeeds, before or after mmcv was imported."""
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)


def _any_other_operator(name: str) -> Callable[..., Any]:
    """`mmcv.ops` asks for all of its names at import and asserts that each is there."""
    if name.startswith("_"):
        raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")
    return unavailable(name)


FINDER = ExtensionFinder()
