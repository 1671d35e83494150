"""Metric curves as rows and as frames."""

import sys
from typing import Any

import pytest

from frs_client import MetricCurves

CURVES = MetricCurves.model_validate(
    {
        "x_name": "epoch",
        "next_since": 9,
        "series": [
            {
                "key": key,
                "x": [1, 2.5],
                "y": [0.5, last],
                "count": 2,
                "min": 0.5,
                "max": 0.5,
                "last": last,
                "sampled": False,
            }
            for key, last in (("train/loss", 0.25), ("val/bbox_mAP_s", None))
        ],
    }
)
ROWS = [
    {"key": "train/loss", "epoch": 1, "value": 0.5},
    {"key": "train/loss", "epoch": 2.5, "value": 0.25},
    {"key": "val/bbox_mAP_s", "epoch": 1, "value": 0.5},
    {"key": "val/bbox_mAP_s", "epoch": 2.5, "value": None},
]


def test_each_point_is_a_row() -> None:
    assert CURVES.rows() == ROWS


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_without_the_library_the_error_names_the_next_step(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as Python does for a module that is not found
    with pytest.raises(ImportError, match=rf"{library} is not installed: pip install {library}.*rows\(\)"):
        getattr(CURVES, f"to_{library}")()


@pytest.mark.parametrize("curves", [CURVES, CURVES.model_copy(update={"series": []})])
def test_a_pandas_frame_has_a_row_per_point(curves: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = curves.to_pandas()
    assert list(frame.columns) == ["key", "epoch", "value"]
    assert frame.astype(object).where(pandas.notna(frame), None).to_dict("records") == curves.rows()


@pytest.mark.parametrize("curves", [CURVES, CURVES.model_copy(update={"series": []})])
def test_a_polars_frame_has_a_row_per_point(curves: Any) -> None:
    pytest.importorskip("polars")
    assert curves.to_polars().to_dicts() == curves.rows()
