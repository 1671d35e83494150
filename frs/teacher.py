"""The teacher, held outside the student's module tree.

A child module would be initialised anew by `init_weights()`, put into train mode, copied by EMA and saved with every
checkpoint. A plain object is none of these.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from frs.heads import Detector, class_logits, strides

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
        pyramid = self.detector.extract_feat(pixels)
        logits = class_logits(self.detector, pyramid)
        return dict(zip(self.strides, pyramid, strict=True)), dict(zip(self.strides, logits, strict=True))

    def fingerprint(self) -> str:
        return fingerprint(self.detector)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self


def fingerprint(module: nn.Module) -> str:
    """sha256 over names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
