"""The paper's weights, by dense head. They hold for its COCO recipes only.

Source: "Distilling Object Detectors with Feature Richness", NeurIPS 2021.
"""

from typing import NamedTuple


class PaperWeights(NamedTuple):
    """Weights of the feature term (alpha) and the logit term (beta)."""

    feature: float
    logit: float


PAPER_WEIGHTS = {
    "RetinaHead": PaperWeights(0.005, 0.02),
    "GFLHead": PaperWeights(0.1, 0.05),
    "RPNHead": PaperWeights(0.002, 0.1),
    "FCOSHead": PaperWeights(0.01, 0.05),
}
"""Weights by class name of the head; `RPNHead` is Faster R-CNN's."""
