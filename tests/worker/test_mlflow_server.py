"""MLflow's own server, read back with MLflow's own client: `make test-mlflow` installs both apart from this project."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from servers import free_port
from waiting import until

from store.jobs import actions
from worker.tracking import job_tracking

pytestmark = pytest.mark.mlflow
PYTHON = Path(__file__).parents[2] / "build" / "mlflow" / "bin" / "python"
READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("team a/frs")
runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
keys = ("train/loss", "val/bbox_mAP")
print(json.dumps([{
    "name": run.info.run_name, "status": run.info.status, "parameters": run.data.params, "tags": run.data.tags,
    "points": {key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)] for key in keys},
    "files": {file.path: file.file_size for file in client.list_artifacts(run.info.run_id)},
    "environ": open(client.download_artifacts(run.info.run_id, "environ.json")).read(),
} for run in runs]))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    storage = ("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder))
    command = [PYTHON, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *storage]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        until(lambda: is_up(port), 120, (folder / "log").read_text)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a SIGTERM takes half a minute
        process.wait()


def is_up(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx2.RequestError:
        return False


def read_runs(url: str) -> list[dict[str, Any]]:
    completed = subprocess.run([PYTHON, "-c", READ, url], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


def test_mlflows_client_reads_back_what_a_resumed_and_a_retried_job_left(harness, url, monkeypatch):
    for name in ("LAST_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(job_tracking, name, 60)  # the server's first answers take seconds
    settings = {"mlflow_url": url, "mlflow_experiment": "team a/frs"}
    resumed = harness.submit({"name": "my job", "tags": ["a"]}, steps=20, crash_at=13)
    for _ in range(2):
        harness.supervisor(**settings).run()
    retried = harness.submit(steps=5, fail="diverged")
    harness.supervisor(**settings).run()
    harness.do(actions.retry, retried)
    harness.supervisor(**settings).run()
    first, *retries = read_runs(url)
    assert (first["name"], first["status"]) == ("my job", "FINISHED")
    assert first["points"]["train/loss"] == [[*point] for point in enumerate(harness.losses(resumed), 1)]
    assert first["points"]["val/bbox_mAP"] == [[20, 0.5]]
    assert first["parameters"]["student.architecture"] == "gfl"
    assert first["tags"]["frs.job_id"] == resumed and first["tags"]["frs.end_reason"] == "completed"
    assert first["files"] == {"environ.json": len(first["environ"])}
    assert json.loads(first["environ"]) == harness.artifact(resumed, "environ.json")
    assert [run["status"] for run in retries] == ["FAILED", "FAILED"]
    assert [len(run["points"]["train/loss"]) for run in retries] == [5, 5]
    assert [run["tags"]["frs.run_id"] for run in retries] == [retried, f"{retried}-2"]
    assert harness.logs(resumed) == harness.logs(retried) == []
