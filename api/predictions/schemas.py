"""Models of predictions."""

from typing import Literal

from api.http.schemas import ResponseModel

Compared = Literal["teacher", "baseline"]
Role = Literal["student", "teacher", "baseline", "detector"]


class DetectedObject(ResponseModel):
    """An object on the image."""

    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the image."""
    score: float
    """0 to 1."""
    label: str
    """Class name."""


class PredictionResult(ResponseModel):
    """The objects that one detector finds."""

    role: Role
    job_id: str
    """Id of the export whose file was run."""
    milliseconds: float
    """Time of reading the image and predicting in ms, on one CPU thread."""
    objects: list[DetectedObject]
    """Objects, the highest scores first."""


class Prediction(ResponseModel):
    """What the detectors find on one image."""

    width: int
    """Width of the image in pixels, after turning it upright."""
    height: int
    results: list[PredictionResult]
    """The student or detector, then what it is compared with, in the order of `compare`."""
