"""Load detectors with their weights. Each role has its own rule for weights of other classes than the data set's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from frs.dataset.classes import TEACHER_CLASSES_HINT, describe_class_difference
from frs.detectors import builder, weights
from frs.detectors.checkpoint_layouts import without_wrappers
from frs.detectors.class_selection import select_classes
from frs.errors import ClassMismatch
from frs.facts import TeacherClasses
from frs.resolved import ResolvedDetector
from frs.spec import MAX_DETECTIONS


class LoadedTeacher(NamedTuple):
    """A teacher, and what became of its classes."""

    detector: nn.Module
    classes: TeacherClasses | None
    """None if they are the data set's."""


def load_detector(
    resolved: ResolvedDetector, classes: tuple[str, ...], models: Path, max_detections: int = MAX_DETECTIONS
) -> nn.Module:
    """Return the detector, with every tensor from its weights file if it has one.

    Raises ClassMismatch if the file has other classes, else TeacherWeightsMismatch, WeightsRefused or
    WeightsUnreadable. A file without class names is accepted if the shapes match.
    """
    detector = builder.build(resolved.description, len(classes), models, max_detections)
    if resolved.weights is not None:
        content = weights.read(resolved.weights, resolved.sha256)
        file_classes = _class_names(resolved, content)
        name = resolved.weights.name
        if file_classes is not None and (text := describe_class_difference(classes, file_classes, name)):
            raise ClassMismatch(text)
        weights.load(detector, content, name)
    return detector


def load_teacher(
    resolved: ResolvedDetector,
    classes: tuple[str, ...],
    models: Path,
    distils_logits: bool,
    max_detections: int = MAX_DETECTIONS,
) -> LoadedTeacher:
    """Return the teacher of a data set with `classes`.

    If the teacher has all of `classes`, others are dropped and the order is changed. If not, it keeps its own classes.
    Raises ClassMismatch if logits are distilled then, and what `load_detector` raises.
    """
    if resolved.weights is None:
        return LoadedTeacher(load_detector(resolved, classes, models, max_detections), None)
    description, file_name = resolved.description, resolved.weights.name
    content = weights.read(resolved.weights, resolved.sha256)
    names = _class_names(resolved, content)
    if names is None:
        total = len(classes) if distils_logits else _count_classes(description, content, file_name, len(classes))
        names = classes if total == len(classes) else ()
    else:
        total = len(names)
    has_all = set(names).issuperset(classes)
    if distils_logits and not has_all:
        raise ClassMismatch(describe_class_difference(classes, names, file_name) or "", TEACHER_CLASSES_HINT)
    detector = builder.build(description, total, models, max_detections)
    weights.load(detector, content, file_name)
    if names == classes or not has_all:
        return LoadedTeacher(detector, None if has_all else TeacherClasses(total=total, used=0))
    selected = builder.build(description, len(classes), models, max_detections)
    layers = builder.class_layers(description, len(classes))
    select_classes(detector, selected, layers, total, [names.index(name) for name in classes])
    return LoadedTeacher(selected, TeacherClasses(total=total, used=len(classes)))


def load_student(
    resolved: ResolvedDetector,
    classes: tuple[str, ...],
    models: Path,
    max_detections: int = MAX_DETECTIONS,
    frozen_stages: int | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the student and the keys of class layers that were not loaded because its weights file has other classes.

    Raises TeacherWeightsMismatch if any other tensor is missing or has another shape, WeightsRefused,
    WeightsUnreadable, and InvalidSpec if the backbone cannot freeze stages.
    """
    student = builder.build(resolved.description, len(classes), models, max_detections, frozen_stages)
    if resolved.weights is None:
        return student, ()
    name, content = resolved.weights.name, weights.read(resolved.weights, resolved.sha256)
    layers = builder.class_layers(resolved.description, len(classes))
    file_classes = _class_names(resolved, content)
    if file_classes == classes or (file_classes is None and weights.shapes_match(student, content, name, layers)):
        weights.load(student, content, name)
        return student, ()
    return student, tuple(weights.load_except(student, content, name, layers))


def trained_size(resolved: ResolvedDetector) -> tuple[int, int] | None:
    """Return the [width, height] in pixels that the detector was trained at; None if its weights file has no size."""
    return weights.image_size_of(weights.read(resolved.weights)) if resolved.weights else None


def _class_names(resolved: ResolvedDetector, content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of a weights file, or those given at its registration; None if there are none."""
    return weights.classes_of(content) or resolved.classes


def _count_classes(description: builder.Description, content: Mapping[str, Any], name: str, expected: int) -> int:
    """Return the number of classes of a weights file by its shapes; `expected` if it lacks the class layers."""
    layers = builder.class_layers(description, expected)
    state = without_wrappers(weights.state_of(content, name), layers)
    rows = {key: len(state[key]) for key in layers if key in state and state[key].ndim}
    counts = {(rows[key] - layers[key].others) // layers[key].per_class for key in rows}
    return max(counts) if len(counts) == 1 and max(counts) > 0 else expected
