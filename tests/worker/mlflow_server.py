"""The part of MLflow's REST API that workers use, in memory. tests/worker/test_mlflow_server.py runs MLflow's own."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts/"
Answer = tuple[int, Any]
Misbehaviour = Callable[[BaseHTTPRequestHandler], bool]


@dataclass
class Run:
    info: dict[str, Any]
    tags: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)

    def steps(self, key: str) -> list[int]:
        """Return the steps of a metric in the order in which they were logged."""
        return [point["step"] for point in self.points if point["key"] == key]

    def values(self, key: str) -> list[float]:
        return [point["value"] for point in self.points if point["key"] == key]

    def document(self) -> dict[str, Any]:
        newest = {point["key"]: point for point in sorted(self.points, key=lambda point: point["step"])}
        return {"info": self.info, "data": {"metrics": list(newest.values())}}


class MlflowServer:
    """A server on loopback; `misbehave` may answer a request in place of it and returns whether it has."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers, with lower-case names, of every request."""
        self.misbehave: Misbehaviour = lambda request: False
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._experiments: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; after `stop`, on the same port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        self._server.mlflow = self  # type: ignore[attr-defined]
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        if method == "PUT":
            self.files[unquote(path.removeprefix(FILES))] = body
            return 200, {}
        request = json.loads(body or b"{}")
        match path.removeprefix(API):
            case "experiments/get-by-name":
                [name] = query["experiment_name"]
                if name not in self._experiments:
                    return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
                return 200, {"experiment": {"experiment_id": self._experiments[name]}}
            case "experiments/create":
                id = self._experiments.setdefault(request["name"], str(len(self._experiments)))
                return 200, {"experiment_id": id}
            case "runs/search":
                run_id = request["filter"].removeprefix("tags.`frs.run_id` = '").removesuffix("'")
                return 200, {"runs": [run.document() for run in self.runs if run.tags["frs.run_id"] == run_id]}
            case "runs/create":
                id = f"run{len(self.runs)}"
                info = {"run_id": id, "artifact_uri": f"mlflow-artifacts:/0/{id}/artifacts", "status": "RUNNING"}
                run = Run(info | {"run_name": request["run_name"]}, _tags(request["tags"]))
                self.runs.append(run)
                return 200, {"run": run.document()}
            case "runs/update":
                self._run(request).info.update(request)
                return 200, {}
            case "runs/log-batch":
                run = self._run(request)
                run.points += request.get("metrics", [])
                run.parameters |= _tags(request.get("params", []))
                run.tags |= _tags(request.get("tags", []))
                return 200, {}
        return 404, {"error_code": "ENDPOINT_NOT_FOUND"}

    def _run(self, request: dict[str, Any]) -> Run:
        return next(run for run in self.runs if run.info["run_id"] == request["run_id"])


@contextmanager
def running_mlflow() -> Iterator[MlflowServer]:
    server = MlflowServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _tags(entries: list[dict[str, str]]) -> dict[str, str]:
    return {entry["key"]: entry["value"] for entry in entries}


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def _answer(self) -> None:
        mlflow: MlflowServer = self.server.mlflow
        parts = urlsplit(self.path)
        mlflow.requests.append((parts.path, {name.lower(): value for name, value in self.headers.items()}))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if mlflow.misbehave(self):
            self.close_connection = True
            return
        status, document = mlflow.answer(self.command, parts.path, parse_qs(parts.query), body)
        self.reply(status, json.dumps(document).encode())

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        pass
