# Written by `make client` from aio/detectors.py: change that file.
"""`client.detectors`."""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from frs_client.answers import Json, body_of, parse
from frs_client.errors import ServiceError
from frs_client.files import image_type
from frs_client.models import ConfigDetector, DescribedDetector, Detector, Prediction
from frs_client.requests import Progress, no_progress, path_of
from frs_client.sync.transport import Transport

IMPORT_POLL_SECONDS = 1.0
Description = ConfigDetector | DescribedDetector | Mapping[str, Any]


class Detectors:
    """Detectors: teachers and published students. `detector` is an id or a name."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def upload(
        self,
        name: str,
        weights: Path | str,
        description: Description,
        *,
        classes: Collection[str] | None = None,
        progress: Progress = no_progress,
    ) -> Detector:
        """Upload a PyTorch or safetensors file; `wait` for the returned detector, which a worker then imports.

        `description` is the architecture, such as `{"architecture": "gfl", "backbone": {"depth": 18}}`, or an mmdet
        config. `classes` are the class names in the order of the labels, if the file does not have them. `progress` is
        called with the number of bytes sent and their total.
        """
        query = {
            "name": name,
            "description": json.dumps(body_of(description)),
            "classes": None if classes is None else ",".join(classes),
        }
        row = self._client.upload("/detectors/upload", Path(weights), "application/octet-stream", progress, **query)
        return parse(Detector, row)

    def wait(
        self, detector: str, timeout: float = math.inf, *, report: Callable[[Detector], None] = lambda _: None
    ) -> Detector:
        """Wait until a worker has imported the detector and return it.

        `report` is called whenever there is a new reason why it waits, in `error`. Raises ServiceError if the file is
        refused, and TimeoutError after `timeout` seconds.
        """
        reported = None
        for answer in self._client.poll(path_of("detectors", detector), IMPORT_POLL_SECONDS, timeout):
            row = parse(Detector, answer)
            if row.status == "refused" and row.error:
                raise ServiceError(f"{row.error.code}: {row.error.message}", row.error.hint)
            if row.status != "importing":
                return row
            if row.error and row.error != reported:
                report(row)
            reported = row.error
        raise TimeoutError(f"Detector {detector} has not been imported in time.")

    def register(
        self,
        name: str,
        *,
        job: str | None = None,
        description: Description | None = None,
        weights: str | None = None,
        classes: Collection[str] | None = None,
    ) -> Detector:
        """Register a detector: the last student of `job`, or a `description` and a file of the models folder."""
        body = {
            "name": name,
            "job": job,
            "description": None if description is None else body_of(description),
            "weights": weights,
            "classes": None if classes is None else [*classes],
        }
        given = {field: value for field, value in body.items() if value is not None}
        return parse(Detector, self._client.post("/detectors", given))

    def list(self) -> Iterator[Detector]:
        """Yield the detectors, newest first."""
        for row in self._client.each("/detectors"):
            yield parse(Detector, row)

    def get(self, detector: str) -> Detector:
        """Return a detector."""
        return parse(Detector, self._client.get(path_of("detectors", detector)))

    def predict(
        self,
        detector: str,
        image: Path | str,
        *,
        threshold: float = 0.3,
        format: Literal["onnx", "onnx-int8", "onnx-no-nms"] = "onnx",
    ) -> Prediction:
        """Find objects on an image of at most 20 MB with an exported detector.

        `threshold` is the lowest score, 0 to 1. Boxes are x1, y1, x2, y2 in pixels.
        """
        file = Path(image)
        query: Json = {"threshold": threshold, "format": format}
        path = path_of("detectors", detector, "predict")
        return parse(Prediction, self._client.upload(path, file, image_type(file), **query))

    def delete(self, detector: str) -> None:
        """Remove a detector; the job that it comes from is kept."""
        self._client.delete(path_of("detectors", detector))
