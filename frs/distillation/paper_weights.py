"""The paper's weights, by dense head. They hold for its COCO recipes only.

Source: "Distilling Object Detectors with Feature Richness", NeurIPS 2021.
"""

from frs.distillation_spec import TermName

PAPER_WEIGHTS: dict[str, dict[TermName, float]] = {
    "RetinaHead": {"feature": 0.005, "logit": 0.02},
    "GFLHead": {"feature": 0.1, "logit": 0.05},
    "RPNHead": {"feature": 0.002, "logit": 0.1},
    "FCOSHead": {"feature": 0.01, "logit": 0.05},
}
"""Weights of the feature term (alpha) and the logit term (beta), by class name of the head; `RPNHead` is Faster
R-CNN's."""
