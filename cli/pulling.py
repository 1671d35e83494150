"""Fetching what a job made, each file whole and with the hash the service announced."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from cli.client import Client, ServiceError

Label = Literal["best", "last"]


def pull(client: Client, job_id: str, to: Path, label: Label) -> list[Path]:
    """Writes student weights and report into `to`; of the last student also its safetensors twin, config and pictures.

    Raises ServiceError when there is no student yet or a file arrives damaged.
    """
    student = next((row for row in client.each(f"/jobs/{job_id}/checkpoints") if label in row["labels"]), None)
    if student is None:
        raise ServiceError(f"Job {job_id} has no student yet.", f"Follow it with `frs watch {job_id}`.")
    to.mkdir(parents=True, exist_ok=True)
    name = (client.get(f"/jobs/{job_id}")["name"] or "student").replace(" ", "_")
    weights = to / f"{name}-{student['sha256'][:8]}.pth"
    _fetch(client, f"/checkpoints/{student['id']}/content", weights, student["sha256"])
    report = to / f"{weights.stem}-report.json"
    report.write_text(json.dumps(client.get(f"/jobs/{job_id}/report"), indent=2) + "\n")
    return [weights, report, *(_twins(client, job_id, weights) if label == "last" else [])]


def _twins(client: Client, job_id: str, weights: Path) -> list[Path]:
    fetched = []
    for artifact in client.each(f"/jobs/{job_id}/artifacts"):
        target = _target(artifact["name"], weights)
        if target is not None:
            _fetch(client, f"/jobs/{job_id}/artifacts/{artifact['name']}", target, artifact["sha256"])
            fetched.append(target)
    return fetched


def _target(name: str, weights: Path) -> Path | None:
    """Twin and config under the weights' name, pictures under it and their own; detections stay where they are."""
    if name.startswith("student"):
        return weights.with_suffix(Path(name).suffix)
    return weights.with_name(f"{weights.stem}-{name}") if name.endswith(".png") else None


def _fetch(client: Client, path: str, target: Path, sha256: str) -> None:
    client.download(path, target)
    if hashlib.sha256(target.read_bytes()).hexdigest() != sha256:
        target.unlink()
        raise ServiceError(f"{target.name} arrived damaged and was removed.", "Pull again.")
