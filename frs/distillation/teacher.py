"""The teacher, held outside the student's module tree.

A child module would be initialised anew by `init_weights()`, put into train mode, copied by EMA and saved with every
checkpoint. A plain object is none of these.
"""

import hashlib
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from frs.detectors.folding import fit_for_reading
from frs.detectors.heads import Detector, class_logits, strides

Levels = dict[int, Tensor]
"""One tensor for each pyramid level, by stride in pixels."""


class Teacher:
    def __init__(self, detector: Detector) -> None:
        self.detector = detector.eval().requires_grad_(False)
        self.strides = strides(detector)

    @torch.no_grad()
    def observe(self, inputs: list[Tensor]) -> tuple[Levels, Levels]:
        """Pyramid features (N, C, H, W) and class logits (N, K, H, W) of raw images (3, H, W), normalised its own way."""
        pixels = self.detector.data_preprocessor({"inputs": inputs, "data_samples": None}, False)["inputs"]
        pyramid = self._pyramid(pixels)
        logits = class_logits(self.detector, pyramid)
        return dict(zip(self.strides, pyramid, strict=True)), dict(zip(self.strides, logits, strict=True))

    def fingerprint(self) -> str:
        """Of the loaded weights, which are also the ones that are evaluated; never of what was folded for reading."""
        return fingerprint(self.detector)

    def _pyramid(self, pixels: Tensor) -> tuple[Tensor, ...]:
        if torch.is_autocast_enabled(pixels.device.type):  # the folded weights are for single precision
            return tuple(self.detector.extract_feat(pixels))
        return tuple(self.detector.neck(self._reading(pixels)))

    @cached_property
    def _reading(self) -> nn.Module:
        """The backbone that looks at images; made when first needed, after whatever loads or evaluates the teacher."""
        return fit_for_reading(self.detector.backbone)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self


def fingerprint(module: nn.Module) -> str:
    """sha256 over names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
