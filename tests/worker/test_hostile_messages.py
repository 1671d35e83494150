"""S16: the worker ignores every broker message that is no wake-up, and still runs the next job."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import until
from worker_harness import STUB, WorkerHarness

from store.scheduling.wakeups import QUEUE, broker_folders, celery_app, wakeup_sender
from store.settings import Settings

WORKER = Path(STUB[-1]).with_name("stub_worker.py")


@pytest.fixture(params=["filesystem", "redis"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "filesystem":
        yield "filesystem://"
        return
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(lambda: redis.Redis(port=port).ping if _answers(port) else None)
    yield f"redis://127.0.0.1:{port}/0"
    process.kill()
    process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def settings(harness: WorkerHarness, broker: str) -> Settings:
    return harness.settings.model_copy(update={"broker_url": broker, "poll_seconds": 300.0})


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    variables = {f"FRS_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_unset=True).items()}
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen([sys.executable, WORKER], env={**os.environ, **variables}, stdout=log, stderr=log)
    yield process
    process.terminate()
    process.wait(30)


def messages(canary: Path) -> list[dict[str, Any]]:
    """Return forged messages in the broker's wire format."""
    code = f"touch {canary}".encode()
    pickled = b"\x80\x04cos\nsystem\n(X" + len(code).to_bytes(4, "little") + code + b"tR."
    task = {"id": str(uuid.uuid4()), "task": "train", "args": [], "kwargs": {}, "retries": 0}

    def message(body: bytes, kind: str, encoding: str = "utf-8", **headers: Any) -> dict[str, Any]:
        delivery = {"exchange": QUEUE, "routing_key": QUEUE}
        properties = {
            "body_encoding": "base64",
            "delivery_info": delivery,
            "delivery_tag": str(uuid.uuid4()),
            "correlation_id": "x",
        }
        coded = base64.b64encode(body).decode()
        return {
            "body": coded,
            "content-type": kind,
            "content-encoding": encoding,
            "headers": headers,
            "properties": properties,
        }

    def task_call(name: str, *arguments: Any, **headers: Any) -> dict[str, Any]:
        body = json.dumps([list(arguments), {}, {}]).encode()
        return message(
            body, "application/json", lang="py", task=name, id=str(uuid.uuid4()), argsrepr="", kwargsrepr="", **headers
        )

    foreign, command = "job_" + "0" * 26, {"task": "os.system"}
    return [
        message(pickled, "application/x-python-serialize", "binary", task="train", id="1", lang="py"),
        message(pickled, "application/x-python-serialize", "binary"),
        message(pickled, "application/json", task="train", id="1", lang="py"),
        message(pickled, "application/data", "binary", task="train", id="1", lang="py"),
        message(b"!!python/object/apply:os.system ['touch x']", "application/x-yaml", task="train", id="1", lang="py"),
        message(b"\x81", "application/x-msgpack", "binary", task="train", id="1", lang="py"),
        message(b"{", "application/json", task="train", id="1", lang="py"),
        message(b"[" * 100_000, "application/json", task="train", id="1", lang="py"),
        message(json.dumps(task).encode(), "application/json"),
        task_call("os.system", code.decode()),
        task_call("celery.chord_unlock", "x"),
        task_call("celery.backend_cleanup"),
        task_call("celery.accumulate", "x"),
        task_call("train", foreign),
        task_call("train", foreign, eta="2999-01-01T00:00:00"),
        task_call("train", foreign, chord="x", callbacks=[command], errbacks=[command], group="x"),
        task_call("train", "x" * (10 << 20)),
        task_call("train", "../../../etc/passwd"),
        task_call("train", {"__class__": "os.system"}),
        task_call("train", *["x"] * 1000),
        task_call("x" * 100_000),
        task_call("train\n\x1b[2J", foreign),
    ]  # fmt: skip


@pytest.fixture
def put(settings: Settings) -> Callable[[bytes], None]:
    """Return a function that puts bytes into the worker's queue without a client library."""

    def put_into_redis(data: bytes) -> None:
        redis.Redis.from_url(settings.broker_url).lpush(QUEUE, data)

    def put_into_folder(data: bytes) -> None:
        name = f"{time.time_ns()}_{uuid.uuid4()}.{QUEUE}.msg"
        folder = broker_folders(settings)["data_folder_in"]
        (folder / f".{name}").write_bytes(data)
        (folder / f".{name}").rename(folder / name)

    return put_into_redis if settings.broker_url.startswith("redis") else put_into_folder


def test_no_message_runs_code_or_stops_the_worker(harness, settings, worker, put, tmp_path):
    send_wakeup = wakeup_sender(celery_app(settings))
    first = harness.submit(steps=2)
    send_wakeup(first)
    harness.until_status(first, "succeeded", 40)
    for forged in messages(tmp_path / "canary"):
        put(json.dumps(forged).encode())
    second = harness.submit(steps=2)
    send_wakeup(second)
    harness.until_status(second, "succeeded", 40)
    assert worker.poll() is None and not (tmp_path / "canary").exists()
    log = (tmp_path / "worker.log").read_text()
    assert all(json.loads(line) for line in log.splitlines()), "every log line is a JSON object"
    assert "\x1b" not in log
