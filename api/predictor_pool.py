"""A small pool of processes that run exported files. Each serves one file, one image at a time."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from api.http.errors import ApiError
from store.artifacts.storage import Artifacts
from store.db.tables import Artifact, Document

MAX_REQUESTS = 8
"""Predictions at a time, running and waiting; each occupies a thread of the API."""
MAX_PROCESSES = 4
"""Files that stay loaded; another one replaces the one that was not used for longest."""
START_SECONDS, PREDICT_SECONDS = 60.0, 20.0
"""Time limits of loading a file and of one image."""
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")
"""Environment variables of the processes: no address, password or key."""


class PredictorPool:
    """Runs exported files. Its methods may be called from several threads."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._predictors: OrderedDict[str, _Predictor] = OrderedDict()
        self._lock = threading.Lock()
        self._places = threading.Semaphore(MAX_REQUESTS)

    def predict(self, file: Artifact, image: Path) -> tuple[Document, float]:
        """Return what `frs.export.predictor` prints for the image, with the class names, and the time in ms.

        Raises ApiError: 422 if the image cannot be read, 503 if too many requests wait, 504 after too long.
        """
        if not self._places.acquire(blocking=False):
            raise ApiError(503, "predictor_busy", "Too many predictions are waiting.", "Retry after 2 seconds.")
        try:
            predictor = self._predictor_of(file)
            with predictor.lock:
                if not predictor.is_running:
                    predictor.start(self._artifacts, file)
                started = time.perf_counter()
                answer = predictor.ask(image)
                milliseconds = 1000 * (time.perf_counter() - started)
        finally:
            self._places.release()
        if "error" in answer:
            detail = f"The image cannot be read: {answer['error']}."
            raise ApiError(422, "image_unreadable", detail, "Send a JPEG or PNG image of at most 50 million pixels.")
        return answer | {"classes": predictor.classes}, milliseconds

    def _predictor_of(self, file: Artifact) -> "_Predictor":
        """Return the predictor of a file, and end the one that was not used for longest if there are too many."""
        with self._lock:
            predictor = self._predictors.pop(file.sha256, None) or _Predictor()
            idle = [sha256 for sha256, other in self._predictors.items() if not other.lock.locked()]
            if len(self._predictors) >= MAX_PROCESSES and idle:
                self._predictors.pop(idle[0]).close()
            self._predictors[file.sha256] = predictor
        return predictor

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            predictors = list(self._predictors.values())
            self._predictors.clear()
        for predictor in predictors:
            predictor.close()


class _Predictor:
    """One process, which ends when its stdin is closed. The caller holds `lock` while it uses the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.classes: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, artifacts: Artifacts, file: Artifact) -> None:
        """Start the process on a copy of the file, which exists only until it is loaded."""
        environment = {name: value for name, value in os.environ.items() if name in _INHERITED}
        with tempfile.TemporaryDirectory(prefix="frs-predict-") as folder:
            model = Path(folder) / "student.onnx"
            artifacts.fetch(file.key, file.sha256, model, size=file.bytes)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "frs.export.predictor", str(model)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.classes = self._read(START_SECONDS)["classes"]

    def ask(self, image: Path) -> Document:
        """Return the process's answer for an image."""
        assert self._process and self._process.stdin
        with suppress(OSError):  # it has died since, which `_read` reports
            print(image, file=self._process.stdin, flush=True)
        return self._read(PREDICT_SECONDS)

    def close(self) -> None:
        """End the process."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _read(self, seconds: float) -> Document:
        """Return the next line. Kill the process and raise ApiError if there is none within `seconds`."""
        process = self._process
        assert process and process.stdout
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            self.close()
            detail = "The exported file gave no answer for this image."
            raise ApiError(504, "prediction_failed", detail, "Send a smaller image, or retry.")
        answer: Document = json.loads(line)
        return answer
