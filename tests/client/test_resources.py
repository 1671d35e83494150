"""The calls of the client, against a real service without a worker: jobs stay queued."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from servers import ApiProcess

from frs_client import ApiError, JobSpec, ServiceError
from frs_client.aio import jobs as async_jobs
from frs_client.sync import jobs as sync_jobs

STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16}
SPEC: dict[str, Any] = {"kind": "train", "dataset": "shapes", "student": STUDENT}


def test_a_job_is_submitted_read_edited_cancelled_and_deleted(client: Any) -> None:
    job = client.jobs.submit(SPEC | {"tags": ["a"]})
    assert (job.status, job.spec.schedule.batch_size, job.is_terminal) == ("queued", 16, False)
    edited = client.jobs.edit(job.id, name="one", priority=-3)
    assert (edited.name, edited.tags, edited.priority) == ("one", ["a"], -3)
    assert client.jobs.edit(job.id, name=None).name is None
    assert client.jobs.cancel(job.id).status == "cancelled"
    details = client.jobs.get(job.id)
    assert details.requested_action.action == "cancel"
    assert [event.type for event in client.jobs.events(job.id)]
    client.jobs.delete(job.id)
    with pytest.raises(ApiError) as error:
        client.jobs.get(job.id)
    assert (error.value.code, error.value.status) == ("job_not_found", 404)


def test_a_spec_is_a_model_or_a_dictionary(client: Any) -> None:
    spec = JobSpec.model_validate(SPEC | {"schedule": {"epochs": 3}})
    job = client.jobs.submit(spec)
    assert (job.spec.schedule.epochs, job.spec.student.backbone.width) == (3, 8)
    assert job.spec.schedule.batch_size == client.jobs.submit(SPEC).spec.schedule.batch_size


def test_an_invalid_spec_is_an_error_with_its_fields(client: Any) -> None:
    with pytest.raises(ApiError) as error:
        client.jobs.submit(SPEC | {"schedule": {"epochs": 0}, "priority": 1000})
    problem = error.value
    assert (problem.status, problem.code) == (422, "invalid_request")
    assert {field.loc for field in problem.errors} == {"schedule.epochs", "priority"}
    assert problem.request_id
    assert problem.hint
    assert "schedule.epochs" in str(problem)


def test_all_jobs_are_listed_page_by_page(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sync_jobs, async_jobs):
        monkeypatch.setattr(module, "PAGE_ROWS", 2)
    ids = [client.jobs.submit(SPEC | {"tags": ["paged"], "name": f"job {number}"}).id for number in range(5)]
    assert [job.id for job in client.jobs.list(tag="paged")][:5] == ids[::-1]
    assert (
        next(client.jobs.list(status=["queued", "running"], kind="train", dataset="shapes", name="job 4")).id == ids[-1]
    )
    assert not list(client.jobs.list(status="failed"))


def test_a_plan_and_a_job_without_results(client: Any, tmp_path: Path) -> None:
    plan = client.jobs.plan(SPEC)
    assert plan.ok
    assert {check.code for check in plan.checks} >= {"dataset", "student"}
    job = client.jobs.submit(SPEC)
    assert client.jobs.metrics(job.id, "train/loss").rows() == []
    assert client.jobs.report(job.id).status == "partial"
    for rows in (client.jobs.logs, client.jobs.artifacts, client.jobs.checkpoints, client.jobs.evaluations):
        assert list(rows(job.id)) == []
    assert list(client.jobs.exports(job.id)) == []
    with pytest.raises(ServiceError, match="no student yet"):
        client.jobs.pull(job.id, tmp_path)


def test_an_action_that_the_status_forbids_names_those_it_allows(client: Any) -> None:
    job = client.jobs.submit(SPEC)
    with pytest.raises(ApiError) as error:
        client.jobs.retry(job.id)
    assert error.value.code == "action_not_allowed"
    assert "cancel" in error.value.allowed_actions


def test_a_data_set_is_uploaded_listed_checked_and_deleted(client: Any, service: ApiProcess, tmp_path: Path) -> None:
    source = shutil.copytree(service.log.parent / "datasets" / "shapes", tmp_path / "mine")
    (source / "notes.pdf").write_text("not sent")
    sent: list[tuple[int, int]] = []
    dataset = client.datasets.upload("mine", source, progress=lambda done, total: sent.append((done, total)))
    assert (dataset.status, dataset.counts.train.images) == ("ready", 4)
    assert sent[-1][0] == sent[-1][1] > 0
    assert "mine" in {row.name for row in client.datasets.list()}
    assert len(list(client.datasets.images("mine", "val"))) == 2
    assert client.datasets.check(dataset.id)
    client.datasets.delete("mine")
    with pytest.raises(ApiError, match="dataset_not_found"):
        client.datasets.get("mine")


def test_a_file_that_is_no_archive_is_not_sent(client: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("hello")
    with pytest.raises(ServiceError, match=r"not a \.zip, \.tar or \.tar\.gz archive"):
        client.datasets.upload("text", tmp_path / "a.zip")


def test_names_in_any_script_are_quoted_in_paths(client: Any) -> None:
    for name in ("猫/犬?x=1", "100 %", "../jobs"):
        with pytest.raises(ApiError, match="dataset_not_found|invalid_request|not_found"):
            client.datasets.get(name)


def test_a_detector_is_uploaded_and_deleted(client: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    detector = client.detectors.upload("big", tmp_path / "a.pth", STUDENT, classes=["cat", "dog"])
    assert (detector.status, detector.classes) == ("importing", ["cat", "dog"])
    assert client.detectors.get("big").description.backbone.depth == 18
    with pytest.raises(TimeoutError, match="imported in time"):
        client.detectors.wait("big", timeout=0)
    client.detectors.delete("big")
    assert "big" not in {row.name for row in client.detectors.list()}


def test_a_sweep_is_created_stopped_resumed_and_deleted(client: Any) -> None:
    spec = {"kind": "train", "dataset": "shapes", "student": STUDENT}
    sweep = client.sweeps.create({"name": "rates", "spec": spec, "space": {"schedule.batch_size": [4, 8]}})
    assert (sweep.status, sweep.settings) == ("searching", 2)
    assert next(client.sweeps.list()).id == sweep.id
    with pytest.raises(TimeoutError, match="not ended in time"):
        client.sweeps.wait(sweep.id, timeout=0)
    assert client.sweeps.stop(sweep.id).status == "stopped"
    stopped = client.sweeps.wait(sweep.id)
    assert [(row.values, row.mAP) for row in stopped.table] == [({"schedule.batch_size": 4}, None)], "those posted"
    assert stopped.confirmation is None
    assert client.sweeps.resume(sweep.id).status == "searching"
    client.sweeps.stop(sweep.id)
    client.sweeps.delete(sweep.id)
    with pytest.raises(ApiError, match="sweep_not_found"):
        client.sweeps.get(sweep.id)


def test_keys_are_created_rotated_and_revoked(client: Any, connect: Any, service: ApiProcess) -> None:
    key = client.keys.create({"name": "ci", "owner": "ann", "scopes": ["read"]})
    assert client.keys.get(key.id).owner == "ann"
    with pytest.raises(ApiError) as error:
        connect(service.url, key.token).jobs.submit(SPEC)
    assert error.value.status == 403
    assert client.keys.rotate(key.id, grace_hours=1).token != key.token
    client.keys.revoke(key.id)
    assert next(row for row in client.keys.list() if row.id == key.id).revoked_at


def test_a_webhook_is_created_its_delivery_sent_again_and_both_deleted(client: Any) -> None:
    webhook = client.webhooks.create("https://hooks.invalid/frs", ["job.cancelled"])
    assert webhook.secret.startswith("whsec_")
    assert client.webhooks.get(webhook.id).events == ["job.cancelled"]
    job = client.jobs.submit(SPEC)
    client.jobs.cancel(job.id)
    delivery = next(client.webhooks.deliveries(webhook.id))
    assert (delivery.job_id, delivery.event) == (job.id, "job.cancelled")
    assert client.webhooks.redeliver(webhook.id, delivery.id).id == delivery.id
    client.webhooks.delete(webhook.id)
    assert webhook.id not in {row.id for row in client.webhooks.list()}


def test_the_service_describes_itself(client: Any) -> None:
    assert client.health().status == "ok"
    assert client.version().frs
    assert client.queue().counts is not None
    assert list(client.workers()) == []
    assert client.usage().disks
    assert {"shapes_gfl"} <= {recipe.name for recipe in client.recipes()}
    ids = [client.jobs.submit(SPEC | {"max_invalid_fraction": share}).id for share in (0.1, 0.2)]
    assert "max_invalid_fraction" in {row.path for row in client.compare(ids).differences}
    assert client.clean({"contents": ["jobs"], "older_than_days": 1, "dry_run": True}).job_ids == []
    assert next(client.audit(action="job.submit")).target == ids[-1]
