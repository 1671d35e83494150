"""A detector with its weights, which must be weights of the same classes or, for a student in training, need not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from frs.dataset.classes import difference
from frs.detectors import builder, weights
from frs.errors import ClassMismatch
from frs.resolved import ResolvedDetector


def load_detector(wanted: ResolvedDetector, classes: tuple[str, ...], models: Path) -> nn.Module:
    """Every tensor from its weights file, if it has one. Raises ClassMismatch, TeacherWeightsMismatch, WeightsUnreadable.

    A file that says nothing of classes passes as far as the shapes agree.
    """
    built = builder.build(wanted.description, len(classes), models)
    if wanted.weights is not None:
        content = weights.read(wanted.weights, wanted.sha256)
        trained = weights.classes_of(content)
        if text := difference(classes, trained, wanted.weights.name) if trained is not None else None:
            raise ClassMismatch(text)
        weights.load(built, content, wanted.weights.name)
    return built


def load_student(wanted: ResolvedDetector, classes: tuple[str, ...], models: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The student, and the class layers of its weights file that were left out because they belong to other classes.

    Raises TeacherWeightsMismatch for any other tensor that is missing or has another shape, WeightsUnreadable.
    """
    built = builder.build(wanted.description, len(classes), models)
    if wanted.weights is None:
        return built, ()
    name, content = wanted.weights.name, weights.read(wanted.weights, wanted.sha256)
    layers = builder.class_layers(wanted.description, len(classes))
    if not _other_classes(built, content, name, classes, layers):
        weights.load(built, content, name)
        return built, ()
    return built, tuple(weights.load_all_but(built, content, name, layers))


def _other_classes(
    built: nn.Module, content: Mapping[str, Any], name: str, classes: tuple[str, ...], layers: list[str]
) -> bool:
    trained = weights.classes_of(content)
    return trained != classes if trained is not None else not weights.fits(built, content, name, layers)
