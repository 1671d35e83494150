"""Every test has a service of its own: a real database and drawn data sets in a temporary folder."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

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
SIX = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("template") / "data"
    settings = Settings(data=data)
    initialise(settings)
    draw_dataset(settings.datasets_root / "shapes", train=6, val=3, size=64)
    (settings.models_root / "teacher.pth").write_bytes(b"weights of a teacher")
    return data


@pytest.fixture
def settings(template: Path, tmp_path: Path) -> Settings:
    return Settings(data=shutil.copytree(template, tmp_path / "data"))


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def service(app: FastAPI, settings: Settings) -> Iterator["Service"]:
    with serving(app, settings) as service:
        yield service


@pytest.fixture(scope="module")
def refusing(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Service"]:
    """One for all tests of a file whose requests leave nothing behind."""
    settings = Settings(data=shutil.copytree(template, tmp_path_factory.mktemp("refusing") / "data"))
    with serving(create_app(settings), settings) as service:
        yield service


@pytest.fixture
def serve() -> Callable[..., Any]:
    """`with serve(app, settings) as service`."""
    return serving


@contextmanager
def serving(app: FastAPI, settings: Settings) -> Iterator["Service"]:
    with TestClient(app) as client:
        client.headers["Authorization"] = f"Bearer {settings.api_key_file.read_text().strip()}"
        yield Service(client, settings, app.state.context.database, app.state.context.artifacts)


@pytest.fixture
def shapes(service: "Service") -> dict[str, Any]:
    """The drawn data set, registered."""
    return service.register("shapes")


@dataclass(frozen=True)
class Service:
    """The API, and short words for what users and workers do to it."""

    client: TestClient
    settings: Settings
    database: Database
    artifacts: Artifacts

    def get(self, path: str, **options: Any) -> Any:
        response = self.client.get(path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, response: Any, status: int, code: str) -> Any:
        """The problem document, which has to be a whole one."""
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        keys = {"type", "title", "status", "detail", "code", "hint", "errors", "request_id"}
        assert problem.keys() - {"allowed_actions"} == keys
        assert (problem["status"], problem["code"]) == (status, code), problem
        assert problem["request_id"] == response.headers["x-request-id"]
        return problem

    def register(self, name: str, **files: Any) -> Any:
        response = self.client.post("/datasets", json={"name": name, **files})
        assert response.status_code == 201, response.text
        return response.json()

    def submit(self, spec: dict[str, Any] | None = None, **changes: Any) -> Any:
        response = self.client.post("/jobs", json={**(spec or TRAIN), **changes})
        assert response.status_code == 201, response.text
        return response.json()

    def altered_copy(self, name: str, alter: Callable[[Path, dict[str, Any]], None]) -> None:
        """A copy of the drawn data set, its training half altered: `alter(folder, annotation document)`."""
        folder = shutil.copytree(self.settings.datasets_root / "shapes", self.settings.datasets_root / name)
        file = folder / "annotations" / "instances_train.json"
        document = json.loads(file.read_text())
        alter(folder, document)
        file.write_text(json.dumps(document))

    # what a worker does

    def claim(self, job_id: str) -> Lease:
        lease = self._do(lifecycle.claim, "worker", 60.0, job_id)
        assert lease is not None
        return lease

    def record(self, lease: Lease, *batch: recording.PersistedEvent) -> None:
        self._do(recording.record, lease, batch)

    def evaluate(self, lease: Lease, role: events.Role, mAP: float, *, step: int = 10) -> None:
        scores = dict.fromkeys(SIX, mAP) | {"bbox_mAP_l": None}
        per_class = {"circle": mAP, "square": mAP, "triangle": mAP, "star": mAP}
        event = events.Evaluation(
            role=role, step=step, epoch=1, metrics=scores, per_class=per_class, images=3, detections=9, last=True
        )
        self.record(lease, event)

    def checkpoint(self, lease: Lease, content: bytes = b"0123456789", kind: str = "student") -> str:
        sha256, path = self._file(lease, content)
        labels = ("best", "last") if kind == "student" else ()
        event = events.Checkpoint(
            kind=kind, path="a.pth", sha256=sha256, bytes=len(content), step=10, epoch=1, labels=labels
        )
        key = recording.checkpoint_key(lease, event)
        self.artifacts.put(path, key, sha256)
        return self._do(recording.record_checkpoint, lease, event, key)

    def artifact(self, lease: Lease, name: str, content: bytes) -> None:
        sha256, path = self._file(lease, content)
        event = events.Artifact(name=name, path=name, sha256=sha256, bytes=len(content))
        key = recording.artifact_key(lease, event)
        self.artifacts.put(path, key, sha256)
        self._do(recording.record_artifact, lease, event, key)

    def settle(self, lease: Lease, status: JobStatus = JobStatus.SUCCEEDED, **how: Any) -> None:
        self._do(lifecycle.finish, lease, status, how.pop("end_reason", EndReason.COMPLETED), **how)

    def trained(self, **changes: Any) -> str:
        """The id of a job that has succeeded and left a student."""
        lease = self.claim(self.submit(**changes)["id"])
        self.checkpoint(lease)
        self.settle(lease)
        return lease.job_id

    def _do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    def _file(self, lease: Lease, content: bytes) -> tuple[str, Path]:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.settings.work_root / f"{lease.job_id}-{sha256}"
        path.write_bytes(content)
        return sha256, path
