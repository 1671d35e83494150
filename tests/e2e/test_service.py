"""The whole path with the real engine: `frs up`, jobs over HTTP, numbers and weights back from the database."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.client import Client, ServiceError
from cli.pulling import pull
from frs.dataset.shapes.drawing import draw_dataset

LOSSES = {"train/loss", "train/loss_cls", "train/loss_bbox", "train/distill_feature", "train/distill_logit"}
ALWAYS = {"train/lr", "train/images_per_second", "train/memory_mb"}
SIX = {f"val/bbox_mAP{suffix}" for suffix in ("", "_50", "_75", "_s", "_m", "_l")}
SECONDS = 240
SOON = {"FRS_HEARTBEAT_SECONDS": "2", "FRS_FENCE_SECONDS": "12", "FRS_LEASE_SECONDS": "15", "FRS_REAP_SECONDS": "2"}
"""For a job to go on after its worker was killed."""
SOON |= {"OMP_NUM_THREADS": "1"}  # beside other tests, threads that wait for each other take longer than one


def detector(channels: int) -> dict[str, Any]:
    tiny = {"backbone": {"depth": 18, "width": 8, "norm": "gn"}, "stacked_convs": 1}
    return {"architecture": "gfl", "neck_channels": channels} | tiny


def schedule(**changes: Any) -> dict[str, Any]:
    return {"epochs": 2, "batch_size": 4, "image_size": [96, 96], "optimizer": {"name": "adamw"}} | changes


def up(data: Path) -> subprocess.Popen[bytes]:
    """`frs up` on a free port, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (data / "url").unlink(missing_ok=True)
    command = [sys.executable, "-m", "cli", "up", "--data", data, "--port", str(port)]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, env=os.environ | SOON)
    assert process.stdout is not None
    assert b"frs is up at" in process.stdout.readline()
    return process


def down(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder / "datasets" / "tiny", train=14, val=4, size=96)
    return folder


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[Client]:
    process = up(data)
    client = Client.here(data)
    client.post("/datasets", {"name": "tiny"})
    yield client
    down(process)
    assert not processes_of(data), "no orphan outlives `frs up`"


def processes_of(data: Path) -> list[int]:
    """Processes that name the data folder on their command line or in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(data).encode() in said:
            found.append(int(entry.name))
    return found


def trainer_of(job_id: str) -> int | None:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if job_id.encode() in command and b"--events-fd" in command:
            return int(entry.name)
    return None


def ended(client: Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        job = client.get(f"/jobs/{job_id}")
        if job["is_terminal"]:
            return job
        time.sleep(0.2)
    pytest.fail(f"job {job_id} did not end: {client.get(f'/jobs/{job_id}')}")


def steps(client: Client, job_id: str) -> dict[str, list[int]]:
    answer = client.get(f"/jobs/{job_id}/metrics", max_points=10_000)
    return {line["key"]: line["x"] for line in answer["series"]}


def test_a_teacher_is_trained_and_a_student_distilled_with_its_proof(client: Client, tmp_path: Path) -> None:
    teacher = client.post(
        "/jobs", {"kind": "train", "dataset": "tiny", "student": detector(32), "schedule": schedule()}
    )
    job = client.post(
        "/jobs",
        {
            "name": "small one",
            "dataset": "tiny",
            "teacher": {"job": teacher["id"]},
            "student": detector(16),
            "schedule": schedule(epochs=3),
            "distillation": {"accept_weak_teacher": True},
            "baseline": True,
        },
    )
    assert job["status_reason"]["code"] == "waiting_for_teacher"
    [baseline] = job["baseline_job_ids"]
    for job_id in (teacher["id"], job["id"], baseline, job["comparison_job_id"]):
        end = ended(client, job_id)
        assert (end["status"], end["end_reason"]) == ("succeeded", "completed"), end
    told = steps(client, job["id"])
    assert all(told[key] == list(range(1, 13)) for key in LOSSES | ALWAYS)
    assert all(told[key] == [4, 8, 12] for key in SIX)
    report = client.get(f"/jobs/{job['id']}/report")
    assert report["status"] == "complete"
    assert [row["role"] for row in report["rows"]] == ["teacher", "baseline", "student", "gain"]
    assert report["facts"]["weights"]["feature"] > 0
    interval = report["comparison"]["image_interval"]
    assert interval["low"] <= interval["high"] and interval["images"] == 4
    gain = report["rows"][3]["metrics"]["bbox_mAP"]
    assert report["comparison"]["gain"] == pytest.approx(gain, abs=1e-9), "the kept detections are the evaluated ones"
    files = pull(client, job["id"], tmp_path, "last")
    assert {file.suffix for file in files} == {".pth", ".json", ".safetensors", ".py", ".png"}
    assert sum(file.suffix == ".png" for file in files) == 4
    assert files[0].name.startswith("small_one-")


def test_a_killed_trainer_goes_on_from_its_last_checkpoint(client: Client) -> None:
    spec = {"kind": "train", "dataset": "tiny", "student": detector(16)}
    job = client.post("/jobs", spec | {"schedule": schedule(epochs=12, checkpoint_every=3, evaluate_every=6)})
    wait_for_step(client, job["id"], 14)
    os.kill(trainer_of(job["id"]) or 0, signal.SIGKILL)
    end = ended(client, job["id"])
    assert (end["status"], end["attempt"]) == ("succeeded", 2)
    told = steps(client, job["id"])
    assert told["train/loss"] == list(range(1, 49))
    assert told["val/bbox_mAP"] == [24, 48]
    rewound = [
        event["data"]["to_step"] for event in client.each(f"/jobs/{job['id']}/events") if event["type"] == "rewound"
    ]
    assert rewound[0] == 0 and 12 <= rewound[1] < 48


def test_a_killed_worker_and_a_killed_api_are_started_again_and_the_job_goes_on(data: Path, client: Client) -> None:
    spec = {"kind": "train", "dataset": "tiny", "student": detector(16)}
    job = client.post("/jobs", spec | {"schedule": schedule(epochs=12, checkpoint_every=3, evaluate_every=6)})
    wait_for_step(client, job["id"], 5)
    for module in ("worker", "api"):
        os.kill(child_of(data, module), signal.SIGKILL)
    until_ready(client)
    end = ended(client, job["id"])
    assert (end["status"], end["end_reason"]) == ("succeeded", "completed")
    assert steps(client, job["id"])["train/loss"] == list(range(1, 49))


def child_of(data: Path, module: str) -> int:
    for pid in processes_of(data):
        if f"-m\0{module}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    pytest.fail(f"no {module} runs")


def until_ready(client: Client) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            client.get("/health/ready")
            return
        except ServiceError:
            time.sleep(0.1)
    pytest.fail("the API did not come back")


def test_a_running_job_is_cancelled_for_good(client: Client) -> None:
    job = client.post(
        "/jobs", {"kind": "train", "dataset": "tiny", "student": detector(16), "schedule": schedule(epochs=5000)}
    )
    wait_for_step(client, job["id"], 1)
    client.post(f"/jobs/{job['id']}/cancel")
    assert ended(client, job["id"])["end_reason"] == "cancelled_by_user"
    deadline = time.monotonic() + 30
    while trainer_of(job["id"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert trainer_of(job["id"]) is None
    with pytest.raises(ServiceError, match="action_not_allowed"):
        client.post(f"/jobs/{job['id']}/cancel")


def test_what_cannot_train_fails_with_a_code_and_a_next_step(client: Client) -> None:
    bad = {"dataset": "tiny", "teacher": detector(16), "student": detector(16), "schedule": schedule()}
    end = ended(client, client.post("/jobs", bad)["id"])
    assert (end["status"], end["end_reason"], end["error"]["code"]) == (
        "failed",
        "teacher_refused",
        "teacher_not_competent",
    )
    assert "accept_weak_teacher" in end["error"]["hint"]


def test_a_job_survives_the_end_of_the_service(data: Path, client: Client) -> None:
    """On a data folder of its own: the service goes down in mid-run and comes back."""
    other = data.parent / f"{data.name}-other"
    draw_dataset(other / "datasets" / "tiny", train=14, val=4, size=96)
    process = up(other)
    mine = Client.here(other)
    mine.post("/datasets", {"name": "tiny"})
    spec = {"kind": "train", "dataset": "tiny", "student": detector(16)}
    job = mine.post("/jobs", spec | {"schedule": schedule(epochs=25, evaluate_every=25)})
    wait_for_step(mine, job["id"], 5)
    down(process)
    assert not processes_of(other)
    process = up(other)
    mine = Client.here(other)
    assert ended(mine, job["id"])["status"] == "succeeded"
    assert steps(mine, job["id"])["train/loss"] == list(range(1, 101))
    down(process)


def wait_for_step(client: Client, job_id: str, step: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        job = client.get(f"/jobs/{job_id}")
        assert not job["is_terminal"], job
        if job["progress"] and job["progress"]["step"] >= step:
            return
        time.sleep(0.1)
    pytest.fail(f"job {job_id} never got to step {step}")
