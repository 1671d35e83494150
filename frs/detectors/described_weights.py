"""Compare weights with the description that was sent with them, before any job uses them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from frs.dataset.issues import printable
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, weights
from frs.detectors.backbone_config import build_shapes
from frs.detectors.builder import Description
from frs.detectors.checkpoint_layouts import without_wrappers
from frs.detectors.unsupported import unsupported_on_error
from frs.errors import ClassMismatch, TeacherWeightsMismatch


class DescribedWeights:
    """The tensors of a description. All files of mmdet are read when it is created."""

    def __init__(self, description: Description) -> None:
        """Raise InvalidSpec if mmdet has no config of that name, UnsupportedDetector if it cannot be built."""
        self.name = description.architecture if isinstance(description, DescribedDetector) else description.config
        self.config = builder.model_config(description, 1)
        with unsupported_on_error(f"{self.name} cannot be built"):
            self.class_layers = builder.class_layers(description, 1)

    def check(self, content: Mapping[str, Any], sent: Sequence[str] | None) -> None:
        """Raise ClassMismatch or TeacherWeightsMismatch if weights do not agree with their description.

        `content` is what `weights.read` returns, `sent` the class names of the description; None: it has none.
        """
        named = weights.classes_of(content)
        if sent is not None and named is not None and tuple(sent) != named:
            raise ClassMismatch(
                f"The file has the classes {_format(named)}, its description the classes {_format(sent)}.",
                "Send the classes of the weights in their order, or leave them out.",
            )
        classes = named or sent
        builder.set_classes(self.config, len(classes) if classes else 1)
        detector = build_shapes(self.config)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns that a tensor without memory receives no values
                weights.load_except(detector, content, "The file", self.class_layers)
        except TeacherWeightsMismatch as error:
            raise TeacherWeightsMismatch(f"{error.message} Its description is {self.name}.", error.hint) from None
        if classes and not weights.shapes_match(detector, content, "The file", self.class_layers):
            key = next(iter(self.class_layers))
            outputs = without_wrappers(weights.state_of(content, "The file"), self.class_layers)[key].shape[0]
            raise ClassMismatch(
                f"{key} has {outputs} outputs, but {len(classes)} classes ({_format(classes)}) need "
                f"{detector.state_dict()[key].shape[0]}.",
                "Send the classes that the weights were trained with, in their order.",
            )


def _format(names: Sequence[str]) -> str:
    listed = ", ".join(printable(name, 40) for name in names[:8])
    return f"{listed} and {len(names) - 8} more" if len(names) > 8 else listed
