"""Download a job's student. Each file is complete and has the SHA-256 that the service reports."""

import json
from pathlib import Path
from typing import Literal

from cli.client import Client
from cli.errors import ServiceError

Label = Literal["best", "last"]


def pull(client: Client, job_id: str, to: Path, label: Label) -> list[Path]:
    """Write the student's weights and the report to the folder `to` and return the paths of the written files.

    The config is written as well; for the last student, also the safetensors copy and the report images. The report of
    the best student has that student's metrics.
    Raises ServiceError if the job has no student yet or a file arrives damaged.
    """
    student = next((row for row in client.each(f"/jobs/{job_id}/checkpoints") if label in row["labels"]), None)
    if student is None:
        raise ServiceError(f"Job {job_id} has no student yet.", f"Follow it with `frs watch {job_id}`.")
    to.mkdir(parents=True, exist_ok=True)
    name = (client.get(f"/jobs/{job_id}")["name"] or "student").replace(" ", "_")
    weights = to / f"{name}-{student['sha256'][:8]}.pth"
    client.download(f"/checkpoints/{student['id']}/content", weights, student["sha256"])
    report = to / f"{weights.stem}-report.json"
    report.write_text(json.dumps(client.get(f"/jobs/{job_id}/report", student=label), indent=2) + "\n")
    return [weights, report, *_download_artifacts(client, job_id, weights, label)]


def _download_artifacts(client: Client, job_id: str, weights: Path, label: Label) -> list[Path]:
    paths = []
    for artifact in client.each(f"/jobs/{job_id}/artifacts"):
        target = _target(artifact["name"], weights, label)
        if target is not None:
            client.download(f"/jobs/{job_id}/artifacts/{artifact['name']}", target, artifact["sha256"])
            paths.append(target)
    return paths


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
