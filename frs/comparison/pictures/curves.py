"""Training curves: mAP on the validation images and the terms of the distilled student's loss, by step."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from frs.comparison.pictures.style import COLOURS, LABELS, OTHERS, PAGE, picture
from frs.resolved import MAP, FinishedRun

Curve = list[tuple[int, float | None]]


@picture
def draw(runs: Sequence[FinishedRun], teacher: float | None) -> Figure:
    """Draw the curves of `runs`. `teacher` is the teacher's mAP, 0 to 1; None: it is not drawn."""
    figure = Figure(figsize=(PAGE, 3.4), layout="constrained")
    precision, losses = figure.subplots(1, 2)
    _draw_precision(precision, runs, teacher)
    _draw_losses(losses, runs)
    return figure


def _draw_precision(axes: Axes, runs: Sequence[FinishedRun], teacher: float | None) -> None:
    if teacher is not None:
        axes.axhline(100 * teacher, color=COLOURS["teacher"], linestyle="--", linewidth=1, label=LABELS["teacher"])
    for role in ("baseline", "student"):
        curves = [run.curves.get(MAP, []) for run in runs if run.role == role]
        _draw_runs(axes, curves, COLOURS[role], LABELS[role])
    axes.set(title="Validation", xlabel="training step", ylabel="mAP (%)", xlim=(0, None), ylim=(0, None))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _draw_runs(axes: Axes, curves: list[Curve], colour: str, label: str) -> None:
    """Draw a single run as a thick line; several as thin lines and their mean over common steps as a thick one."""
    several = len(curves) > 1
    for curve in curves:
        x, y = _points(curve)
        style = {"linewidth": 0.7, "alpha": 0.5} if several else {"linewidth": 1.5, "label": label}
        axes.plot(x, 100 * y, color=colour, marker="." if len(x) == 1 else None, **style)
    if several:
        common_steps = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
        means = [np.mean([dict(curve)[step] or 0.0 for curve in curves]) for step in common_steps]
        mean_label = f"{label}, mean of {len(curves)} seeds"
        marker = "_" if len(common_steps) == 1 else None
        axes.plot(
            common_steps,
            100 * np.array(means),
            color=colour,
            linewidth=1.8,
            marker=marker,
            markersize=14,
            label=mean_label,
        )


def _draw_losses(axes: Axes, runs: Sequence[FinishedRun]) -> None:
    first = next((run for run in runs if run.role == "student"), None)
    curves = first.curves if first else {}
    for number, key in enumerate(sorted(key for key in curves if key != MAP)):
        x, y = _points(curves[key])
        name = key.removeprefix("train/").replace("_", " ")
        total = {"color": "#000000", "zorder": 3} if name == "loss" else {"color": OTHERS[number % len(OTHERS)]}
        axes.plot(x, _smooth(y), linewidth=1, label="total loss" if name == "loss" else name, **total)
    seed = f" (seed {first.seed})" if first else ""
    axes.set(title=f"Distilled student's losses{seed}", xlabel="training step", ylabel="unweighted, log scale")
    axes.set_yscale("log")
    if curves:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _points(curve: Curve) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    valid = [(step, value) for step, value in curve if value is not None]
    return np.array([step for step, _ in valid]), np.array([value for _, value in valid], dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Return the running mean over 5 % of the points."""
    width = max(1, len(values) // 20)
    sums = np.cumsum(np.pad(values, (width, 0), mode="edge")) if len(values) else values
    return (sums[width:] - sums[:-width]) / width if len(values) else values
