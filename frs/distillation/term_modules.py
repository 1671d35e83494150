"""Terms that are modules with layers of their own, for methods that do not compare location by location."""

from collections.abc import Callable

from torch import nn

from frs.detectors.heads import Detector, pyramid_channels
from frs.distillation.cross_head import CrossHead
from frs.distillation.focal_global import FocalGlobal
from frs.distillation.teacher import Teacher
from frs.distillation_spec import AdapterName, TermModule

Build = Callable[[Detector, Teacher, tuple[int, ...], AdapterName], nn.Module]


def build_focal_global(
    student: Detector, teacher: Teacher, strides: tuple[int, ...], adapter: AdapterName
) -> nn.Module:
    """Return the feature term of FGD."""
    return FocalGlobal(strides, pyramid_channels(student), pyramid_channels(teacher.detector), adapter)


def build_cross_head(student: Detector, teacher: Teacher, strides: tuple[int, ...], adapter: AdapterName) -> nn.Module:
    """Return the term of CrossKD. Raise HeadMismatch if a head has no branches of stacked convolutions."""
    return CrossHead(student, teacher)


TERM_MODULES: dict[TermModule, Build] = {"focal_global": build_focal_global, "cross_head": build_cross_head}
"""How each term module is built, for the strides that both detectors have.

A module returns the unweighted term for the student's features and the teacher's outputs, both by stride. Its
parameters train with the student and are saved in checkpoints; neither detector may be a submodule.
"""
