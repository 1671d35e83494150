"""What a job would be, told before it is posted."""

import subprocess
import sys

import pytest
from sqlalchemy import func, select

from frs.dataset.check import check_split
from frs.events import ErrorInfo
from frs.recipes import RECIPES
from store.db import api_keys
from store.db.tables import Job, WorkerRequest
from store.requests import worker_requests
from store.scheduling import worker_registry
from store.scheduling.queue import GpuCapacity

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 3}}
DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
    "schedule": {"epochs": 2, "batch_size": 4},
}
FORECAST = {"ok": True, "checks": [], "steps": 3, "seconds_per_step": 0.5, "student": None}


def plan(service, spec=TRAIN, **changes):
    response = service.client.post("/jobs/plan", json={**spec, **changes})
    assert response.status_code == 200, response.text
    return response.json()


def codes(answer, level):
    return [check["code"] for check in answer["checks"] if check["level"] == level]


def count(service, table):
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def a_worker(service, gpus=0):
    card = {"index": 0, "name": "A GPU"}
    service._do(worker_registry.register, "worker", host="here", version="1", concurrency=1, gpus=[card] * gpus)


def test_a_plan_says_what_the_job_would_be_and_makes_none(service, shapes):
    a_worker(service)
    answer = plan(service)
    assert answer["ok"] is True
    assert answer["spec"]["schedule"]["batch_size"] == 16
    assert (answer["training_images"], answer["epochs"], answer["steps"]) == (6, 3, 3)
    assert (answer["queue_position"], answer["jobs"]) == (1, 1)
    assert [(check["code"], check["ok"]) for check in answer["checks"]] == [
        ("dataset", True),
        ("student", True),
        ("schedule", True),
        ("workers", True),
    ]
    assert count(service, Job) == 0


@pytest.mark.parametrize(
    ("schedule", "epochs", "steps"),
    [
        ({"epochs": 2, "batch_size": 4}, 2, 4),
        ({"epochs": 2, "batch_size": 4, "max_steps": 3}, 2, 3),
        ({"epochs": 2, "batch_size": 4, "max_steps": 2}, 1, 2),
        ({"batch_size": 6}, 12, 12),
    ],
)
def test_steps_follow_from_images_batch_and_epochs(service, shapes, schedule, epochs, steps):
    answer = plan(service, schedule=schedule)
    assert (answer["epochs"], answer["steps"]) == (epochs, steps)


def test_everything_that_is_wrong_is_told_at_once(service):
    answer = plan(
        service,
        DISTILL,
        dataset="nowhere",
        unlabelled="nowhere either",
        teacher={"detector": "nobody"},
        student={"architecture": "gfl", "init": {"weights": "none.pth"}},
    )
    assert answer["ok"] is False
    assert codes(answer, "error") == [
        "dataset_not_found",
        "dataset_not_found",
        "weights_not_found",
        "detector_not_found",
    ]
    assert all(check["hint"] for check in answer["checks"] if check["level"] == "error")
    assert (answer["training_images"], answer["epochs"], answer["steps"]) == (None, None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "nowhere"},
        {"unlabelled": "nowhere"},
        {"teacher": {"detector": "nobody"}},
        {"teacher": {"job": "job_00000000000000000000000000"}},
        {"student": {"architecture": "gfl", "init": {"weights": "none.pth"}}},
        {},
    ],
)
def test_a_plan_is_well_where_the_job_would_be_taken(service, shapes, changes):
    answer = plan(service, DISTILL, **changes)
    response = service.client.post("/jobs", json=DISTILL | changes)
    assert answer["ok"] == (response.status_code == 201)
    if not answer["ok"]:
        assert response.json()["code"] == codes(answer, "error")[0]


def test_images_without_boxes_and_images_left_out_are_not_trained_on(service):
    def alter(folder, document):
        (folder / "train/000001.jpg").unlink()
        emptied = document["images"][3]["id"]
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] != emptied]

    service.altered_copy("holed", alter)
    service.register("holed")
    answer = plan(service, dataset="holed", max_invalid_fraction=0.5, schedule={"epochs": 2, "batch_size": 1})
    assert (answer["training_images"], answer["steps"]) == (4, 8)
    assert "left out" in next(check["message"] for check in answer["checks"] if check["code"] == "dataset")
    assert "dataset" in codes(answer, "warning")
    assert codes(plan(service, dataset="holed"), "error") == ["bad_dataset"]
    folder = service.settings.datasets_root / "holed"
    assert check_split(folder / "train", folder / "annotations/instances_train.json").labelled_images == 4


def test_the_place_in_the_queue_is_the_one_it_would_get(service, shapes):
    for priority in (0, 0, 3):
        service.submit(priority=priority)
    for priority in (-1, 0, 2, 3, 4):
        place = plan(service, priority=priority)["queue_position"]
        assert service.submit(priority=priority)["queue_position"] == place


@pytest.mark.parametrize(("baseline", "jobs"), [(False, 1), (True, 3), ({"seeds": 3}, 7)])
def test_a_plan_counts_the_jobs_it_would_make(service, shapes, baseline, jobs):
    assert plan(service, DISTILL, baseline=baseline)["jobs"] == jobs
    service.submit(DISTILL, baseline=baseline)
    assert count(service, Job) == jobs


def test_what_would_keep_it_waiting_is_a_warning(service, shapes):
    assert codes(plan(service), "warning") == ["waiting_for_worker"]
    a_worker(service, gpus=1)
    assert codes(plan(service, resources={"devices": 2}), "warning") == ["waiting_for_device"]
    teacher = service.submit()["id"]
    answer = plan(service, DISTILL, teacher={"job": teacher})
    assert (answer["ok"], codes(answer, "warning")) == (True, ["waiting_for_teacher"])
    service.settle(service.claim(teacher))
    assert codes(plan(service, DISTILL, teacher={"job": teacher}), "warning") == []


def test_a_data_set_that_no_worker_has_is_a_warning_and_a_probes_reason_to_wait(service, shapes):
    told = {"key": shapes["id"], "owner": "admin", "message": "lacks it."}
    service._do(worker_registry.register, "worker", host="here", version="1", concurrency=1, gpus=[], missing=[told])
    answer = plan(service)
    assert (answer["ok"], codes(answer, "warning")) == (True, ["dataset_not_on_worker"])
    reason = probe(service).json()["status_reason"]
    assert (reason["code"], reason["message"]) == ("dataset_not_on_worker", "here lacks it.")


def test_what_only_the_stock_config_knows_is_left_to_a_probe(service, shapes):
    answer = plan(service, student={"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}, schedule={})
    assert (answer["ok"], answer["steps"], answer["training_images"]) == (True, None, 6)
    [said] = [check for check in answer["checks"] if check["code"] == "schedule"]
    assert (said["ok"], said["level"]) == (False, "info") and "probe" in said["hint"]


def test_an_evaluation_has_no_steps(service, shapes):
    answer = plan(service, {"kind": "evaluate", "dataset": "shapes", "student": DISTILL["teacher"]})
    assert (answer["ok"], answer["steps"], answer["training_images"]) == (True, None, None)


def test_what_is_no_spec_is_refused_as_ever(refusing):
    refused = refusing.refused(refusing.client.post("/jobs/plan", json={"dataset": "x"}), 422, "invalid_request")
    assert refused["errors"]
    spec = TRAIN | {"kind": "compare"}
    refusing.refused(refusing.client.post("/jobs/plan", json=spec), 422, "invalid_spec")


def test_every_recipe_can_be_planned(refusing):
    for recipe in RECIPES.values():
        assert plan(refusing, recipe.spec_as_dict())["jobs"] >= 1


def probe(service, spec=TRAIN, **options):
    return service.client.post("/jobs/plan?probe=true", json=spec, **options)


def test_a_probe_is_a_worker_request_for_a_worker(service, shapes):
    spec = TRAIN | {"resources": {"devices": 1}}
    response = probe(service, spec)
    assert response.status_code == 202
    found = service.get(response.headers["location"])
    assert found == response.json()
    assert (found["status"], found["result"], found["error"], found["finished_at"]) == ("queued", None, None, None)
    assert found["spec"]["resources"]["devices"] == 1
    with service.database.read() as session:
        worker_request = session.scalars(select(WorkerRequest)).one()
    assert (worker_request.id, worker_request.kind, worker_request.devices, worker_request.owner) == (
        found["id"],
        "probe",
        1,
        "admin",
    )
    assert worker_request.request == {
        "spec": found["spec"],
        "key_id": worker_request.request["key_id"],
        "dataset_id": shapes["id"],
    }
    assert count(service, Job) == 0


def test_a_probe_tells_its_forecast_or_its_failure(service, shapes):
    done, broken = (probe(service).json()["id"] for _ in range(2))
    lease = service._do(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1))
    assert [service.get(f"/plans/{id}")["status_reason"] is None for id in (done, broken)] == [True, False]
    assert service.get(f"/plans/{done}")["status"] == "running"
    service._do(worker_requests.finish, lease, result=FORECAST)
    found = service.get(f"/plans/{done}")
    assert (found["status"], found["result"]["steps"], found["result"]["seconds_per_step"]) == ("succeeded", 3, 0.5)
    assert found["finished_at"].endswith("Z")
    problem = ErrorInfo(code="internal_error", message="It died.", hint="See the log.")
    service._do(
        worker_requests.finish, service._do(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1)), error=problem
    )
    found = service.get(f"/plans/{broken}")
    assert (found["status"], found["result"], found["error"]) == ("failed", None, problem.model_dump())


def test_a_probe_needs_what_its_spec_refers_to(service, shapes):
    service.refused(probe(service, TRAIN | {"dataset": "nowhere"}), 422, "dataset_not_found")
    teacher = service.submit()["id"]
    problem = service.refused(probe(service, DISTILL | {"teacher": {"job": teacher}}), 409, "waiting_for_teacher")
    assert teacher in problem["hint"]
    assert count(service, WorkerRequest) == 0
    service.settle(service.claim(teacher))
    assert probe(service, DISTILL | {"teacher": {"job": teacher}}).status_code == 202


def test_probes_beyond_measure_are_refused(service, shapes, monkeypatch):
    monkeypatch.setattr("api.plans.service.MAX_PROBES", 2)
    assert [probe(service).status_code for _ in range(2)] == [202, 202]
    assert service.refused(probe(service), 429, "too_many_probes")["hint"]
    service._do(worker_requests.finish, service._do(worker_requests.claim, "worker", 60.0), result=FORECAST)
    assert probe(service).status_code == 202


def test_another_owners_plan_is_not_there(service, shapes):
    plan_id = probe(service).json()["id"]
    token = api_keys.new_token()
    service._do(api_keys.add, "stranger", token, owner="stranger", scopes=[api_keys.Scope.SUBMIT])
    stranger = {"Authorization": f"Bearer {token}"}
    for id in (plan_id, "plan_00000000000000000000000000"):
        service.refused(service.client.get(f"/plans/{id}", headers=stranger), 404, "plan_not_found")
    service.refused(probe(service, headers=stranger), 422, "dataset_not_found")
    assert service.client.get("/plans/job_1").status_code == 404


def test_planning_needs_no_torch():
    code = "import sys, api.app; sys.exit(int(any(name in sys.modules for name in ('torch', 'mmengine', 'mmdet'))))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
