"""End-to-end tests with the real engine: `frs up`, jobs over HTTP, metrics and weights."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from servers import free_port
from waiting import until

from frs.dataset.shapes.drawing import draw_dataset
from frs.spec import JobSpec, quantisation_of
from frs_client import Client, ServiceError

LOSSES = {"train/loss", "train/loss_cls", "train/loss_bbox", "train/distill_feature", "train/distill_logit"}
STEP_METRICS = {"train/lr", "train/images_per_second", "train/memory_mb"}
EVALUATION_METRICS = {f"val/bbox_mAP{suffix}" for suffix in ("", "_50", "_75", "_s", "_m", "_l")}
TIMEOUT_SECONDS = 240
SERVICE_ENV = {
    "FRS_HEARTBEAT_SECONDS": "2",
    "FRS_FENCE_SECONDS": "12",
    "FRS_LEASE_SECONDS": "15",
    "FRS_REAP_SECONDS": "2",
}
"""Short intervals, so that a job soon continues after its worker was killed."""
SERVICE_ENV |= {"OMP_NUM_THREADS": "1"}  # next to other tests, several threads are slower than one


def detector(channels: int) -> dict[str, Any]:
    tiny = {"backbone": {"depth": 18, "width": 8, "norm": "gn"}, "stacked_convs": 1}
    return {"architecture": "gfl", "neck_channels": channels} | tiny


def schedule(**changes: Any) -> dict[str, Any]:
    return {"epochs": 2, "batch_size": 4, "image_size": [96, 96], "optimizer": {"name": "adamw"}} | changes


def start_service(data: Path) -> subprocess.Popen[bytes]:
    """Run `frs up` on a free port and return its process once it answers."""
    (data / "url").unlink(missing_ok=True)
    command = [sys.executable, "-m", "cli", "up", "--data", data, "--port", str(free_port())]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, env=os.environ | SERVICE_ENV)
    assert process.stdout is not None
    assert b"frs is up at" in process.stdout.readline()
    return process


def stop_service(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder / "datasets" / "tiny", train=14, val=4, size=96)
    return folder


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[Client]:
    process = start_service(data)
    client = Client(data=data)
    client.post("/datasets", {"name": "tiny"})
    yield client
    stop_service(process)
    assert not processes_of(data), "`frs up` left an orphan process"


def processes_of(data: Path) -> list[int]:
    """Return the ids of the processes with the data folder on their command line or in their environment."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(data).encode() in text:
            pids.append(int(entry.name))
    return pids


def trainer_of(job_id: str) -> int | None:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if job_id.encode() in command and b"--events-fd" in command:
            return int(entry.name)
    return None


def wait_until_ended(client: Client, job_id: str) -> dict[str, Any]:
    path = f"/jobs/{job_id}"
    until(lambda: client.get(path)["is_terminal"], TIMEOUT_SECONDS, lambda: client.get(path))
    return client.get(path)


def steps_by_metric(client: Client, job_id: str) -> dict[str, list[int]]:
    metrics = client.get(f"/jobs/{job_id}/metrics", max_points=10_000)
    return {series["key"]: series["x"] for series in metrics["series"]}


def test_a_teacher_is_trained_and_a_student_distilled_and_compared_with_its_baseline(
    client: Client, tmp_path: Path
) -> None:
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
    assert job["status_reason"]["code"] == "waiting_for_detector"
    [baseline] = job["baseline_job_ids"]
    for job_id in (teacher["id"], job["id"], baseline, job["comparison_job_id"]):
        ended_job = wait_until_ended(client, job_id)
        assert (ended_job["status"], ended_job["end_reason"]) == ("succeeded", "completed"), ended_job
    steps = steps_by_metric(client, job["id"])
    assert all(steps[key] == list(range(1, 13)) for key in LOSSES | STEP_METRICS)
    assert all(steps[key] == [4, 8, 12] for key in EVALUATION_METRICS)
    report = client.get(f"/jobs/{job['id']}/report")
    assert report["status"] == "complete"
    assert [row["role"] for row in report["rows"]] == ["teacher", "baseline", "student", "gain"]
    assert report["facts"]["weights"]["feature"] > 0
    interval = report["comparison"]["image_interval"]
    assert interval["low"] <= interval["high"] and interval["images"] == 4
    gain = report["rows"][3]["metrics"]["bbox_mAP"]
    assert report["comparison"]["gain"] == pytest.approx(gain, abs=1e-9), "the stored detections are the evaluated ones"
    files = client.jobs.pull(job["id"], tmp_path)
    assert {file.suffix for file in files} == {".pth", ".json", ".safetensors", ".py", ".png"}
    pictures = {"confusion", "curves", "detections", "precision-recall", "richness"}
    assert all(any(file.name.endswith(f"-{name}.png") for file in files) for name in pictures)
    assert files[0].name.startswith("small_one-")


def test_a_job_continues_from_its_last_checkpoint_after_its_trainer_was_killed(client: Client) -> None:
    spec = {"kind": "train", "dataset": "tiny", "student": detector(16)}
    job = client.post("/jobs", spec | {"schedule": schedule(epochs=12, checkpoint_every=3, evaluate_every=6)})
    wait_for_step(client, job["id"], 14)
    os.kill(trainer_of(job["id"]) or 0, signal.SIGKILL)
    ended_job = wait_until_ended(client, job["id"])
    assert (ended_job["status"], ended_job["attempt"]) == ("succeeded", 2)
    steps = steps_by_metric(client, job["id"])
    assert steps["train/loss"] == list(range(1, 49))
    assert steps["val/bbox_mAP"] == [24, 48]
    rewound_to = [
        event["data"]["to_step"] for event in client.each(f"/jobs/{job['id']}/events") if event["type"] == "rewound"
    ]
    assert rewound_to[0] == 0 and 12 <= rewound_to[1] < 48


@pytest.mark.slow
def test_an_export_survives_the_death_of_its_trainer_and_of_its_worker_and_its_file_predicts(
    data: Path, client: Client
) -> None:
    student = client.post(
        "/jobs", {"kind": "train", "dataset": "tiny", "student": detector(16), "schedule": schedule()}
    )
    export = client.post(f"/jobs/{student['id']}/exports", {"formats": ["onnx"]})
    for attempt, process in enumerate((lambda: trainer_of(export["id"]), lambda: child_of(data, "worker")), 1):
        until(lambda: is_exporting(client, export["id"], attempt), TIMEOUT_SECONDS)  # noqa: B023  called at once
        pid = process()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    ended = wait_until_ended(client, export["id"])
    assert (ended["status"], ended["attempt"]) == ("succeeded", 3), ended["error"]
    [listed] = client.get(f"/jobs/{student['id']}/exports")["data"]
    assert listed["job_id"] == export["id"] and listed["report"]["files"][0]["drop"] <= 0.0005
    image = sorted((data / "datasets" / "tiny" / "val").iterdir())[0]
    answer = client.upload(f"/jobs/{student['id']}/predict", image, "image/jpeg", threshold=0)
    assert (answer["width"], answer["results"][0]["role"]) == (96, "student")


def test_a_distilled_student_is_quantized_and_exported(client: Client) -> None:
    fields = {"kind": "distill", "dataset": "tiny", "teacher": detector(32), "student": detector(16)}
    settings = {"schedule": schedule(epochs=1), "distillation": {"accept_weak_teacher": True, "feature_weight": 0}}
    student = client.post("/jobs", fields | settings)
    spec = quantisation_of(JobSpec.model_validate(student["spec"]), student["id"]).model_dump(mode="json")
    quantized = client.post("/jobs", spec | {"schedule": spec["schedule"] | {"epochs": 1}})
    export = client.post(f"/jobs/{quantized['id']}/exports", {"max_drop": 100})
    for job in (student, quantized, export):
        ended = wait_until_ended(client, job["id"])
        assert ended["status"] == "succeeded", ended["error"]
    assert "train/distill_logit" in steps_by_metric(client, quantized["id"])
    [listed] = client.get(f"/jobs/{quantized['id']}/exports")["data"]
    assert [file["format"] for file in listed["report"]["files"]] == ["onnx", "onnx-int8"]


def is_exporting(client: Client, job_id: str, attempt: int) -> bool:
    job = client.get(f"/jobs/{job_id}")
    return (job["phase"], job["attempt"]) == ("exporting", attempt)


def test_a_killed_worker_and_a_killed_api_are_restarted_and_the_job_continues(data: Path, client: Client) -> None:
    spec = {"kind": "train", "dataset": "tiny", "student": detector(16)}
    job = client.post("/jobs", spec | {"schedule": schedule(epochs=12, checkpoint_every=3, evaluate_every=6)})
    wait_for_step(client, job["id"], 5)
    for module in ("worker", "api"):
        os.kill(child_of(data, module), signal.SIGKILL)
    wait_until_ready(client)
    ended_job = wait_until_ended(client, job["id"])
    assert (ended_job["status"], ended_job["end_reason"]) == ("succeeded", "completed")
    assert steps_by_metric(client, job["id"])["train/loss"] == list(range(1, 49))


def child_of(data: Path, module: str) -> int:
    for pid in processes_of(data):
        if f"-m\0{module}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    pytest.fail(f"no {module} process")


def wait_until_ready(client: Client) -> None:
    def is_ready() -> bool:
        with suppress(ServiceError):
            return bool(client.get("/health/ready"))
        return False

    until(is_ready, TIMEOUT_SECONDS)


def test_a_running_job_is_cancelled_and_its_trainer_ends(client: Client) -> None:
    job = client.post(
        "/jobs", {"kind": "train", "dataset": "tiny", "student": detector(16), "schedule": schedule(epochs=5000)}
    )
    wait_for_step(client, job["id"], 1)
    client.post(f"/jobs/{job['id']}/cancel")
    assert wait_until_ended(client, job["id"])["end_reason"] == "cancelled_by_user"
    until(lambda: trainer_of(job["id"]) is None, 30)
    with pytest.raises(ServiceError, match="action_not_allowed"):
        client.post(f"/jobs/{job['id']}/cancel")


def test_a_refused_teacher_fails_the_job_with_a_code_and_a_hint(client: Client) -> None:
    bad = {"dataset": "tiny", "teacher": detector(16), "student": detector(16), "schedule": schedule()}
    ended_job = wait_until_ended(client, client.post("/jobs", bad)["id"])
    assert (ended_job["status"], ended_job["end_reason"], ended_job["error"]["code"]) == (
        "failed",
        "teacher_refused",
        "teacher_not_competent",
    )
    assert "accept_weak_teacher" in ended_job["error"]["hint"]


def test_a_job_continues_after_a_restart_of_the_service(data: Path, client: Client) -> None:
    """Runs on its own data folder; the service is stopped while the job runs and started again."""
    other = data.parent / f"{data.name}-other"
    draw_dataset(other / "datasets" / "tiny", train=14, val=4, size=96)
    process = start_service(other)
    other_client = Client(data=other)
    other_client.post("/datasets", {"name": "tiny"})
    spec = {"kind": "train", "dataset": "tiny", "student": detector(16)}
    job = other_client.post("/jobs", spec | {"schedule": schedule(epochs=25, evaluate_every=25)})
    wait_for_step(other_client, job["id"], 5)
    stop_service(process)
    assert not processes_of(other)
    process = start_service(other)
    other_client = Client(data=other)
    assert wait_until_ended(other_client, job["id"])["status"] == "succeeded"
    assert steps_by_metric(other_client, job["id"])["train/loss"] == list(range(1, 101))
    stop_service(process)


def wait_for_step(client: Client, job_id: str, step: int) -> None:
    def has_reached_step() -> bool:
        job = client.get(f"/jobs/{job_id}")
        assert not job["is_terminal"], job
        return bool(job["progress"] and job["progress"]["step"] >= step)

    until(has_reached_step, TIMEOUT_SECONDS)
