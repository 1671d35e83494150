"""A service with objects of every kind, and the ids and bodies for requests about them."""

import copy
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import APIOperation

from frs import events
from store.db.sweep_tables import Sweep
from store.jobs import actions
from store.requests import worker_requests
from store.scheduling import worker_registry
from store.scheduling.queue import GpuCapacity
from store.states import EndReason, JobStatus, SweepStatus
from store.sweeps.lock import lock_sweeps

Ids = Mapping[str, list[str]]
"""Ids by the name of a path or query parameter."""
GFL = {"architecture": "gfl"}
TRAIN = {"kind": "train", "dataset": "shapes", "student": GFL}
DISTILL = {
    "dataset": "shapes",
    "student": GFL,
    "teacher": GFL | {"init": {"weights": "teacher.pth"}},
    "baseline": {"seeds": 2},
    "tags": ["a"],
}
SWEEP = {"spec": DISTILL, "space": {"distillation.feature_ratio": [10, 30]}, "concurrency": 1}
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
    "POST /webhooks": lambda name: {"url": f"https://hooks.invalid/{name}"},
    "POST /sweeps": lambda name: SWEEP | {"name": name},
    "PATCH /jobs/{job_id}": lambda name: {"name": name},
}
"""Valid bodies with a given name; the tests replace one field at a time by a generated value."""
CONFIG = {
    "generation": {"with-security-parameters": False},  # the tests send the key themselves, or omit it
    "output": {"sanitization": {"enabled": False}},
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 404, 409, 413, 415, 416, 422]}},
}
STREAM = "text/event-stream"


def api_fixtures() -> Any:
    """Return the module tests/api/conftest.py, which tests/hostile/conftest.py has loaded."""
    return sys.modules["api_fixtures"]


def populate(service: Any) -> Ids:
    """Create several objects of each kind in the `service` of tests/api, as requests may delete some of them."""
    names = ["shapes", *(f"shapes-{number}" for number in range(5))]
    datasets = [service.register(name, **FILES)["id"] for name in names]
    webhooks = [_post(service, "/webhooks", url="https://hooks.invalid") for _ in range(2)]
    jobs = [job for _ in range(3) for job in _jobs(service)][::-1]
    weights = {"description": GFL, "weights": "teacher.pth"}
    return {
        "job_id": jobs,
        "jobs": [",".join(jobs[:2]), ",".join(jobs[3:8])],
        "dataset": [*datasets, *names],
        "detector": [*(_post(service, "/detectors", name=f"t{n}", **weights) for n in range(4)), "t0", "t1"],
        "key_id": [_post(service, "/api-keys", name=f"k{n}", owner="somebody") for n in range(4)],
        "plan_id": list(_plans(service)),
        "webhook_id": webhooks,
        "delivery_id": [row["id"] for row in service.get(f"/webhooks/{webhooks[0]}/deliveries")["data"]],
        "sweep_id": list(_sweeps(service)),
        "checkpoint_id": [row["id"] for job in jobs for row in service.get(f"/jobs/{job}/checkpoints")["data"]],
        "name": ["report.json", "student-config.py", "gfl_r101_r50_1x"],
    }


def operations(document: dict[str, Any]) -> list[APIOperation]:
    """Return all operations whose response ends (no streams), DELETE operations last."""
    schemathesis.serializer(*_file_types(document))(_as_file)
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))
    all_operations = [result.ok() for result in schema.get_all_operations()]
    return sorted(
        (operation for operation in all_operations if not _streams(operation)),
        key=lambda operation: operation.method.lower() == "delete",
    )


def parameters(operation: APIOperation) -> list[str]:
    return [parameter.name for parameter in operation.path_parameters]


def label(operation: APIOperation) -> str:
    return f"{operation.method.upper()} {operation.path}"


def valid_body(operation: APIOperation) -> dict[str, Any] | None:
    """Return a new valid body for the operation, None if `BODIES` has none."""
    make_body = BODIES.get(label(operation))
    return copy.deepcopy(make_body(f"n{secrets.token_hex(6)}")) if make_body else None


def _streams(operation: APIOperation) -> bool:
    responses = operation.definition.raw["responses"].values()
    return any(STREAM in response.get("content", {}) for response in responses)


def _file_types(document: dict[str, Any]) -> set[str]:
    """Return the media types of request bodies that are files."""
    bodies = (operation.get("requestBody", {}) for path in document["paths"].values() for operation in path.values())
    return {type for body in bodies for type in body.get("content", {})} - {"application/json"}


def _as_file(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _jobs(service: Any) -> Iterator[str]:
    """Create one or two jobs in each state and yield their ids."""
    yield service.submit(DISTILL)["id"]
    service.transact(
        worker_registry.register, "worker", host="here", version="1", concurrency=2, gpus=[{"index": 0, "name": "A"}]
    )
    running = service.claim(service.submit(TRAIN)["id"])
    _record_training(service, running)
    yield running.job_id
    paused = service.submit(TRAIN)["id"]
    service.transact(actions.pause, paused)
    yield paused
    cancelled = service.submit(TRAIN)["id"]
    service.transact(actions.cancel, cancelled)
    yield cancelled
    failed = service.claim(service.submit(TRAIN)["id"])
    error = events.ErrorInfo(code="diverged", message="The loss became nan.", hint="Lower it.")
    service.finish(failed, JobStatus.FAILED, end_reason=EndReason.DIVERGED, error=error)
    yield failed.job_id
    for _ in range(2):
        lease = service.claim(service.submit(DISTILL | {"baseline": False})["id"])
        _record_training(service, lease)
        service.artifact(lease, "report.json", b"{}")
        service.artifact(lease, "student-config.py", b"model = 1")
        service.finish(lease)
        yield lease.job_id


def _record_training(service: Any, lease: Any) -> None:
    for step in range(5):
        values = {"train/loss": 1 / (1 + step), "val/bbox_mAP_l": None}
        service.record(lease, events.Metrics(step=step, epoch=0, values=values))
    progress = events.Progress(epoch=0, epochs=1, step=5, steps=9, fraction=0.5)
    service.record(lease, progress, events.Log(message="a line"))
    service.evaluate(lease, "student", 0.5)
    service.checkpoint(lease)
    service.checkpoint(lease, b"training", kind="training")


def _plans(service: Any) -> Iterator[str]:
    """Create one plan that was probed, one whose probe failed and one that waits; yield their ids."""
    probed, failed, waiting = (_post(service, "/jobs/plan?probe=true", **TRAIN) for _ in range(3))
    estimate = {"ok": True, "checks": [], "steps": 3, "seconds_per_step": 0.5, "student": None}
    error = events.ErrorInfo(code="internal_error", message="It died.", hint="See the log.")
    service.transact(
        worker_requests.finish,
        service.transact(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1)),
        result=estimate,
    )
    service.transact(
        worker_requests.finish, service.transact(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1)), error=error
    )
    yield from (probed, failed, waiting)


def _sweeps(service: Any) -> Iterator[str]:
    """Create sweeps that are stopped and sweeps that have succeeded; yield their ids."""
    for status in (SweepStatus.SUCCEEDED, SweepStatus.STOPPED) * 3:  # the first one cannot become active
        sweep_id = _post(service, "/sweeps", **SWEEP)
        _post(service, f"/sweeps/{sweep_id}/stop")
        values = {"status": status, "best_setting": 0, "result": {"mAP": 0.5, "comparison": None}}
        service.transact(lock_sweeps, Sweep.id == sweep_id, **values)
        yield sweep_id


def _post(service: Any, path: str, **body: Any) -> str:
    response = service.client.post(path, json=body)
    assert response.is_success, response.text
    return str(response.json()["id"])
