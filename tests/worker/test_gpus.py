"""GPUs of a worker and the jobs it takes accordingly; only the driver is a fake."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from sqlalchemy import select
from waiting import until
from worker_harness import WorkerHarness

from store.db.tables import Worker
from worker.dispatch.dispatcher import Dispatcher
from worker.process import gpus

STUB = (sys.executable, str(Path(__file__).with_name("stub_trainer.py")))


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with four GPUs, the last of which does not report its memory."""

    def memory(index: int) -> Any:
        if index == 3:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=80 << 30, used=index << 30)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 4,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetUtilizationRates": lambda index: SimpleNamespace(gpu=10 * index),
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
        "nvmlDeviceGetName": lambda index: "A GPU",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    gpus.has_driver.cache_clear()
    yield
    gpus.has_driver.cache_clear()


def test_a_host_without_a_driver_has_no_gpus():
    gpus.has_driver.cache_clear()
    assert gpus.gpu_ids({}) == [] and gpus.gpu_states({}) == []


def test_all_gpus_are_usable_unless_hidden(four_gpus):
    assert gpus.gpu_ids({}) == ["0", "1", "2", "3"]
    assert gpus.gpu_ids({"CUDA_VISIBLE_DEVICES": "2, 0"}) == ["2", "0"]
    assert gpus.gpu_ids({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert gpus.gpu_ids({"CUDA_VISIBLE_DEVICES": "1,7,2"}) == ["1"], (
        "like CUDA, which ignores all entries from the first invalid one on"
    )
    assert gpus.gpu_ids({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    assert [gpu["index"] for gpu in gpus.gpu_states({"CUDA_VISIBLE_DEVICES": "GPU-3"})] == [3]


def test_a_value_that_the_driver_does_not_report_is_none(four_gpus):
    third, fourth = gpus.gpu_states({})[2:]
    assert (third["memory_used"], third["utilization"], fourth["memory_total"]) == (2 << 30, 20, None)


def submit(harness: WorkerHarness, devices: int | None) -> str:
    return harness.submit({"resources": {"devices": devices}}, steps=10_000, seconds=0.01)


@pytest.fixture
def dispatcher(four_gpus, harness: WorkerHarness):
    dispatcher = Dispatcher(harness.settings, harness.database, STUB)
    dispatcher.start()
    yield dispatcher
    dispatcher.stop()
    dispatcher.join()


def visible_to(harness: WorkerHarness, job_id: str) -> str | None:
    until(lambda: harness.steps(job_id))
    return harness.artifact(job_id, "environ.json").get("CUDA_VISIBLE_DEVICES")


def test_each_trainer_gets_its_own_gpus_and_a_job_waits_for_free_ones(harness, dispatcher):
    visible = {}
    for devices in (2, None, 0):
        job_id = submit(harness, devices)
        visible[job_id] = visible_to(harness, job_id)
    assert list(visible.values()) == ["0,1", "2", ""]
    large, later = next(iter(visible)), submit(harness, 2)
    until(lambda: harness.rows(select(Worker.concurrency)) == [4])
    assert harness.job(later).status == "queued"
    harness.cancel(large)
    assert visible_to(harness, later) == "0,1"


def test_a_job_for_more_gpus_than_any_worker_has_reports_the_reason(harness, dispatcher):
    huge = submit(harness, 8)
    until(lambda: harness.rows(select(Worker)))
    reason = harness.waiting_reason(huge)
    assert (reason.code, reason.message) == (
        "waiting_for_device",
        "The job requests 8 GPUs; no worker has more than 4.",
    )
    assert "resources.devices" in reason.hint


def test_a_worker_registers_and_deregisters(harness, four_gpus):
    dispatcher = Dispatcher(harness.settings, harness.database, STUB)
    dispatcher.start()
    until(lambda: harness.rows(select(Worker)))
    [worker] = harness.rows(select(Worker))
    assert (worker.id, worker.draining, len(worker.gpus)) == (dispatcher.owner, False, 4)
    until(lambda: harness.rows(select(Worker))[0].seen_at > worker.seen_at)
    dispatcher.stop()
    dispatcher.join()
    assert harness.rows(select(Worker)) == []
