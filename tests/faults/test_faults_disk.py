"""F3: a small disk that fills up under the database, the work folder and the artifacts."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from service_harness import ServiceHarness, job_spec, stub_losses
from sqlalchemy import select
from waiting import until

from store.db.tables import Checkpoint

OpenService = Callable[..., ServiceHarness]
STEPS = 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("seconds", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_a_full_disk_delays_a_job_and_damages_nothing(
    disk: Path, open_service: OpenService, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_STORAGE_DELAY", "1")
    service = open_service(data=disk / "data")
    service.start_api()
    worker = service.start_worker(min_free_mb=1)
    job_id = service.post(steps=STEPS, seconds=0.02)
    service.harness.until_step(job_id, 20)
    with full(disk):
        time.sleep(seconds)  # the fault: the disk is full for so long
        answer = service.request("POST", "/jobs", json=job_spec())
        assert answer is not None and answer.status_code == 507, answer and answer.text
        assert answer.json()["code"] == "storage_full"
        assert service.request("GET", f"/jobs/{job_id}").status_code == 200
        checkpoints = service.harness.rows(select(Checkpoint).where(Checkpoint.job_id == job_id))
        assert checkpoints and all(service.harness.artifacts.path(row.key).is_file() for row in checkpoints)
    until(lambda: service.harness.job(job_id).status == "succeeded", 90)
    after = service.post(steps=5)
    service.until_ended([after])
    service.assert_all_succeeded([job_id], stub_losses(STEPS))
    service.assert_all_succeeded([after], stub_losses(5))
    assert worker.poll() is None


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Without a byte free, whatever is removed meanwhile."""
    ended, ballast = Event(), disk / "ballast"

    def fill() -> None:
        with ballast.open("ab", buffering=0) as file:
            while not ended.is_set():
                with suppress(OSError):
                    for size in (1 << 20, 1 << 12):
                        with suppress(OSError):
                            while file.write(b"x" * size):
                                pass
                ended.wait(0.005)

    thread = Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        ballast.unlink()
