"""Precision-recall curves by COCO's definition.

The precision at each of 101 recall levels is the highest at that recall or above, averaged over the classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from frs.comparison.pictures.style import COLOURS, LABELS, PAGE, picture
from frs.evaluation.bootstrap import RECALLS
from frs.evaluation.matching import IGNORED, TRUE_POSITIVE, ClassMatches

MatchesByRole = Mapping[str, Sequence[ClassMatches]]
"""The matches of `teacher`, `baseline` and `student`; an absent role is not drawn."""
_THRESHOLDS = {0: "IoU 0.50", 5: "IoU 0.75"}


@picture
def draw(matches_by_role: MatchesByRole) -> Figure:
    """Draw the curves at IoU 0.50 and 0.75."""
    figure = Figure(figsize=(PAGE, 3.9), layout="constrained")
    for axes, (threshold, title) in zip(figure.subplots(1, 2, sharey=True), _THRESHOLDS.items(), strict=True):
        for role, matches in matches_by_role.items():
            precision = precision_at(matches, threshold)
            label = f"{LABELS[role]}, AP {100 * precision.mean():.1f}"
            axes.plot(RECALLS, precision, color=COLOURS[role], linewidth=1.4, label=label)
        axes.set(title=title, xlabel="recall", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.axes[0].set_ylabel("precision, mean over classes")
    return figure


def precision_at(matches: Sequence[ClassMatches], threshold: int) -> NDArray[np.float64]:
    """Return the precision at each recall level for objects of all sizes, (101,); zeros without objects.

    `threshold` is an index of the IoU thresholds.
    """
    curves = [_class_precision(of_class, threshold) for of_class in matches if of_class.objects[:, 0].sum()]
    return np.mean(curves, axis=0) if curves else np.zeros(len(RECALLS))


def _class_precision(matches: ClassMatches, threshold: int) -> NDArray[np.float64]:
    """Return one class's precision at each recall level, (101,)."""
    outcome = matches.outcome[:, 0, threshold]
    hits, detections = (outcome == TRUE_POSITIVE).cumsum(), (outcome != IGNORED).cumsum()
    precision = hits / np.maximum(detections, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(hits / matches.objects[:, 0].sum(), RECALLS)
    return np.append(best, 0.0)[first]
