"""A service in which something of every kind is there, and the ids and bodies with which to ask it for that."""

import copy
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import APIOperation

from frs import events
from store.jobs import actions
from store.requests import worker_requests
from store.scheduling import worker_registry
from store.scheduling.queue import GpuCapacity
from store.states import EndReason, JobStatus

Ids = Mapping[str, list[str]]
"""By the name of a parameter in a path or a query."""
GFL = {"architecture": "gfl"}
TRAIN = {"kind": "train", "dataset": "shapes", "student": GFL}
DISTILL = {
    "dataset": "shapes",
    "student": GFL,
    "teacher": GFL | {"init": {"weights": "teacher.pth"}},
    "baseline": {"seeds": 2},
    "tags": ["a"],
}
FILES = {
    split: {"images": f"shapes/{split}", "annotations": f"shapes/annotations/instances_{split}.json"}
    for split in ("train", "val")
}
BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "POST /jobs": lambda name: TRAIN | {"name": name},
    "POST /jobs/plan": lambda name: DISTILL | {"name": name},
    "POST /datasets": lambda name: FILES | {"name": name},
    "POST /detectors": lambda name: {"name": name, "description": GFL, "weights": "teacher.pth"},
    "POST /api-keys": lambda name: {"name": name, "owner": "somebody"},
    "PATCH /jobs/{job_id}": lambda name: {"name": name},
}
"""What is accepted, under a name of its own; one field of it at a time is replaced by a generated one."""
CONFIG = {
    "generation": {"with-security-parameters": False},  # the key is ours to send or to leave out
    "output": {"sanitization": {"enabled": False}},
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 404, 409, 413, 415, 416, 422]}},
}
STREAM = "text/event-stream"


def api_fixtures() -> Any:
    """tests/api/conftest.py, as tests/hostile/conftest.py has loaded it."""
    return sys.modules["api_fixtures"]


def populate(service: Any) -> Ids:
    """`service`: that of tests/api. Several of each kind, so that some are left for whoever comes late."""
    names = ["shapes", *(f"shapes-{number}" for number in range(5))]
    datasets = [service.register(name, **FILES)["id"] for name in names]
    jobs = [job for _ in range(3) for job in _jobs(service)][::-1]
    weights = {"description": GFL, "weights": "teacher.pth"}
    return {
        "job_id": jobs,
        "jobs": [",".join(jobs[:2]), ",".join(jobs[3:8])],
        "dataset": [*datasets, *names],
        "detector": [*(_post(service, "/detectors", name=f"t{n}", **weights) for n in range(4)), "t0", "t1"],
        "key_id": [_post(service, "/api-keys", name=f"k{n}", owner="somebody") for n in range(4)],
        "plan_id": list(_plans(service)),
        "checkpoint_id": [row["id"] for job in jobs for row in service.get(f"/jobs/{job}/checkpoints")["data"]],
        "name": ["report.json", "student-config.py", "gfl_r101_r50_1x"],
    }


def operations(document: dict[str, Any]) -> list[APIOperation]:
    """All that end; those that delete come last."""
    schemathesis.serializer(*_file_types(document))(_as_file)
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))
    found = [result.ok() for result in schema.get_all_operations()]
    return sorted((it for it in found if not _streams(it)), key=lambda it: it.method.lower() == "delete")


def parameters(operation: APIOperation) -> list[str]:
    return [it.name for it in operation.path_parameters]


def label(operation: APIOperation) -> str:
    return f"{operation.method.upper()} {operation.path}"


def acceptable(operation: APIOperation) -> dict[str, Any] | None:
    """A new body that this takes, where one is known."""
    made = BODIES.get(label(operation))
    return copy.deepcopy(made(f"n{secrets.token_hex(6)}")) if made else None


def _streams(operation: APIOperation) -> bool:
    answers = operation.definition.raw["responses"].values()
    return any(STREAM in answer.get("content", {}) for answer in answers)


def _file_types(document: dict[str, Any]) -> set[str]:
    """Of bodies that are files."""
    described = (operation.get("requestBody", {}) for path in document["paths"].values() for operation in path.values())
    return {type for body in described for type in body.get("content", {})} - {"application/json"}


def _as_file(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _jobs(service: Any) -> Iterator[str]:
    """One in each state, or two."""
    yield service.submit(DISTILL)["id"]
    service._do(
        worker_registry.register, "worker", host="here", version="1", concurrency=2, gpus=[{"index": 0, "name": "A"}]
    )
    running = service.claim(service.submit(TRAIN)["id"])
    _learn(service, running)
    yield running.job_id
    paused = service.submit(TRAIN)["id"]
    service._do(actions.pause, paused)
    yield paused
    cancelled = service.submit(TRAIN)["id"]
    service._do(actions.cancel, cancelled)
    yield cancelled
    failed = service.claim(service.submit(TRAIN)["id"])
    problem = events.ErrorInfo(code="diverged", message="The loss became nan.", hint="Lower it.")
    service.settle(failed, JobStatus.FAILED, end_reason=EndReason.DIVERGED, error=problem)
    yield failed.job_id
    for _ in range(2):
        done = service.claim(service.submit(DISTILL | {"baseline": False})["id"])
        _learn(service, done)
        service.artifact(done, "report.json", b"{}")
        service.artifact(done, "student-config.py", b"model = 1")
        service.settle(done)
        yield done.job_id


def _learn(service: Any, lease: Any) -> None:
    for step in range(5):
        values = {"train/loss": 1 / (1 + step), "val/bbox_mAP_l": None}
        service.record(lease, events.Metrics(step=step, epoch=0, values=values))
    progress = events.Progress(epoch=0, epochs=1, step=5, steps=9, fraction=0.5)
    service.record(lease, progress, events.Log(message="a line"))
    service.evaluate(lease, "student", 0.5)
    service.checkpoint(lease)
    service.checkpoint(lease, b"training", kind="training")


def _plans(service: Any) -> Iterator[str]:
    """One that waits, one that has been probed, one that nobody could probe."""
    probed, failed, waiting = (_post(service, "/jobs/plan?probe=true", **TRAIN) for _ in range(3))
    forecast = {"ok": True, "checks": [], "steps": 3, "seconds_per_step": 0.5, "student": None}
    problem = events.ErrorInfo(code="internal_error", message="It died.", hint="See the log.")
    service._do(
        worker_requests.finish, service._do(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1)), result=forecast
    )
    service._do(
        worker_requests.finish, service._do(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1)), error=problem
    )
    yield from (probed, failed, waiting)


def _post(service: Any, path: str, **body: Any) -> str:
    response = service.client.post(path, json=body)
    assert response.is_success, response.text
    return str(response.json()["id"])
