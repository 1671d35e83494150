# Written by `make client` from aio/pulling.py: change that file.
"""Download files of a job. Each file is complete and has the SHA-256 that the service reports."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Literal

from frs_client.answers import Json
from frs_client.errors import ServiceError
from frs_client.requests import path_of
from frs_client.sync.transport import Transport

Label = Literal["best", "last"]


def pull(client: Transport, job_id: str, to: Path, label: Label) -> tuple[Path, ...]:
    """Write the student's weights and the report to the folder `to` and return the paths of the written files.

    The config is written as well; for the last student, also the safetensors copy and the report images. The report of
    the best student has that student's metrics.
    Raises ServiceError if the job has no student yet or a file arrives damaged.
    """
    student = _find_student(client, job_id, label)
    to.mkdir(parents=True, exist_ok=True)
    job = client.get(path_of("jobs", job_id))
    name = (job["name"] or "student").replace(" ", "_")
    weights = to / Path(f"{name}-{student['sha256'][:8]}.pth").name
    client.download(path_of("checkpoints", student["id"], "content"), weights, student["sha256"])
    report = to / f"{weights.stem}-report.json"
    content = client.get(path_of("jobs", job_id, "report"), student=label)
    report.write_text(json.dumps(content, indent=2) + "\n")
    paths = [weights, report]
    for artifact in client.each(path_of("jobs", job_id, "artifacts")):
        target = _target(artifact["name"], weights, label)
        if target is not None:
            _download(client, job_id, artifact, target)
            paths.append(target)
    return tuple(paths)


def pull_artifacts(client: Transport, job_id: str, to: Path, suffixes: Container[str] | None) -> tuple[Path, ...]:
    """Write the job's artifacts with one of these suffixes to the folder `to`, None: all; return their paths."""
    to.mkdir(parents=True, exist_ok=True)
    paths = []
    for artifact in client.each(path_of("jobs", job_id, "artifacts")):
        target = to / Path(artifact["name"]).name
        if suffixes is None or target.suffix in suffixes:
            _download(client, job_id, artifact, target)
            paths.append(target)
    return tuple(paths)


def _find_student(client: Transport, job_id: str, label: Label) -> Json:
    for row in client.each(path_of("jobs", job_id, "checkpoints")):
        if label in row["labels"]:
            return row
    raise ServiceError(f"Job {job_id} has no student yet.", f"Follow it with `frs watch {job_id}`.")


def _download(client: Transport, job_id: str, artifact: Json, target: Path) -> None:
    client.download(path_of("jobs", job_id, "artifacts", artifact["name"]), target, artifact["sha256"])


def _target(name: str, weights: Path, label: Label) -> Path | None:
    """Return the local path of an artifact, or None if it is not downloaded, such as detections.

    The safetensors copy and the config take the stem of the weights file; images append their own name to it.
    """
    if name == "student-config.py":
        return weights.with_suffix(".py")
    if label == "best":
        return None  # the other artifacts are of the last student
    if name.startswith("student"):
        return weights.with_suffix(Path(name).suffix)
    return weights.with_name(f"{weights.stem}-{name}") if name.endswith(".png") else None
