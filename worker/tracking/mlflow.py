"""Runs in an MLflow server, over its REST API.

The API (https://mlflow.org/docs/latest/rest-api.html) instead of MLflow's client, whose dependencies conflict with
this project's: docs/decisions/0026-trackers.md.
"""

import re
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel, SecretStr, ValidationError

from store.states import JobStatus
from worker.tracking.tracker import Point, RunEnd, TrackedRun, TrackerRefused, TrackerUnavailable

TIMEOUT = httpx2.Timeout(10.0)
"""Seconds to connect, and between two parts of a request or an answer."""
ANSWER_SECONDS = 30.0
"""Longest time in which an answer may arrive."""
MAX_ANSWER = 4 << 20
"""Largest answer in bytes."""
METRICS_PER_CALL, PARAMETERS_PER_CALL = 1000, 100
"""MLflow's limits of `runs/log-batch`."""
MAX_PARAMETER = 6000
"""MLflow's limit of a parameter's length."""
RUN_ID_TAG = "frs.run_id"
T = TypeVar("T")
_CHUNK = 1 << 20
_BUSY = (408, 425, 429)
"""Statuses below 500 after which a call is repeated."""
_STATUSES = {JobStatus.SUCCEEDED: "FINISHED", JobStatus.FAILED: "FAILED", JobStatus.CANCELLED: "KILLED"}
_WAITING = "SCHEDULED"
"""Status of a run whose job waits for its next attempt."""


class _Info(BaseModel):
    run_id: str
    artifact_uri: str = ""


class _Metric(BaseModel):
    key: str
    step: int


class _Data(BaseModel):
    metrics: list[_Metric] = []


class _Run(BaseModel):
    info: _Info
    data: _Data = _Data()


class _Experiment(BaseModel):
    experiment_id: str


class _Answer(BaseModel):
    """The fields of all answers that are read."""

    run: _Run | None = None
    runs: list[_Run] = []
    experiment: _Experiment | None = None
    experiment_id: str | None = None


class MlflowTracker:
    """A run of an experiment; see `worker.tracking.tracker.Tracker`.

    The run is found again by its tag `frs.run_id`. A value is left out if the run already has one of that key and step
    or of a later step, since MLflow would keep both.
    """

    name = "MLflow"
    hint = "See FRS_MLFLOW_URL, FRS_MLFLOW_TOKEN and the log of the MLflow server."

    def __init__(self, url: str, token: SecretStr | None, experiment: str) -> None:
        """`url` may contain a user name and a password."""
        self._url, self._token, self._experiment = url, token, experiment
        self._http: httpx2.Client | None = None
        self._run = _Info(run_id="")
        self._last_steps: dict[str, int] = {}
        """Step of the last value by metric key."""

    def start(self, run: TrackedRun) -> None:
        """Create the run, or continue it; its parameters are written again, in case an attempt was lost before."""
        self.close()
        self._http = _connect(self._url, self._token)
        found = self._find_or_create(run)
        self._run = found.info
        self._last_steps = {metric.key: metric.step for metric in found.data.metrics}
        self._post("runs/update", run_id=self._run.run_id, status="RUNNING", run_name=run.name)
        parameters = [{"key": key, "value": value[:MAX_PARAMETER]} for key, value in run.parameters.items()]
        for chunk in _chunks(parameters, PARAMETERS_PER_CALL):
            self._post("runs/log-batch", run_id=self._run.run_id, params=chunk)

    def add_points(self, points: list[Point]) -> None:
        """Add the values of steps after the last one."""
        values = [value for point in points for value in self._new_values(point)]
        for chunk in _chunks(values, METRICS_PER_CALL):
            self._post("runs/log-batch", run_id=self._run.run_id, metrics=chunk)
            for value in chunk:
                self._last_steps[value["key"]] = value["step"]

    def add_file(self, name: str, content: BinaryIO, size: int) -> None:
        """Upload the file through the server."""
        root = urlsplit(self._run.artifact_uri)
        if root.scheme != "mlflow-artifacts":
            raise TrackerRefused(
                f"files of this experiment lie in {root.scheme or 'a folder'}, not behind the server; set its "
                "--artifacts-destination, and choose a new experiment"
            )
        path = quote(f"{root.path.strip('/')}/{name}")
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=_read(content), headers=headers)

    def end(self, end: RunEnd) -> None:
        """Set MLflow's status: KILLED for a cancelled job, SCHEDULED for one that a later attempt continues."""
        tags = {"frs.status": str(end.status), "frs.end_reason": end.reason or ""}
        self._post("runs/log-batch", run_id=self._run.run_id, tags=_tags(tags))
        ended_at = {"end_time": _milliseconds(time.time())} if end.status.is_terminal else {}
        self._post("runs/update", run_id=self._run.run_id, status=_STATUSES.get(end.status, _WAITING), **ended_at)

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()

    def _find_or_create(self, run: TrackedRun) -> _Run:
        experiment_id = self._experiment_id()
        this_run = f"tags.`{RUN_ID_TAG}` = '{run.id}'"
        found = self._post("runs/search", experiment_ids=[experiment_id], filter=this_run, max_results=1).runs
        if found:
            return found[0]
        tags = {
            RUN_ID_TAG: run.id,
            "frs.job_id": run.job_id,
            "frs.kind": run.kind,
            "frs.group": run.group,
            "frs.tags": ", ".join(run.tags),
            "mlflow.user": run.owner,
            "mlflow.source.name": "frs",
        }
        created = self._post(
            "runs/create",
            experiment_id=experiment_id,
            run_name=run.name,
            start_time=_milliseconds(time.time()),
            tags=_tags(tags),
        )
        return _required(created.run)

    def _experiment_id(self) -> str:
        """Return the id of the experiment; create it unless it exists."""
        try:
            return self._find_experiment()
        except TrackerRefused:
            try:
                return _required(self._post("experiments/create", name=self._experiment).experiment_id)
            except TrackerRefused:  # another worker may have created it just now
                return self._find_experiment()

    def _find_experiment(self) -> str:
        path = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(self._experiment, safe='')}"
        return _required(self._call("GET", path).experiment).experiment_id

    def _new_values(self, point: Point) -> list[dict[str, Any]]:
        at = _milliseconds(point.at)
        return [
            {"key": key, "value": value, "timestamp": at, "step": point.step}
            for key, value in point.values.items()
            if point.step > self._last_steps.get(key, -1)
        ]

    def _post(self, path: str, **fields: Any) -> _Answer:
        return self._call("POST", f"/api/2.0/mlflow/{path}", json=fields)

    def _call(self, method: str, path: str, **options: Any) -> _Answer:
        """Return the answer. Raise TrackerUnavailable or TrackerRefused if there is none, or another one."""
        until = time.monotonic() + ANSWER_SECONDS
        try:
            with _required(self._http).stream(method, path, **options) as response:
                body = _body(response, until)
        except httpx2.RequestError as error:
            raise TrackerUnavailable(type(error).__name__) from None
        status = response.status_code
        if status >= 500 or status in _BUSY:
            raise TrackerUnavailable(f"HTTP {status}")
        if not response.is_success:
            raise TrackerRefused(f"HTTP {status} {_error_code(body)}".rstrip())
        try:
            return _Answer.model_validate_json(body or b"{}")
        except ValidationError:
            raise TrackerUnavailable("the answer is not MLflow's") from None


def _connect(url: str, token: SecretStr | None) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    return httpx2.Client(base_url=url, headers={**headers, "Accept-Encoding": "identity"}, timeout=TIMEOUT)


def _body(response: httpx2.Response, until: float) -> bytes:
    body = b""
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise TrackerUnavailable("the answer is too long")
        if time.monotonic() > until:
            raise TrackerUnavailable("the answer takes too long")
    return body


def _error_code(body: bytes) -> str:
    """Return MLflow's code of the error, such as `RESOURCE_DOES_NOT_EXIST`; empty for any other text.

    The text would be in the job's log, and a server may quote the request, which contains the token.
    """
    found = re.search(rb'"error_code": ?"([A-Z_]{3,60})"', body)
    return found[1].decode() if found else ""


def _required(value: T | None) -> T:
    if value is None:
        raise TrackerUnavailable("the answer is not MLflow's")
    return value


def _read(content: BinaryIO) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK):
        yield chunk


def _chunks(items: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
