"""Metric curves as rows and as frames of pandas or polars, neither of which this package depends on."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from frs_client.models import Metrics

if TYPE_CHECKING:
    import pandas
    import polars


class MetricCurves(Metrics):
    """The metric curves of a job."""

    x_name: str = "step"
    """What `x` of the series is: `step`, `epoch` or `time`, in seconds since 1970 (UTC)."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per point, with the fields `key`, `step` (or `epoch`, `time`) and `value`.

        The value is None where the metric is undefined, such as the mAP of a size without objects.
        """
        return [
            {"key": series.key, self.x_name: x, "value": y}
            for series in self.series
            for x, y in zip(series.x, series.y, strict=True)
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas frame. Raises ImportError if pandas is not installed."""
        frame: pandas.DataFrame = _load("pandas").DataFrame(self.rows(), columns=["key", self.x_name, "value"])
        return frame

    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a polars frame. Raises ImportError if polars is not installed."""
        library = _load("polars")
        x_type = library.Int64 if self.x_name == "step" else library.Float64
        schema = {"key": library.String, self.x_name: x_type, "value": library.Float64}
        frame: polars.DataFrame = library.DataFrame(self.rows(), schema=schema)
        return frame


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is not installed: pip install {name}. Without it, use rows().") from None
