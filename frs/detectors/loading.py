"""Load detectors with their weights. The classes must match, except those of a student that is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from frs.dataset.classes import describe_class_difference
from frs.detectors import builder, weights
from frs.errors import ClassMismatch
from frs.resolved import ResolvedDetector


def load_detector(resolved: ResolvedDetector, classes: tuple[str, ...], models: Path) -> nn.Module:
    """Return the detector, with every tensor from its weights file if it has one.

    Raises ClassMismatch if the file has other classes, else TeacherWeightsMismatch, WeightsRefused or
    WeightsUnreadable. A file without class names is accepted if the shapes match.
    """
    detector = builder.build(resolved.description, len(classes), models)
    if resolved.weights is not None:
        content = weights.read(resolved.weights, resolved.sha256)
        file_classes = weights.classes_of(content)
        name = resolved.weights.name
        if file_classes is not None and (text := describe_class_difference(classes, file_classes, name)):
            raise ClassMismatch(text)
        weights.load(detector, content, name)
    return detector


def load_student(
    resolved: ResolvedDetector, classes: tuple[str, ...], models: Path
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the student and the keys of class layers that were not loaded because its weights file has other classes.

    Raises TeacherWeightsMismatch if any other tensor is missing or has another shape, WeightsRefused,
    WeightsUnreadable.
    """
    student = builder.build(resolved.description, len(classes), models)
    if resolved.weights is None:
        return student, ()
    name, content = resolved.weights.name, weights.read(resolved.weights, resolved.sha256)
    layers = builder.class_layers(resolved.description, len(classes))
    if not _classes_differ(student, content, name, classes, layers):
        weights.load(student, content, name)
        return student, ()
    return student, tuple(weights.load_except(student, content, name, layers))


def _classes_differ(
    student: nn.Module, content: Mapping[str, Any], name: str, classes: tuple[str, ...], layers: list[str]
) -> bool:
    """Return whether a weights file has other classes; a file without class names is judged by its shapes."""
    file_classes = weights.classes_of(content)
    if file_classes is not None:
        return file_classes != classes
    return not weights.shapes_match(student, content, name, layers)
