"""`frs tensorboard`: files are read back with TensorBoard's own reader and server; the tests act as the worker."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from servers import free_port
from waiting import until

from cli import tensorboard
from cli.tensorboard import RunFile
from frs.events import Metrics, Rewound
from frs_client.sse import StreamEvent
from store.db.database import Database, open_database
from store.jobs import lifecycle, recording
from store.jobs.lease import Lease
from store.states import EndReason, JobStatus

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16}
SPEC = {"kind": "train", "dataset": "shapes", "student": STUDENT, "schedule": {"epochs": 2, "batch_size": 2}}
AT = "2026-01-02T03:04:05.500000Z"


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of every point by key, as TensorBoard shows them."""
    accumulator = accumulators.EventAccumulator(str(folder), size_guidance={accumulators.SCALARS: 0})
    accumulator.Reload()
    keys = accumulator.Tags()["scalars"]
    return {key: [(point.step, point.value) for point in accumulator.Scalars(key)] for key in keys}


def metric(number: int, step: int, **values: float | None) -> StreamEvent:
    named = {key.replace("_", "/", 1): value for key, value in values.items()}
    return StreamEvent("metric", {"at": AT, "attempt": 1, "step": step, "epoch": 0, "values": named}, number)


@pytest.fixture
def do(data: Path) -> Iterator[Callable[..., Any]]:
    database: Database = open_database(f"sqlite:///{data / 'frs.db'}")

    def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    yield call
    database.engine.dispose()


@pytest.fixture
def claimed(frs: Any, do: Any, shapes: None, tmp_path: Path) -> Callable[..., Lease]:
    def claim(**changes: Any) -> Lease:
        (tmp_path / "spec.json").write_text(json.dumps(SPEC | changes))
        id = json.loads(frs("submit", tmp_path / "spec.json", "--json").output)["id"]
        lease: Lease = do(lifecycle.claim, "worker", 60.0, id)
        return lease

    return claim


def losses(*steps: int, value: float = 0.5) -> list[Metrics]:
    return [Metrics(step=step, epoch=0, values={"train/loss": value + step}) for step in steps]


def test_values_keep_their_names_steps_and_times(tmp_path: Path) -> None:
    with closing(RunFile(tmp_path)) as file:
        file.add(metric(1, 10, train_loss=0.5, val_bbox_mAP_l=None))
        file.add(metric(2, 10, val_bbox_mAP=0.25))
    assert read(tmp_path) == {"train/loss": [(10, 0.5)], "val/bbox_mAP": [(10, 0.25)]}
    accumulator = accumulators.EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert accumulator.Scalars("train/loss")[0].wall_time == 1767323045.5


def test_a_rewind_while_the_job_is_followed_leaves_each_step_once(tmp_path: Path) -> None:
    with closing(RunFile(tmp_path)) as file:
        for step in range(1, 8):
            file.add(metric(step, step, train_loss=step))
        file.add(metric(8, 5, val_bbox_mAP=0.5))
        file.add(StreamEvent("rewound", {"at": AT, "attempt": 2, "to_step": 5}, 9))
        file.add(metric(10, 5, val_bbox_mAP=0.5))
        for step in range(6, 9):
            file.add(metric(5 + step, step, train_loss=100 + step))
    points = read(tmp_path)
    assert points["train/loss"] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 106), (7, 107), (8, 108)]
    assert points["val/bbox_mAP"] == [(5, 0.5)]


def test_a_job_without_metrics_has_no_file(tmp_path: Path) -> None:
    with closing(RunFile(tmp_path / "run")) as file:
        file.add(StreamEvent("rewound", {"at": AT, "attempt": 1, "to_step": 0}, 1))
        file.add(metric(2, 1, val_bbox_mAP_l=None))
    assert not (tmp_path / "run").exists()


def test_the_files_of_a_job_hold_what_its_attempts_have_left_however_often_they_are_written(
    frs: Any, do: Any, claimed: Any, tmp_path: Path
) -> None:
    lease = claimed(name="my @run é")
    do(recording.record, lease, [Rewound(to_step=0), *losses(1, 2, 3, 4)])
    do(lifecycle.requeue, lease, attempt_counts=True)
    second = do(lifecycle.claim, "worker", 60.0, lease.job_id)
    do(recording.record, second, [Rewound(to_step=2), *losses(3, 4, 5, value=100)])
    frs("tensorboard", lease.job_id, "--output", tmp_path / "out")
    output = frs("tensorboard", lease.job_id, "--output", tmp_path / "out").output
    assert f"tensorboard --logdir {tmp_path / 'out'}" in output
    [run] = (tmp_path / "out").iterdir()
    assert run.name == f"my_run-{lease.job_id[-6:]}"
    assert read(run) == {"train/loss": [(1, 1.5), (2, 2.5), (3, 103), (4, 104), (5, 105)]}


def test_without_a_job_the_newest_jobs_are_written(frs: Any, do: Any, claimed: Any, tmp_path: Path) -> None:
    leases = [claimed(name=name) for name in ("first", "second", "third")]
    for lease in leases:
        do(recording.record, lease, losses(1))
    frs("tensorboard", "--last", 2, "--output", tmp_path)
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir() if path.is_dir()} == {"second", "third"}


def test_a_baseline_is_shown_beside_its_job(frs: Any, do: Any, claimed: Any, tmp_path: Path) -> None:
    teacher = {**STUDENT, "backbone": {"depth": 18, "width": 16}}
    job = claimed(kind="distill", teacher=teacher, baseline=True, name="pair")
    baseline = json.loads(frs("job", job.job_id, "--json").output)["baseline_job_ids"][0]
    for lease in (job, do(lifecycle.claim, "worker", 60.0, baseline)):
        do(recording.record, lease, losses(1))
    frs("tensorboard", job.job_id, "--output", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_running_job_is_followed_in_tensorboards_own_server(
    data: Path, do: Any, claimed: Any, tmp_path: Path
) -> None:
    lease, port = claimed(name="live"), free_port()
    do(recording.record, lease, losses(1, 2))
    command = [sys.executable, "-m", "cli", "tensorboard", lease.job_id, "--port", str(port), "--data", str(data)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        run = f"live-{lease.job_id[-6:]}"
        until(lambda: len(scalars(port, run)) == 2, 60, (tmp_path / "log").read_text)
        do(recording.record, lease, losses(3))
        do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)
        until(lambda: len(scalars(port, run)) == 3, 60, (tmp_path / "log").read_text)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/")


def scalars(port: int, run: str) -> list[Any]:
    with suppress(httpx2.RequestError):
        query = {"run": run, "tag": "train/loss"}
        answer = httpx2.get(f"http://127.0.0.1:{port}/data/plugin/scalars/scalars", params=query)
        if answer.is_success:
            points: list[Any] = answer.json()
            return points
    return []


def test_without_the_package_the_next_step_is_named(frs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'frs-distill[tensorboard]'" in frs("tensorboard", code=1).stderr


def test_an_unknown_job_is_an_error(frs: Any, tmp_path: Path) -> None:
    assert "job_not_found" in frs("tensorboard", f"job_{'0' * 26}", "--output", tmp_path, code=1).stderr
