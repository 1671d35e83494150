"""The teacher: a frozen detector outside the student's module tree.

As a submodule it would be re-initialised by `init_weights()`, set to train mode, copied by an EMA and saved in every
checkpoint.
"""

import hashlib
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from frs.detectors.folding import optimize_backbone
from frs.detectors.heads import Detector, class_logits, strides
from frs.facts import TeacherClasses

Levels = dict[int, Tensor]
"""One tensor per pyramid level, by stride in pixels."""


class Teacher:
    """A detector in eval mode and without gradients."""

    def __init__(self, detector: Detector, classes: TeacherClasses | None = None) -> None:
        self.detector = detector.eval().requires_grad_(False)
        self.classes = classes
        """Its classes, unless they are the data set's."""
        self.preprocessor = detector.data_preprocessor
        """Its data preprocessor, or a copy that pads as the student's does."""
        self.strides = strides(detector)
        self.sha256 = self.fingerprint()
        """Fingerprint of the weights at the start."""

    @torch.no_grad()
    def observe(self, inputs: list[Tensor]) -> tuple[Levels, Levels]:
        """Return pyramid features (N, C, H, W) and class logits (N, K, H, W) by stride, for raw images (3, H, W).

        The images are normalised with the teacher's own mean and deviation.
        """
        pixels = self.preprocessor({"inputs": inputs, "data_samples": None}, False)["inputs"]
        pyramid = self._pyramid(pixels)
        logits = class_logits(self.detector, pyramid)
        return dict(zip(self.strides, pyramid, strict=True)), dict(zip(self.strides, logits, strict=True))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the loaded weights, lower-case hex.

        The loaded weights are also the ones that are evaluated; the optimized copy of the backbone is not included.
        """
        return fingerprint(self.detector)

    def _pyramid(self, pixels: Tensor) -> tuple[Tensor, ...]:
        if torch.is_autocast_enabled(pixels.device.type):  # the optimized backbone supports fp32 only
            return tuple(self.detector.extract_feat(pixels))
        return tuple(self.detector.neck(self._optimized_backbone(pixels)))

    @cached_property
    def _optimized_backbone(self) -> nn.Module:
        """The backbone for `observe`. It is built at first use, after the teacher is loaded and evaluated."""
        return optimize_backbone(self.detector.backbone)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of the names and bytes of all parameters and buffers, lower-case hex."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
