"""F2: a checkpoint is damaged, or its worker dies between file and row: the older one is used, no file is left over."""

from collections.abc import Callable
from pathlib import Path

import oracle
import pytest
from service_harness import stub_losses
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from worker_harness import WorkerHarness

from store.artifacts.folder import ArtifactFolder
from store.db.tables import Attempt, Job
from store.jobs import checkpoints, lifecycle, recording

STEPS, CRASH = 20, 13
OLDER, NEWEST = 5, 10
FAST_CUTS, SLOW_CUTS = [0, 20], [1, 5, 10, 15, 25, 30]


class Died(BaseException):
    """Of a worker."""


@pytest.mark.parametrize("cut", [*FAST_CUTS, *(pytest.param(cut, marks=pytest.mark.slow) for cut in SLOW_CUTS)])
def test_a_truncated_checkpoint_is_skipped(worker_harness: WorkerHarness, cut: int) -> None:
    goes_on_from_the_older_one(worker_harness, lambda content: content[:cut])


@pytest.mark.parametrize("place", [0, 8, 17, -1])
@pytest.mark.parametrize("bit", [0, pytest.param(6, marks=pytest.mark.slow)])
def test_a_checkpoint_with_a_flipped_bit_is_skipped(worker_harness: WorkerHarness, place: int, bit: int) -> None:
    def flip(content: bytes) -> bytes:
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        return bytes(flipped)

    goes_on_from_the_older_one(worker_harness, flip)


@pytest.mark.parametrize("moment", ["linked", "verified", "renamed"])
def test_no_file_is_left_by_a_worker_that_died_before_the_row(
    worker_harness: WorkerHarness, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = worker_harness.submit(steps=STEPS, crash_at=CRASH)
    with monkeypatch.context() as patches:
        dies_at(NEWEST, moment, patches)
        with pytest.raises(Died):
            worker_harness.supervisor().run()
    assert len(files_of(worker_harness)) > len(keys_of(worker_harness, job_id)), "a file without a row was left"
    worker_harness.do(take_back, job_id)
    worker_harness.supervisor().run()
    assert starts(worker_harness, job_id) == [0, OLDER]
    assert_all_succeeded(worker_harness, job_id)


def goes_on_from_the_older_one(harness: WorkerHarness, damage: Callable[[bytes], bytes]) -> None:
    job_id = harness.run(steps=STEPS, crash_at=CRASH).id
    newest, older = harness.do(checkpoints.newest_checkpoints, job_id)
    assert (older.step, newest.step) == (OLDER, NEWEST)
    path = harness.artifacts.path(newest.key)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    harness.supervisor().run()
    assert starts(harness, job_id) == [0, OLDER]
    assert_all_succeeded(harness, job_id, rewound_further=[job_id])


def dies_at(step: int, moment: str, patches: pytest.MonkeyPatch) -> None:
    """As the worker puts the checkpoint of that step, and nothing tidies up after it."""
    put, wrong = ArtifactFolder.put, f"_{step:08d}_"

    def torn(self: ArtifactFolder, source: Path, key: str, sha256: str) -> None:
        if wrong not in key:
            return put(self, source, key, sha256)
        path = self.root / key
        part = path if moment == "renamed" else path.with_name(".0123456789abcdef.part")
        content = source.read_bytes()
        part.write_bytes(content[:9] if moment == "linked" else content)
        raise Died

    patches.setattr(ArtifactFolder, "put", torn)


def take_back(session: Session, job_id: str) -> None:
    session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=1.0))
    assert lifecycle.requeue_expired(session) == [job_id]


def assert_all_succeeded(harness: WorkerHarness, job_id: str, **broken: list[str]) -> None:
    job = harness.job(job_id)
    assert (job.status, job.end_reason) == ("succeeded", "completed")
    assert harness.losses(job_id) == stub_losses(STEPS)
    oracle.check(harness.database, harness.artifacts, oracle.Expected(acknowledged=[job_id], **broken))
    assert files_of(harness) == keys_of(harness, job_id), "a file without a row"
    assert list(harness.settings.work_root.iterdir()) == []


def starts(harness: WorkerHarness, job_id: str) -> list[int]:
    return list(harness.rows(select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def files_of(harness: WorkerHarness) -> set[str]:
    root = harness.artifacts.root
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def keys_of(harness: WorkerHarness, job_id: str) -> set[str]:
    with harness.database.read() as session:
        return recording.keys_in_use(session, job_id)
