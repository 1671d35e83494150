"""The real engine run by the worker: two processes communicate over the loopback interface, and no secret leaks."""

import sys

import pytest
from test_hostile_leaks import LEAK, SECRETS, listening
from worker_harness import WorkerHarness, in_background, split_columns

from frs.dataset.shapes.drawing import draw_dataset
from frs.spec import JobSpec
from store.db.tables import Dataset
from store.jobs import lifecycle
from worker.attempt.supervisor import Supervisor

TINY = {
    "architecture": "gfl",
    "backbone": {"depth": 18, "width": 8, "norm": "gn"},
    "neck_channels": 16,
    "stacked_convs": 1,
}
SPEC = {
    "kind": "train",
    "dataset": "drawn",
    "student": TINY,
    "schedule": {"max_steps": 2, "batch_size": 4, "image_size": [64, 64], "optimizer": {"name": "adamw"}},
    "resources": {"devices": 0, "processes": 2, "loader_workers": 1},
}


@pytest.mark.slow
def test_two_jailed_processes_train_without_open_ports_or_leaked_secrets(harness: WorkerHarness, monkeypatch):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    draw_dataset(harness.settings.datasets_root / "drawn", train=8, val=2, size=64)
    paths = split_columns("drawn/{}", "drawn/annotations/instances_{}.json")
    harness.do(lambda session: session.add(Dataset(id="ds_drawn", name="drawn", **paths)))
    before = listening()
    job_id = harness.do(lifecycle.add, JobSpec.model_validate(SPEC), dataset_id="ds_drawn").id
    settings = harness.settings.model_copy(update={"stall_timeout_seconds": 240.0})
    thread = in_background(Supervisor(harness.database, settings, harness.claim()))
    opened_ports = set()
    while thread.is_alive():
        opened_ports |= listening() - before
        thread.join(0.2)
    logs = harness.logs(job_id)
    assert harness.job(job_id).status == "succeeded", logs
    assert opened_ports == set()
    [message] = [line for line in logs if "network" in line]
    assert message == "The trainer runs without network." or "this kernel does not allow" in message
    files = [path for path in harness.settings.artifacts_root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pth" for path in files)
    for path in files:
        assert LEAK.encode() not in path.read_bytes(), path
    assert sys.executable.encode() not in b"".join(path.read_bytes() for path in files if path.suffix == ".pth")
