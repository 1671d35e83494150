"""Plans and probes of job specs."""

import json
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
ESTIMATE = {"ok": True, "checks": [], "steps": 3, "seconds_per_step": 0.5, "student": None}


def plan(service, spec=TRAIN, **changes):
    response = service.client.post("/jobs/plan", json={**spec, **changes})
    assert response.status_code == 200, response.text
    return response.json()


def codes(answer, level):
    return [check["code"] for check in answer["checks"] if check["level"] == level]


def count(service, table):
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def register_worker(service, gpus=0, id="worker", missing=()):
    values = {"host": "here", "version": "1", "concurrency": 1, "gpus": [{"index": 0, "name": "A GPU"}] * gpus}
    service.transact(worker_registry.register, id, **values, missing=missing)


def test_a_plan_describes_the_job_and_creates_none(service, shapes):
    register_worker(service)
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
        ({"epochs": 2, "batch_size": 4, "max_steps": 9}, 2, 4),
        ({"batch_size": 6}, 12, 12),
        ({"batch_size": 6, "max_steps": 20}, 20, 20),
    ],
)
def test_steps_are_computed_from_images_batch_size_and_epochs(service, shapes, schedule, epochs, steps):
    answer = plan(service, schedule=schedule)
    assert (answer["epochs"], answer["steps"]) == (epochs, steps)


@pytest.mark.parametrize(
    ("schedule", "limit"),
    [
        ({"epochs": 2}, "limited by `epochs`"),
        ({"epochs": 2, "max_steps": 1}, "limited by `max_steps`"),
        ({"max_steps": 20}, "limited by `max_steps`"),
        ({}, "limited by the default of 12 epochs"),
    ],
)
def test_a_plan_names_what_ends_the_training(service, shapes, schedule, limit):
    [message] = [
        check["message"] for check in plan(service, schedule=schedule)["checks"] if check["code"] == "schedule"
    ]
    assert limit in message


def test_a_plan_says_what_the_options_of_a_schedule_do(service, shapes):
    options = {"accumulate": 2, "ema": 0.9, "patience": 5, "augmentation": "strong"}
    answer = plan(service, schedule={"epochs": 2, "batch_size": 2} | options)
    [message] = [check["message"] for check in answer["checks"] if check["code"] == "schedule"]
    assert answer["steps"] == 4 and "A step has 2 batches of 2: 4 images." in message
    assert "over about 10 steps" in message and "after 5 evaluations" in message and "distorted in colour" in message


def test_a_plan_reports_all_errors_together(service):
    answer = plan(
        service,
        DISTILL,
        dataset="nowhere",
        unlabelled="nowhere either",
        teacher={"detector": "unknown"},
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
        {"teacher": {"detector": "unknown"}},
        {"teacher": {"job": "job_00000000000000000000000000"}},
        {"student": {"architecture": "gfl", "init": {"weights": "none.pth"}}},
        {},
    ],
)
def test_a_plan_is_ok_if_the_job_would_be_accepted(service, shapes, changes):
    answer = plan(service, DISTILL, **changes)
    response = service.client.post("/jobs", json=DISTILL | changes)
    assert answer["ok"] == (response.status_code == 201)
    if not answer["ok"]:
        assert response.json()["code"] == codes(answer, "error")[0]


def test_invalid_images_and_images_without_boxes_are_not_counted(service):
    def alter(folder, document):
        (folder / "train/000001.jpg").unlink()
        emptied = document["images"][3]["id"]
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] != emptied]

    service.copy_dataset_altered("holed", alter)
    service.register("holed")
    answer = plan(service, dataset="holed", max_invalid_fraction=0.5, schedule={"epochs": 2, "batch_size": 1})
    assert (answer["training_images"], answer["steps"]) == (4, 8)
    assert "excluded" in next(check["message"] for check in answer["checks"] if check["code"] == "dataset")
    assert "dataset" in codes(answer, "warning")
    assert codes(plan(service, dataset="holed"), "error") == ["bad_dataset"]
    folder = service.settings.datasets_root / "holed"
    assert check_split(folder / "train", folder / "annotations/instances_train.json").labelled_images == 4


def test_the_planned_queue_position_is_that_of_the_submitted_job(service, shapes):
    for priority in (0, 0, 3):
        service.submit(priority=priority)
    for priority in (-1, 0, 2, 3, 4):
        position = plan(service, priority=priority)["queue_position"]
        assert service.submit(priority=priority)["queue_position"] == position


@pytest.mark.parametrize(("baseline", "jobs"), [(False, 1), (True, 3), ({"seeds": 3}, 7)])
def test_a_plan_counts_the_jobs_to_be_created(service, shapes, baseline, jobs):
    assert plan(service, DISTILL, baseline=baseline)["jobs"] == jobs
    service.submit(DISTILL, baseline=baseline)
    assert count(service, Job) == jobs


def test_reasons_to_wait_are_warnings(service, shapes):
    assert codes(plan(service), "warning") == ["waiting_for_worker"]
    register_worker(service, gpus=1)
    assert codes(plan(service, resources={"devices": 2}), "warning") == ["waiting_for_device"]
    assert codes(plan(service, resources={"nodes": 2}), "warning") == ["waiting_for_nodes"]
    teacher = service.submit(name="large one")["id"]
    answer = plan(service, DISTILL, teacher={"job": teacher})
    assert (answer["ok"], codes(answer, "warning")) == (True, ["waiting_for_detector"])
    assert "Job large one, whose student this job uses, is queued." in [check["message"] for check in answer["checks"]]
    service.finish(service.claim(teacher))
    assert codes(plan(service, DISTILL, teacher={"job": teacher}), "warning") == []


def test_a_data_set_that_no_worker_has_is_a_warning_and_a_reason_for_a_probe_to_wait(service, shapes):
    missing = {"key": shapes["id"], "owner": "admin", "message": "lacks it."}
    register_worker(service, missing=[missing])
    answer = plan(service)
    assert (answer["ok"], codes(answer, "warning")) == (True, ["dataset_not_on_worker"])
    reason = probe(service).json()["status_reason"]
    assert (reason["code"], reason["message"]) == ("dataset_not_on_worker", "here lacks it.")


NO_IMAGENET = {
    "key": "imagenet/torchvision://resnet18",
    "owner": None,
    "message": "lacks the ImageNet weights resnet18-f37072fd.pth. Download it with `frs models pull ...`.",
}


def test_imagenet_weights_that_no_worker_has_are_a_warning_with_the_next_step(service, shapes):
    register_worker(service, missing=[NO_IMAGENET])
    student = {"architecture": "gfl", "backbone": {"depth": 18}}
    answer = plan(service, student=student | {"init": "imagenet"})
    [check] = [check for check in answer["checks"] if check["level"] == "warning"]
    assert (answer["ok"], check["code"]) == (True, "weights_not_on_worker")
    assert "frs models pull" in check["message"] and check["hint"]
    assert codes(plan(service, student=student), "warning") == [], "random weights need no file"
    register_worker(service, id="another")
    assert codes(plan(service, student=student | {"init": "imagenet"}), "warning") == []


def test_a_workers_imagenet_weights_are_no_missing_files_of_a_job(service, shapes):
    register_worker(service, missing=[NO_IMAGENET])
    assert service.get("/workers")["data"][0]["missing"] == []
    job_id = service.submit(student={"architecture": "gfl", "backbone": {"depth": 18}})["id"]
    assert service.get(f"/jobs/{job_id}")["status_reason"]["code"] == "waiting_for_worker"


def test_a_backbone_without_published_imagenet_weights_is_refused(service, shapes):
    student = {"architecture": "gfl", "backbone": {"type": "MobileNetV2", "widen_factor": 0.5}, "init": "imagenet"}
    assert codes(plan(service, student=student), "error") == ["weights_not_found"]


def test_epochs_of_the_base_config_require_a_probe(service, shapes):
    answer = plan(service, student={"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}, schedule={})
    assert (answer["ok"], answer["steps"], answer["training_images"]) == (True, None, 6)
    [schedule_check] = [check for check in answer["checks"] if check["code"] == "schedule"]
    assert (schedule_check["ok"], schedule_check["level"]) == (
        False,
        "info",
    ) and "measure on a worker" in schedule_check["hint"]


def test_an_evaluation_has_no_steps(service, shapes):
    answer = plan(service, {"kind": "evaluate", "dataset": "shapes", "student": DISTILL["teacher"]})
    assert (answer["ok"], answer["steps"], answer["training_images"]) == (True, None, None)


def test_an_invalid_spec_is_rejected(shared_service):
    problem = shared_service.assert_problem(
        shared_service.client.post("/jobs/plan", json={"dataset": "x"}), 422, "invalid_request"
    )
    assert problem["errors"]
    spec = TRAIN | {"kind": "compare"}
    shared_service.assert_problem(shared_service.client.post("/jobs/plan", json=spec), 422, "invalid_spec")


def test_every_recipe_can_be_planned(shared_service):
    for recipe in RECIPES.values():
        assert plan(shared_service, recipe.spec_as_dict())["jobs"] >= 1


def probe(service, spec=TRAIN, **options):
    return service.client.post("/jobs/plan?probe=true", json=spec, **options)


def test_a_probe_is_a_worker_request(service, shapes):
    spec = TRAIN | {"resources": {"devices": 1}}
    response = probe(service, spec)
    assert response.status_code == 202
    queued = service.get(response.headers["location"])
    assert queued == response.json()
    assert (queued["status"], queued["result"], queued["error"], queued["finished_at"]) == ("queued", None, None, None)
    assert queued["spec"]["resources"]["devices"] == 1
    with service.database.read() as session:
        worker_request = session.scalars(select(WorkerRequest)).one()
    assert (worker_request.id, worker_request.kind, worker_request.devices, worker_request.owner) == (
        queued["id"],
        "probe",
        1,
        "admin",
    )
    assert worker_request.request == {
        "spec": queued["spec"],
        "key_id": worker_request.request["key_id"],
        "dataset_id": shapes["id"],
    }
    assert count(service, Job) == 0


def test_a_probe_returns_its_estimate_or_its_error(service, shapes):
    done, broken = (probe(service).json()["id"] for _ in range(2))
    lease = service.transact(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1))
    assert [service.get(f"/plans/{id}")["status_reason"] is None for id in (done, broken)] == [True, False]
    assert service.get(f"/plans/{done}")["status"] == "running"
    service.transact(worker_requests.finish, lease, result=ESTIMATE)
    finished = service.get(f"/plans/{done}")
    assert (finished["status"], finished["result"]["steps"], finished["result"]["seconds_per_step"]) == (
        "succeeded",
        3,
        0.5,
    )
    assert finished["finished_at"].endswith("Z")
    problem = ErrorInfo(code="internal_error", message="It died.", hint="See the log.")
    service.transact(
        worker_requests.finish,
        service.transact(worker_requests.claim, "worker", 60.0, GpuCapacity(1, 1)),
        error=problem,
    )
    failed = service.get(f"/plans/{broken}")
    assert (failed["status"], failed["result"], failed["error"]) == ("failed", None, problem.model_dump())


def test_a_probe_that_waits_for_storage_says_so(service, shapes):
    plan_id = probe(service).json()["id"]
    lease = service.transact(worker_requests.claim, "worker", 60.0)
    error = ErrorInfo(code="waiting_for_storage", message="The disk is full.", hint="")
    service.transact(worker_requests.retry_later, lease, error, 60.0, attempt_counts=False)
    waiting = service.get(f"/plans/{plan_id}")
    assert (waiting["status"], waiting["error"]) == ("queued", None)
    reason = waiting["status_reason"]
    assert (reason["code"], reason["message"]) == ("waiting_for_storage", "The disk is full.")
    assert "Free disk space" in reason["hint"] and reason["since"] >= waiting["created_at"]


def test_a_probe_requires_everything_that_its_spec_refers_to(service, shapes):
    service.assert_problem(probe(service, TRAIN | {"dataset": "nowhere"}), 422, "dataset_not_found")
    teacher = service.submit()["id"]
    problem = service.assert_problem(
        probe(service, DISTILL | {"teacher": {"job": teacher}}), 409, "waiting_for_detector"
    )
    assert teacher in problem["detail"]
    assert count(service, WorkerRequest) == 0
    service.finish(service.claim(teacher))
    assert probe(service, DISTILL | {"teacher": {"job": teacher}}).status_code == 202


def test_too_many_probes_are_rejected(service, shapes, monkeypatch):
    monkeypatch.setattr("api.plans.service.MAX_PROBES", 2)
    assert [probe(service).status_code for _ in range(2)] == [202, 202]
    assert service.assert_problem(probe(service), 429, "too_many_probes")["hint"]
    service.transact(worker_requests.finish, service.transact(worker_requests.claim, "worker", 60.0), result=ESTIMATE)
    assert probe(service).status_code == 202


def test_a_plan_of_another_owner_is_not_found(service, shapes):
    plan_id = probe(service).json()["id"]
    token = api_keys.new_token()
    service.transact(api_keys.add, "stranger", token, owner="stranger", scopes=[api_keys.Scope.SUBMIT])
    stranger = {"Authorization": f"Bearer {token}"}
    for id in (plan_id, "plan_00000000000000000000000000"):
        service.assert_problem(service.client.get(f"/plans/{id}", headers=stranger), 404, "plan_not_found")
    service.assert_problem(probe(service, headers=stranger), 422, "dataset_not_found")
    assert service.client.get("/plans/job_1").status_code == 404


def test_the_api_does_not_import_torch():
    code = "import sys, api.app; sys.exit(int(any(name in sys.modules for name in ('torch', 'mmengine', 'mmdet'))))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def dataset_message(answer):
    return next(check["message"] for check in answer["checks"] if check["code"] == "dataset")


def test_background_images_are_counted_only_if_they_are_kept(service):
    def alter(folder, document):
        emptied = {image["id"] for image in document["images"][:2]}
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] not in emptied]

    service.copy_dataset_altered("background", alter)
    warnings = service.register("background")["warnings"]
    assert any("training uses 4 images, with `schedule.keep_background_images` 6" in text for text in warnings)
    schedule = {"epochs": 1, "batch_size": 1}
    answer = plan(service, dataset="background", schedule=schedule)
    assert (answer["training_images"], answer["steps"]) == (4, 4)
    assert "2 images without boxes are left out; `schedule.keep_background_images`" in dataset_message(answer)
    answer = plan(service, dataset="background", schedule=schedule | {"keep_background_images": True})
    assert (answer["training_images"], answer["steps"]) == (6, 6)
    assert "6 images to train on. 2 of them have no boxes." in dataset_message(answer)


def test_validation_images_with_more_objects_than_detections_that_count_are_a_warning(service):
    def alter(folder, _):
        file = folder / "annotations" / "instances_val.json"
        document = json.loads(file.read_text())
        entry = document["annotations"][0]
        document["annotations"] = [
            entry | {"id": n, "bbox": [n % 40, n // 40, 9, 9], "area": 81} for n in range(1, 121)
        ]
        file.write_text(json.dumps(document))

    service.copy_dataset_altered("crowded", alter)
    warnings = service.register("crowded")["warnings"]
    assert any("The validation split: 1 image has more than 100 objects, up to 120" in text for text in warnings)
    answer = plan(service, dataset="crowded")
    assert (answer["ok"], "dataset" in codes(answer, "warning")) == (True, True)
    assert "set `evaluation.max_detections`" in dataset_message(answer)
    answer = plan(service, dataset="crowded", evaluation={"max_detections": 120})
    assert "dataset" not in codes(answer, "warning")


@pytest.mark.parametrize(
    ("detector", "claim"),
    [
        ({"architecture": "gfl"}, "`student` refers to no weights file."),
        ({"architecture": "gfl", "init": "imagenet"}, "`student` refers to no weights file."),
        ({"architecture": "gfl", "init": {"weights": "teacher.pth"}}, "The weights that `student` starts from exist."),
        ({"architecture": "gfl", "init": {"backbone": "teacher.pth"}}, "The weights that `student` starts from exist."),
        ({"architecture": "gfl", "init": {"detector": "known"}}, "The weights that `student` starts from exist."),
    ],
)
def test_a_plan_claims_only_what_the_service_has_checked(service, shapes, detector, claim):
    weights = {"description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    assert service.client.post("/detectors", json={"name": "known", **weights}).status_code == 201
    answer = plan(service, student=detector)
    [message] = [check["message"] for check in answer["checks"] if check["code"] == "student"]
    assert message.startswith(claim) and "measure on a worker" in message


def test_a_plan_does_not_claim_that_a_registered_teacher_fits(service, shapes):
    weights = {"description": {"architecture": "retinanet"}, "weights": "teacher.pth"}
    assert service.client.post("/detectors", json={"name": "known", **weights}).status_code == 201
    answer = plan(service, DISTILL, teacher={"detector": "known"})
    [message] = [check["message"] for check in answer["checks"] if check["code"] == "teacher"]
    assert message == "`teacher` exists. Its weights are not read here: measure on a worker."
