"""A small pool of processes that run exported files. Each serves one file, one image at a time."""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from api.http.errors import ApiError
from store.artifacts.storage import Artifacts
from store.db.tables import Artifact, Document

MAX_REQUESTS, MAX_REQUESTS_OF_OWNER = 8, 4
"""Predictions at a time, running and waiting; each occupies a thread of the API."""
MAX_PROCESSES = 6
"""Files that stay loaded: two students with teacher and baseline. Another one replaces the one that was not used for
longest.
"""
IDLE_SECONDS = 600
"""Time without an image after which a process ends; the next image of its file starts another one."""
START_SECONDS, PREDICT_SECONDS = 60.0, 20.0
"""Time limits of loading a file and of one image."""
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")
"""Environment variables of the processes: no address, password or key."""
_log = logging.getLogger(__name__)


class PredictorPool:
    """Runs exported files. Its methods may be called from several threads."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._predictors: OrderedDict[str, _Predictor] = OrderedDict()
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def predict(self, file: Artifact, image: Path, owner: str) -> tuple[Document, float]:
        """Return what `frs.export.predictor` prints for the image, with the class names, and the time in ms.

        Raises ApiError: 422 if the image cannot be read, 503 if too many requests run, 504 without an answer in time.
        """
        with self._reserve(file.sha256, owner) as predictor:
            if not predictor.lock.acquire(timeout=PREDICT_SECONDS):
                raise _busy()
            try:
                answered = predictor.ask(image)
                if answered is None:  # it was not started yet, or has ended since the last image
                    predictor.start(self._artifacts, file)
                    answered = predictor.ask(image)
            finally:
                predictor.lock.release()
        if answered is None:
            raise _failed("The exported file ended without an answer for this image.")
        answer, milliseconds = answered
        if "unreadable" in answer:
            detail = f"The image cannot be read: {answer['unreadable']}."
            hint = "Send a JPEG, PNG, BMP or WebP image of at most 50 million pixels."
            raise ApiError(422, "image_unreadable", detail, hint)
        if "failed" in answer:
            raise _failed(f"The exported file failed on this image: {answer['failed']}.")
        return answer | {"classes": predictor.classes}, milliseconds

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            predictors = list(self._predictors.values())
            self._predictors.clear()
        for predictor in predictors:
            predictor.close()

    @contextmanager
    def _reserve(self, sha256: str, owner: str) -> Iterator["_Predictor"]:
        """Yield the predictor of a file, which is not ended meanwhile. Raise ApiError 503 if all are in use."""
        with self._lock:
            if self._requests.total() >= MAX_REQUESTS or self._requests[owner] >= MAX_REQUESTS_OF_OWNER:
                raise _busy()
            predictor = self._predictors.pop(sha256, None)
            if predictor is None:
                self._make_room()
                predictor = _Predictor()
            self._predictors[sha256] = predictor
            self._requests[owner] += 1
            predictor.users += 1
        try:
            yield predictor
        finally:
            with self._lock:
                self._requests[owner] -= 1
                predictor.users -= 1

    def _make_room(self) -> None:
        """End the predictor that was not used for longest if there are too many. The caller holds `_lock`."""
        if len(self._predictors) < MAX_PROCESSES:
            return
        unused = next((sha256 for sha256, predictor in self._predictors.items() if not predictor.users), None)
        if unused is None:
            raise _busy()
        self._predictors.pop(unused).close()


class _Predictor:
    """One process, which ends when its stdin is closed. The caller holds `lock` while it uses the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        """Number of requests that use or wait for the process."""
        self.classes: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self, artifacts: Artifacts, file: Artifact) -> None:
        """Start the process on a copy of the file, which exists only until it is loaded. Raise ApiError 504."""
        environment = {name: value for name, value in os.environ.items() if name in _INHERITED}
        with tempfile.TemporaryDirectory(prefix="frs-predict-") as folder:
            model, log = Path(folder) / "student.onnx", Path(folder) / "log"
            artifacts.fetch(file.key, file.sha256, model, size=file.bytes)
            with log.open("w") as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "frs.export.predictor", str(model), str(IDLE_SECONDS)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            try:
                first = self._read(self._process, START_SECONDS)
            except TimeoutError:
                first = None
            if first is None:
                _log.error("exported file not loaded: %s", log.read_text()[-1000:], extra={"key": file.key})
                raise _failed("The exported file could not be loaded.")
        self.classes = first["classes"]
        _log.info("exported file loaded. %s", first["isolation"], extra={"key": file.key})

    def ask(self, image: Path) -> tuple[Document, float] | None:
        """Return the process's answer for an image and the time in ms; None if no process runs, or if it ends.

        Raises ApiError 504 if there is no answer in time.
        """
        process = self._process
        if process is None:
            return None
        assert process.stdin
        started = time.perf_counter()
        with suppress(OSError):  # it has ended, which `_read` returns
            print(image, file=process.stdin, flush=True)
        try:
            answer = self._read(process, PREDICT_SECONDS)
        except TimeoutError:
            raise _failed("The exported file gave no answer for this image in time.") from None
        return None if answer is None else (answer, 1000 * (time.perf_counter() - started))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _read(self, process: subprocess.Popen[str], seconds: float) -> Document | None:
        """Return the next line; None if the process ends. Kill it and raise TimeoutError after `seconds`."""
        assert process.stdout
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer: Document = json.loads(line)
            return answer
        self.close()
        if is_late.is_set():
            raise TimeoutError
        return None


def _busy() -> ApiError:
    detail, hint = "Too many predictions are running.", "Retry after 2 seconds."
    return ApiError(503, "predictor_busy", detail, hint, headers={"Retry-After": "2"})


def _failed(detail: str) -> ApiError:
    return ApiError(504, "prediction_failed", detail, "Retry, or try a smaller image; the API's log has the reason.")
