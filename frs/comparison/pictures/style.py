"""The style of all pictures: sizes for a printed page, colours for colour-blind readers (Okabe and Ito)."""

import io
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

P = ParamSpec("P")
COLOURS = {"teacher": "#000000", "baseline": "#D55E00", "student": "#0072B2"}
LABELS = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}
OTHERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
PAGE = 7.0
"""Width of a picture in inches."""
_STYLE: Any = {
    "font.size": 8,
    "text.parse_math": False,  # class names are user input and may contain dollar signs
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.dpi": 160,
}


def picture(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Decorate a function that draws a figure: apply the style and return the figure as PNG."""

    @wraps(draw)
    def draw_png(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            content = io.BytesIO()
            FigureCanvasAgg(figure).print_png(content)
        return content.getvalue()

    return draw_png


def hide_frame(axes: Axes) -> None:
    """Remove ticks, grid and frame, as for an image."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
