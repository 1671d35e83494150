"""Substitute of the module `mmcv._ext`, for an mmcv installed without compiled operators."""

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
from mmcv_torchvision.unavailable import make_stub

EXTENSION = "mmcv._ext"
"""Name of the module with mmcv's compiled operators."""


def get_compiler_version() -> str:
    """Return a description of this package in place of a compiler version."""
    return f"not compiled: mmcv_torchvision over torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """Return the CUDA version torch was built with; without one, "not available" as mmcv does."""
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
    """Import finder of `mmcv._ext`; it is the last one, so a compiled extension takes precedence."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of `mmcv._ext`, or None for any other module."""
        if fullname != EXTENSION:
            return None
        return spec_from_loader(fullname, self, origin="mmcv_torchvision")

    def exec_module(self, module: ModuleType) -> None:
        """Add the operators to the module; any other name gives a stub that raises when called."""
        module.__dict__.update({operator.__name__: operator for operator in OPERATORS})
        module.__dict__["__getattr__"] = _get_missing_operator


def install() -> None:
    """Make `import mmcv._ext` succeed, whether or not mmcv has been imported already. Idempotent."""
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)


def _get_missing_operator(name: str) -> Callable[..., Any]:
    """Return a stub for an operator without an implementation; `mmcv.ops` requires all of its operators at import."""
    if name.startswith("_"):
        raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")
    return make_stub(name)


FINDER = ExtensionFinder()
