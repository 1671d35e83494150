"""Fixtures: each test has its own service, with a real database and a drawn data set in a temporary folder."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute, Route

from api.app import create_app
from frs import events
from frs.dataset.shapes.drawing import draw_dataset
from store.artifacts.storage import Artifacts
from store.db.database import Database
from store.initialise import initialise
from store.jobs import lifecycle, recording
from store.jobs.lease import Lease
from store.settings import Settings
from store.states import EndReason, JobStatus

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
MAP_METRICS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised data folder with the data set `shapes` and a weights file, copied for each service."""
    data = tmp_path_factory.mktemp("template") / "data"
    settings = Settings(data=data)
    initialise(settings)
    draw_dataset(settings.datasets_root / "shapes", train=6, val=3, size=64)
    (settings.models_root / "teacher.pth").write_bytes(b"weights of a teacher")
    return data


@pytest.fixture
def settings(template: Path, tmp_path: Path) -> Settings:
    """Settings with a fresh copy of the template as the data folder."""
    return Settings(data=shutil.copytree(template, tmp_path / "data"))


@pytest.fixture(scope="session")
def included_routers(template: Path) -> list[BaseRoute]:
    """The routers of an application, shared by all: FastAPI compiles them in 50 ms at the first request."""
    app = create_app(Settings(data=template))
    app.state.context.close()
    return app.routes


@pytest.fixture
def app(settings: Settings, included_routers: list[BaseRoute]) -> FastAPI:
    """The application."""
    app = create_app(settings)
    pairs = zip(app.routes, included_routers, strict=True)
    app.router.routes = [own if isinstance(own, Route) else shared for own, shared in pairs]
    return app


@pytest.fixture
def service(app: FastAPI, settings: Settings) -> Iterator["Service"]:
    """The running service of one test."""
    with serve_app(app, settings) as service:
        yield service


@pytest.fixture
def serving(settings: Settings) -> Callable[..., AbstractContextManager["Service"]]:
    """Return a context manager that runs the service with `changes` of the settings."""

    def serve(**changes: Any) -> AbstractContextManager[Service]:
        changed = settings.model_copy(update=changes)
        return serve_app(create_app(changed), changed)

    return serve


@pytest.fixture(scope="module")
def shared_service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Service"]:
    """One service for all tests of a module whose requests change nothing."""
    settings = Settings(data=shutil.copytree(template, tmp_path_factory.mktemp("shared") / "data"))
    with serve_app(create_app(settings), settings) as service:
        yield service


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """Context manager: `with serve(app, settings) as service`."""
    return serve_app


@contextmanager
def serve_app(app: FastAPI, settings: Settings) -> Iterator["Service"]:
    """Run the application with the first admin key as the client's key."""
    with TestClient(app) as client:
        client.headers["Authorization"] = f"Bearer {settings.api_key_file.read_text().strip()}"
        yield Service(client, settings, app.state.context.database, app.state.context.artifacts)


@pytest.fixture
def shapes(service: "Service") -> dict[str, Any]:
    """The drawn data set, registered through the API."""
    return service.register("shapes")


@dataclass(frozen=True)
class Service:
    """The API under test, with helpers for the actions of users and workers."""

    client: TestClient
    settings: Settings
    database: Database
    artifacts: Artifacts

    def get(self, path: str, **options: Any) -> Any:
        """Return the JSON of a GET that succeeds."""
        response = self.client.get(path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def get_summary(self, job_id: str) -> Any:
        """Return a job as lists and actions return it: without the fields that only `GET /jobs/{id}` adds."""
        job = self.get(f"/jobs/{job_id}")
        details = ("attempts", "requested_action", "dependents")
        return {name: value for name, value in job.items() if name not in details}

    def assert_problem(self, response: Any, status: int, code: str) -> Any:
        """Return the problem document, after checking its status, code and fields."""
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        keys = {"type", "title", "status", "detail", "code", "hint", "errors", "request_id"}
        assert problem.keys() - {"allowed_actions"} == keys
        assert (problem["status"], problem["code"]) == (status, code), problem
        assert problem["request_id"] == response.headers["x-request-id"]
        return problem

    def register(self, name: str, **files: Any) -> Any:
        """Register a data set and return it."""
        response = self.client.post("/datasets", json={"name": name, **files})
        assert response.status_code == 201, response.text
        return response.json()

    def submit(self, spec: dict[str, Any] | None = None, **changes: Any) -> Any:
        """Submit a job and return it."""
        response = self.client.post("/jobs", json={**(spec or TRAIN), **changes})
        assert response.status_code == 201, response.text
        return response.json()

    def copy_dataset_altered(self, name: str, alter: Callable[[Path, dict[str, Any]], None]) -> None:
        """Copy the drawn data set and alter its training split with `alter(folder, annotations)`."""
        folder = shutil.copytree(self.settings.datasets_root / "shapes", self.settings.datasets_root / name)
        file = folder / "annotations" / "instances_train.json"
        document = json.loads(file.read_text())
        alter(folder, document)
        file.write_text(json.dumps(document))

    # Actions of a worker.

    def claim(self, job_id: str) -> Lease:
        """Claim a queued job and return its lease."""
        lease = self.transact(lifecycle.claim, "worker", 60.0, job_id)
        assert lease is not None
        return lease

    def record(self, lease: Lease, *batch: recording.PersistedEvent) -> None:
        """Record events of an attempt."""
        self.transact(recording.record, lease, batch)

    def evaluate(self, lease: Lease, role: events.Role, mAP: float, *, step: int = 10) -> None:
        """Record an evaluation in which every metric is `mAP`, except for `bbox_mAP_l`, which is null."""
        scores = dict.fromkeys(MAP_METRICS, mAP) | {"bbox_mAP_l": None}
        per_class = {"circle": mAP, "square": mAP, "triangle": mAP, "star": mAP}
        event = events.Evaluation(
            role=role, step=step, epoch=1, metrics=scores, per_class=per_class, images=3, detections=9, last=True
        )
        self.record(lease, event)

    def checkpoint(self, lease: Lease, content: bytes = b"0123456789", kind: str = "student") -> str:
        """Store a checkpoint and return its id."""
        sha256, path = self._write_file(lease, content)
        labels = ("best", "last") if kind == "student" else ()
        event = events.Checkpoint(
            kind=kind, path="a.pth", sha256=sha256, bytes=len(content), step=10, epoch=1, labels=labels
        )
        key = recording.checkpoint_key(lease, event)
        self.artifacts.put(path, key, sha256)
        return self.transact(recording.record_checkpoint, lease, event, key)

    def artifact(self, lease: Lease, name: str, content: bytes) -> None:
        """Store an artifact."""
        sha256, path = self._write_file(lease, content)
        event = events.Artifact(name=name, path=name, sha256=sha256, bytes=len(content))
        key = recording.artifact_key(lease, event)
        self.artifacts.put(path, key, sha256)
        self.transact(recording.record_artifact, lease, event, key)

    def finish(self, lease: Lease, status: JobStatus = JobStatus.SUCCEEDED, **options: Any) -> None:
        """End an attempt and its job."""
        self.transact(lifecycle.finish, lease, status, options.pop("end_reason", EndReason.COMPLETED), **options)

    def succeeded_job(self, **changes: Any) -> str:
        """Submit a job, finish it with a student checkpoint, and return its id."""
        lease = self.claim(self.submit(**changes)["id"])
        self.checkpoint(lease)
        self.finish(lease)
        return lease.job_id

    def transact(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return `function(session, ...)`, called in one committed transaction."""
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    def _write_file(self, lease: Lease, content: bytes) -> tuple[str, Path]:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.settings.work_root / f"{lease.job_id}-{sha256}"
        path.write_bytes(content)
        return sha256, path
