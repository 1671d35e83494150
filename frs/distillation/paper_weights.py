"""The weights the paper trained with, by dense head. They hold for its COCO recipes only."""

from typing import NamedTuple


class PaperWeights(NamedTuple):
    feature: float
    logit: float


PAPER_WEIGHTS = {
    "RetinaHead": PaperWeights(0.005, 0.02),
    "GFLHead": PaperWeights(0.1, 0.05),
    "RPNHead": PaperWeights(0.002, 0.1),
    "FCOSHead": PaperWeights(0.01, 0.05),
}
