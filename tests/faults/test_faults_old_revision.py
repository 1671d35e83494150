"""F22: data of earlier revisions survive an upgrade, and their workers can still write."""

import pytest
from database_harness import DatabaseHarness
from sqlalchemy import Connection, MetaData, Table, select
from sqlalchemy.orm import Session

from frs.dataset.report import Report
from frs.evaluation.verdict import Comparison
from frs.spec import JobSpec
from store.db import schema
from store.db.tables import Dataset, Detector, Job, Worker, WorkerRequest

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
TABLES = (
    "api_keys",
    "datasets",
    "jobs",
    "attempts",
    "events",
    "metrics",
    "evaluations",
    "checkpoints",
    "artifacts",
    "detectors",
)
SPEC = {"kind": "train", "dataset": "old", "tags": ["a", "b"], "resources": {"devices": 2}}


@pytest.fixture
def harness(harness):
    """The database as the owner of its tables."""
    with harness.owned() as database:
        yield DatabaseHarness(harness.url, database)


@pytest.fixture
def old(harness):
    """The tables of revision 0001, with something in each."""
    harness.do(lambda session: session.delete(session.get(Dataset, "ds_shapes")))
    schema.downgrade(harness.database, "0001")
    with harness.database.write() as session:
        tables = reflected(session.connection())
        for name in TABLES:
            for row in rows_of(name):
                session.execute(tables[name].insert().values(row))
        session.commit()
    return harness


def reflected(connection: Connection) -> dict[str, Table]:
    metadata = MetaData()
    metadata.reflect(connection, only=TABLES)
    return dict(metadata.tables)


def rows_of(table: str) -> list[dict]:
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    of_job = {"job_id": "job_succeeded"}
    at = {"created_at": 5.0}
    file = {"key": "job_succeeded/checkpoints/a.pth", "sha256": "a" * 64, "bytes": 3}
    return {
        "api_keys": [{"id": f"key_{n}", "name": "me", "prefix": "frs_", "sha256": str(n), **at} for n in (1, 2)],
        "datasets": [{"id": "ds_old", "name": "old", **paths, "status": "ready", **at}],
        "jobs": [job(f"job_{status}", status=status) for status in STATES]
        + [job(f"job_{n}", key_id=f"key_{n}", idempotency_key="same", idempotency_digest="d") for n in (1, 2)],
        "attempts": [{**of_job, "number": 1, "owner": "w", "started_at": 6.0, "ended_at": 7.0, "end": "succeeded"}]
        + [{"job_id": "job_running", "number": 1, "owner": "old worker", "started_at": 6.0}],
        "events": [{**of_job, "seq": n, "attempt": 1, "type": "log", "at": 6.0, "data": {"n": n}} for n in (1, 2)],
        "metrics": [
            {**of_job, "key": "train/loss", "step": 1, "epoch": 0, "value": 0.5}
            | {"at": 6.0, "attempt": 1, "seq": 3}
        ],
        "evaluations": [
            {**of_job, "role": "student", "step": 1, "last": True, "epoch": 0, "attempt": 1}
            | {"metrics": {"bbox_mAP": 0.5}, "per_class": {}, "images": 1, "detections": 1, "at": 6.0}
        ],
        "checkpoints": [
            {"id": "ckpt_1", **of_job, "attempt": 1, "kind": "student", "labels": ["last"], "step": 1, "epoch": 0}
            | {**file, "metrics": {}, **at}
        ],
        "artifacts": [{**of_job, "name": "config", **file, **at}],
        "detectors": [{"id": "det_1", "name": "t", "description": {}, "weights_file": "t.pth", "sha256": "b", **at}],
    }[table]  # fmt: skip


def job(id: str, *, status: str = "queued", **more: object) -> dict:
    held = {"lease_owner": "old worker", "lease_expires_at": 9e9} if status == "running" else {}
    values = {"id": id, "kind": "train", "spec": SPEC, "dataset_id": "ds_old", "priority": 0, "created_at": 5.0}
    return values | {"status": status, "attempt": int(status == "running"), "facts": {}, "last_event": 3} | held | more


def contents(harness, columns=None) -> dict[str, list[dict]]:
    """Of all tables, in the columns given, else in all of them."""
    with harness.database.read() as session:
        tables = reflected(session.connection())
        found = {}
        for name, table in tables.items():
            wanted = [table.c[column] for column in (columns[name] if columns else table.c.keys())]
            found[name] = sorted(map(repr, session.execute(select(*wanted)).mappings()))
    return found


def columns_of(harness) -> dict[str, list[str]]:
    with harness.database.read() as session:
        return {name: sorted(table.c.keys()) for name, table in reflected(session.connection()).items()}


def test_all_data_survive_an_upgrade_and_a_downgrade(old):
    old.do(forget_a_repeated_key)
    columns = columns_of(old)
    before = contents(old, columns)
    for _ in range(2):
        schema.upgrade(old.database)
        assert contents(old, columns) == before
        schema.downgrade(old.database, "0001")
        assert contents(old, columns) == before


def forget_a_repeated_key(session: Session) -> None:
    """The one thing an upgrade takes: two keys of what is now one owner may have used the same."""
    jobs = reflected(session.connection())["jobs"]
    session.execute(jobs.delete().where(jobs.c.id == "job_1"))


def test_new_columns_hold_the_meaning_of_the_old_rows(old):
    schema.upgrade(old.database)
    jobs = {job.id: job for job in old.rows(select(Job))}
    assert len(jobs) == len(STATES) + 2
    for row in jobs.values():
        assert (row.owner, row.tags, row.devices, row.failures_reset_at_attempt) == ("admin", ["a", "b"], 2, 0)
        assert row.pause_requested_at is row.stop_requested_at is None
    assert [jobs[f"job_{n}"].idempotency_key for n in (1, 2)] == [None, "same"], "one owner, one job of a key"
    [detector] = old.rows(select(Detector))
    assert (detector.owner, detector.status, detector.error) == ("admin", "ready", None)
    assert old.rows(select(Dataset.owner)) == ["admin"]
    assert old.rows(select(Dataset.hashes)) == [None], "files of before are only looked for"


def test_a_worker_of_the_old_revision_can_still_write(old):
    """Its statements name the old columns alone."""
    with old.database.read() as session:
        tables = reflected(session.connection())
    schema.upgrade(old.database)
    jobs, of_job = tables["jobs"], {"job_id": "job_running"}
    held = jobs.update().where(jobs.c.id == "job_running", jobs.c.attempt == 1, jobs.c.status == "running")
    writes = [
        held.values(lease_expires_at=9.5e9, last_event=jobs.c.last_event + 1),
        tables["events"].insert().values(**of_job, seq=4, attempt=1, type="log", at=6.0, data={}),
        tables["metrics"].insert().values(**of_job, key="a/b", step=1, epoch=0, value=1.0, at=6.0, attempt=1, seq=5),
        tables["checkpoints"].insert().values(rows_of("checkpoints")[0] | {**of_job, "id": "ckpt_2"}),
        tables["artifacts"].insert().values(rows_of("artifacts")[0] | of_job),
        tables["attempts"].update().where(tables["attempts"].c.job_id == "job_running").values(end="succeeded"),
        held.values(status="succeeded", end_reason="completed", lease_owner=None, lease_expires_at=None),
        jobs.insert().values(job("job_posted_by_the_old")),
    ]
    for write in writes:
        old.do(lambda session, write=write: session.execute(write))
    assert old.job("job_running").status == "succeeded"
    posted = old.job("job_posted_by_the_old")
    assert (posted.owner, posted.tags, posted.failures_reset_at_attempt) == ("admin", [], 0)
    assert old.claim("job_posted_by_the_old").attempt == 1


OLD_SPEC = {
    "kind": "train",
    "dataset": "old",
    "max_bad_share": 0.1,
    "metadata": {"policy": "mine"},
    "student": {"architecture": "gfl", "head_convs": 2},
    "schedule": {"epochs": 2, "clip_norm": 5.0, "policy": {"name": "cosine"}, "flip": 0.25, "scales": [[64, 64]]},
}
OLD_REPORT = {
    "counts": {"images": 4, "images_without_boxes": 1, "boxes": 9, "crowd": 0},
    "classes": [{"id": 1, "name": "cell", "boxes": 9, "images": 3}],
    "box_sizes": {"small": 9, "medium": 0, "large": 0},
    "image_sizes": {"min_width": 8, "max_width": 8, "min_height": 8, "max_height": 8},
    "depth": "decoded",
    "problems": [{"code": "box_empty", "message": "a.jpg: box 5 is empty.", "file": "a.jpg"}],
    "problem_counts": {"box_empty": 1},
    "bad_images": 1,
    "bad_share": 0.25,
    "bad_image_ids": [2],
    "trainable_images": 2,
}
OLD_COMPARISON = {
    "gain": 0.1,
    "over_images": {"low": 0.05, "high": 0.15, "level": 0.95, "resamples": 1000, "images": 20, "by_number": {}},
    "over_seeds": {"low": 0.0, "high": 0.2, "mean": 0.1, "level": 0.95, "n": 3},
    "pairs": [],
    "unequal": "The student took fewer steps.",
}


@pytest.fixture
def revision_0003(harness):
    """The tables of revision 0003, with one row under each name that revision 0004 replaces."""
    harness.do(lambda session: session.delete(session.get(Dataset, "ds_shapes")))
    schema.downgrade(harness.database, "0003")
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    at, of_owner = {"created_at": 5.0}, {"owner": "alice"}
    request = {"kind": "probe", "request": {"spec": OLD_SPEC, "dataset_id": "ds_old"}, "status": "queued", "attempt": 0}
    job_row = {"kind": "train", "priority": 0, "status": "paused", "attempt": 2, "last_event": 0, "tags": [], **at}
    rows = {
        "datasets": {"id": "ds_old", "name": "old", **paths, "status": "has_problems", **at, **of_owner}
        | {"report": {"train": OLD_REPORT, "val": None, "unusable": []}},
        "jobs": {"id": "job_old", "spec": OLD_SPEC, "dataset_id": "ds_old", **job_row, **of_owner, "forgiven": 2}
        | {"facts": {"comparison": OLD_COMPARISON, "policy": "kept"}},
        "detectors": {"id": "det_old", "name": "t", "description": OLD_SPEC["student"], "sha256": "b", **at, **of_owner}
        | {"status": "ready", "weights_file": "t.pth"},
        "workers": {"id": "w", "host": "h", "version": "0", "slots": 4, "gpus": [], "draining": False}
        | {"started_at": 5.0, "seen_at": 5.0, "lacks": [{"key": "k", "owner": "alice", "message": "m"}]},
        "errands": {"id": "plan_old", **request, **at, **of_owner},
    }
    with harness.database.write() as session:
        metadata = MetaData()
        metadata.reflect(session.connection(), only=list(rows))
        for name, row in rows.items():
            session.execute(metadata.tables[name].insert().values(row))
        session.commit()
    return harness


def test_data_of_revision_0003_have_the_standard_names_afterwards(revision_0003):
    schema.upgrade(revision_0003.database)
    [job] = revision_0003.rows(select(Job))
    spec = JobSpec.model_validate(job.spec)
    assert (spec.max_invalid_fraction, spec.student.stacked_convs, spec.metadata) == (0.1, 2, {"policy": "mine"})
    schedule = spec.schedule
    assert (schedule.max_grad_norm, schedule.lr_schedule.name, schedule.flip_prob) == (5.0, "cosine", 0.25)
    assert schedule.train_sizes == ((64, 64),)
    assert job.failures_reset_at_attempt == 2
    comparison = Comparison.model_validate(job.facts["comparison"])
    assert (comparison.seed_interval.mean, comparison.step_mismatch) == (0.1, "The student took fewer steps.")
    assert comparison.image_interval.images == 20
    [dataset] = revision_0003.rows(select(Dataset))
    report = Report.model_validate(dataset.check_result["train"])
    assert (report.invalid_image_ids, report.labelled_images, report.issues[0].code) == ([2], 2, "box_empty")
    [detector] = revision_0003.rows(select(Detector))
    assert detector.description == {"architecture": "gfl", "stacked_convs": 2}
    [worker] = revision_0003.rows(select(Worker))
    assert (worker.concurrency, [entry["key"] for entry in worker.missing]) == (4, ["k"])
    [request] = revision_0003.rows(select(WorkerRequest))
    assert (request.id, JobSpec.model_validate(request.request["spec"])) == ("plan_old", spec)


def test_data_of_revision_0003_are_restored_by_a_downgrade(revision_0003):
    schema.upgrade(revision_0003.database)
    schema.downgrade(revision_0003.database, "0003")
    with revision_0003.database.read() as session:
        metadata = MetaData()
        metadata.reflect(session.connection(), only=["jobs", "detectors", "datasets", "workers", "errands"])
        [job] = session.execute(select(metadata.tables["jobs"])).mappings()
        assert (job["spec"], job["forgiven"]) == (OLD_SPEC, 2)
        assert job["facts"] == {"comparison": OLD_COMPARISON, "policy": "kept"}
        assert session.execute(select(metadata.tables["detectors"].c.description)).scalar() == OLD_SPEC["student"]
        assert session.execute(select(metadata.tables["datasets"].c.report)).scalar()["train"] == OLD_REPORT
        assert session.execute(select(metadata.tables["workers"].c.slots)).scalar() == 4
        assert session.execute(select(metadata.tables["errands"].c.id)).scalar() == "plan_old"


def test_a_worker_of_revision_0003_registers_and_takes_a_request(revision_0003):
    """Its statements name the old tables and columns alone."""
    schema.upgrade(revision_0003.database)
    with revision_0003.database.write() as session:
        metadata = MetaData()
        metadata.reflect(session.connection(), only=["workers", "errands"])
        workers, errands = metadata.tables["workers"], metadata.tables["errands"]
        row = {"id": "w2", "host": "h", "version": "0", "slots": 2, "gpus": [], "draining": False, "started_at": 5.0}
        session.execute(workers.insert().values(row | {"seen_at": 5.0, "lacks": []}))
        session.execute(errands.update().values(status="running", attempt=1, lease_owner="w2"))
        session.commit()
    assert len(revision_0003.rows(select(Worker))) == 2
