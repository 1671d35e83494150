"""Start the student's neck and head from the teacher's weights, layer by layer, where names and shapes agree."""

from collections.abc import Set

import torch
from torch import Tensor, nn

from frs.errors import InitMismatch
from frs.facts import TeacherInit

OTHER_PARTS = ("backbone", "data_preprocessor")
"""Parts of a detector that are neither neck nor head."""


def copy_neck_and_head(student: nn.Module, teacher: nn.Module, excluded: Set[str] = frozenset()) -> TeacherInit:
    """Copy the teacher's tensors into each layer of the student's neck and head that agrees, and return which did.

    A layer is a module with parameters of its own. It agrees with the teacher's layer of the same name if all their
    parameters and buffers have the same names and shapes, and none has a key in `excluded`.

    Raises InitMismatch, before anything is copied, if no agreeing layer has a weight of more than one dimension: the
    layers that are left are biases and scales.
    """
    target, source = _layers(student), _layers(teacher)
    agreeing = {
        name: tensors
        for name, tensors in target.items()
        if _shapes(tensors) == _shapes(source.get(name, {})) and excluded.isdisjoint(f"{name}.{key}" for key in tensors)
    }
    if not any(tensor.ndim > 1 for tensors in agreeing.values() for tensor in tensors.values()):
        raise InitMismatch(
            f"`distillation.init_from_teacher` copies nothing: none of the {len(target)} layers of the student's neck "
            "and head has the shape of the teacher's layer of the same name."
        )
    with torch.no_grad():
        for name, tensors in agreeing.items():
            for key, tensor in tensors.items():
                tensor.copy_(source[name][key])
    return TeacherInit(copied=tuple(agreeing), own=tuple(name for name in target if name not in agreeing))


def _layers(detector: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the parameters and buffers of each layer in neck and head, by the layer's name."""
    layers = {}
    for name, module in detector.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        if parameters and name.partition(".")[0] not in OTHER_PARTS:
            layers[name] = parameters | dict(module.named_buffers(recurse=False))
    return layers


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in tensors.items()}
