"""Try a detector of a base config before training: mmdet has configs that cannot predict or be distilled here."""

from typing import Any

import torch

from frs.detectors.heads import Detector, class_logits, class_map, pyramid_channels, strides
from frs.detectors.unsupported import unsupported_on_error
from frs.errors import UnsupportedDetector
from frs.training.preserve_state import preserve_state


def try_detector(detector: Detector, name: str, image: dict[str, Any], trains: bool, distils: bool) -> None:
    """Predict for `image`, a raw batch. If the detector `distils`, check that its class logits come at every stride.

    `trains` means that the detector needs labels. `name` is the config's name for messages. The detector's state is
    preserved. Raises UnsupportedDetector with the reason.
    """
    if trains and getattr(detector, "with_mask", False):
        raise UnsupportedDetector(f"{name} trains on masks, and data sets have boxes.")
    if distils:
        class_map(detector)
    with preserve_state(detector), torch.no_grad():
        detector.eval()
        with unsupported_on_error(f"{name} fails to predict for an image that is only resized"):
            detector.test_step(image)
        if distils:
            _check_logits(detector, name, image)


def _check_logits(detector: Detector, name: str, image: dict[str, Any]) -> None:
    """Raise UnsupportedDetector unless every stride has features and, per location, the logits of the class map."""
    with unsupported_on_error(f"The class logits of {name} cannot be read"):
        pyramid = detector.extract_feat(detector.data_preprocessor(image, False)["inputs"])
        logits = class_logits(detector, pyramid)
        channels = class_map(detector).anchors * class_map(detector).outputs
        shapes = [(features.shape[1], *level.shape[1:]) for features, level in zip(pyramid, logits, strict=True)]
        expected = [(pyramid_channels(detector), channels, *features.shape[2:]) for features in pyramid]
    if shapes != expected or len(pyramid) != len(strides(detector)):
        raise UnsupportedDetector(f"{name} does not have class logits at every location of its feature pyramid.")
