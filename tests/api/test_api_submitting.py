"""Submission of jobs: references, derived jobs, idempotency."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from api.app import create_app
from api.jobs import references
from store.db.tables import Job
from store.states import EndReason, JobStatus

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
DISTILL = {
    "name": "small",
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
    "schedule": {"epochs": 2, "seed": 7},
    "resources": {"devices": 0},
}
UNKNOWN_JOB = "job_00000000000000000000000000"


def count_jobs(service):
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job))


def test_a_submitted_job_is_queued_and_located(service, shapes):
    response = service.client.post("/jobs", json=TRAIN)
    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert (job["status"], job["is_terminal"], job["allowed_actions"]) == ("queued", False, ["cancel", "pause"])
    assert (job["queue_position"], job["attempt"], job["progress"], job["error"]) == (1, 0, None, None)
    assert job["status_reason"]["code"] == "waiting_for_worker"
    assert job["spec"]["schedule"]["batch_size"] == 16
    assert job["created_at"].endswith("Z")
    assert service.get_summary(job["id"]) == job


def test_a_job_stores_the_key_that_submitted_it(service, shapes):
    service.submit()
    with service.database.read() as session:
        assert session.scalars(select(Job.key_id)).one()


def test_the_data_set_can_be_named_by_its_id(service, shapes):
    assert service.submit(dataset=shapes["id"])["spec"]["dataset"] == shapes["id"]


def test_a_baseline_is_submitted_with_its_parent(service, shapes):
    parent = service.submit(DISTILL | {"baseline": True, "tags": ["a"]})
    [baseline_id] = parent["baseline_job_ids"]
    baseline = service.get(f"/jobs/{baseline_id}")
    assert (baseline["kind"], baseline["name"], baseline["parent_id"]) == ("train", "small-baseline", parent["id"])
    for field in ("dataset", "student", "schedule", "resources", "max_invalid_fraction", "tags"):
        assert baseline["spec"][field] == parent["spec"][field]
    assert baseline["spec"]["teacher"] is None
    assert (parent["queue_position"], baseline["queue_position"]) == (1, 2)
    service.claim(baseline_id)


def test_seeds_add_a_baseline_per_seed_and_seed_variants(service, shapes):
    schedule = {"schedule": {"epochs": 1, "seed": 7}}
    parent = service.submit(DISTILL | schedule | {"baseline": {"seeds": 3}})
    children = {
        key: [service.get(f"/jobs/{job_id}") for job_id in parent[f"{key}_job_ids"]] for key in ("baseline", "seed")
    }
    seeds = {key: [job["spec"]["schedule"]["seed"] for job in jobs] for key, jobs in children.items()}
    assert seeds == {"baseline": [7, 8, 9], "seed": [8, 9]}
    assert {job["kind"] for job in children["seed"]} == {"distill"} and {
        job["kind"] for job in children["baseline"]
    } == {"train"}
    assert all(job["spec"]["baseline"] is False and job["parent_id"] == parent["id"] for job in children["seed"])
    assert [job["name"] for job in children["seed"]] == ["small-seed8", "small-seed9"]
    assert not any(job["baseline_job_ids"] for job in children["seed"])


def test_the_comparison_waits_for_the_runs(service, shapes):
    parent = service.submit(DISTILL | {"baseline": True})
    comparison = service.get(f"/jobs/{parent['comparison_job_id']}")
    assert (comparison["kind"], comparison["status_reason"]["code"]) == ("compare", "waiting_for_runs")
    assert comparison["spec"]["teacher"] is None


def test_a_comparison_cannot_be_submitted(service, shapes):
    spec = {"kind": "compare", "dataset": "shapes", "student": {"architecture": "gfl"}}
    problem = service.assert_problem(service.client.post("/jobs", json=spec), 422, "invalid_spec")
    assert problem["errors"][0]["loc"] == "kind"


@pytest.mark.parametrize(
    ("kind", "student"),
    [("quantize", {"job": UNKNOWN_JOB}), ("distill", {"architecture": "gfl", "init": {"job": UNKNOWN_JOB}})],
)
def test_a_trained_head_cannot_be_replaced_by_that_of_the_teacher(service, shapes, kind, student):
    spec = DISTILL | {"kind": kind, "student": student, "distillation": {"init_from_teacher": True}}
    assert_rejected(service, spec, "invalid_spec", "distillation.init_from_teacher")


def test_cancelling_a_job_cancels_its_children(service, shapes):
    parent = service.submit(DISTILL | {"baseline": {"seeds": 2}})
    ended, *others = parent["baseline_job_ids"]
    service.finish(service.claim(ended))
    service.client.post(f"/jobs/{parent['id']}/cancel")
    run_group = [parent["id"], *others, *parent["seed_job_ids"], parent["comparison_job_id"]]
    assert {service.get(f"/jobs/{job_id}")["status"] for job_id in run_group} == {"cancelled"}
    assert service.get(f"/jobs/{ended}")["status"] == "succeeded"


def test_the_longest_name_is_shortened_for_the_baseline(service, shapes):
    parent = service.submit(DISTILL | {"baseline": True, "name": "x" * 100})
    baseline = service.get(f"/jobs/{parent['baseline_job_ids'][0]}")
    assert baseline["name"] == "x" * 91 + "-baseline"


def assert_rejected(service, spec, code, loc):
    problem = service.assert_problem(service.client.post("/jobs", json=spec), 422, code)
    assert problem["errors"][0]["loc"] == loc
    assert problem["hint"]
    assert count_jobs(service) == 0
    return problem


def test_an_unknown_data_set_is_rejected_with_a_hint(shared_service):
    assert "list of data sets" in assert_rejected(shared_service, TRAIN, "dataset_not_found", "dataset")["hint"]


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"teacher": {"detector": "nope"}}, "teacher.detector"),
        ({"teacher": {"architecture": "gfl", "init": {"detector": "nope"}}}, "teacher.init.detector"),
        ({"student": {"architecture": "gfl", "init": {"detector": "nope"}}}, "student.init.detector"),
        ({"kind": "evaluate", "teacher": None, "student": {"detector": "nope"}}, "student.detector"),
    ],
)
def test_an_unknown_detector_is_rejected_with_a_hint(service, shapes, change, loc):
    assert "list of detectors" in assert_rejected(service, DISTILL | change, "detector_not_found", loc)["hint"]


def test_an_unknown_unlabelled_data_set_is_rejected_with_its_field(service, shapes):
    problem = service.assert_problem(
        service.client.post("/jobs", json=DISTILL | {"unlabelled": "nowhere"}), 422, "dataset_not_found"
    )
    assert [error["loc"] for error in problem["errors"]] == ["unlabelled"]
    assert service.submit(DISTILL | {"unlabelled": "shapes"})["spec"]["unlabelled"] == "shapes"


def test_missing_weights_are_rejected(service, shapes):
    spec = DISTILL | {"teacher": {"architecture": "gfl", "init": {"weights": "nope.pth"}}}
    assert_rejected(service, spec, "weights_not_found", "teacher.init.weights")
    spec = TRAIN | {"student": {"architecture": "gfl", "init": {"backbone": "nope.pth"}}}
    assert_rejected(service, spec, "weights_not_found", "student.init.backbone")


def test_a_missing_image_is_rejected_with_its_name(service):
    service.copy_dataset_altered("shapes2", lambda folder, _: (folder / "train/000003.jpg").unlink())
    service.register("shapes2")
    problem = assert_rejected(service, TRAIN | {"dataset": "shapes2"}, "bad_dataset", "dataset")
    assert "000003.jpg" in problem["detail"]
    assert problem["errors"][0]["code"] == "image_missing"
    assert "max_invalid_fraction" in problem["hint"]


def test_an_empty_box_is_rejected_with_file_and_box(service):
    def alter(_, document):
        document["annotations"][4]["bbox"][3] = 0

    service.copy_dataset_altered("shapes2", alter)
    service.register("shapes2")
    problem = assert_rejected(service, TRAIN | {"dataset": "shapes2"}, "bad_dataset", "dataset")
    assert ".jpg: box 5 [" in problem["detail"]
    assert problem["errors"][0]["code"] == "box_empty"


def test_invalid_images_within_the_accepted_fraction_are_excluded(service):
    service.copy_dataset_altered("shapes2", lambda folder, _: (folder / "train/000003.jpg").unlink())
    service.register("shapes2")
    spec = TRAIN | {"dataset": "shapes2", "max_invalid_fraction": 0.16}
    hint = assert_rejected(service, spec, "bad_dataset", "dataset")["hint"]
    assert "0.1667" in hint
    assert service.submit(spec, max_invalid_fraction=0.1667)["status"] == "queued"


def test_a_class_missing_in_the_teacher_is_rejected_with_its_name(service, shapes):
    body = {"name": "poor", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body | {"classes": ["circle", "square", "triangle"]})
    problem = assert_rejected(
        service, DISTILL | {"teacher": {"detector": "poor"}}, "class_mismatch", "teacher.detector"
    )
    assert "'star'" in problem["detail"]


def test_initial_weights_of_a_student_can_have_other_classes_but_not_those_of_an_evaluation(service, shapes):
    body = {"name": "poor", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body | {"classes": ["circle", "square", "triangle"]})
    student = {"architecture": "gfl", "init": {"detector": "poor"}}
    assert_rejected(
        service, TRAIN | {"kind": "evaluate", "student": student}, "class_mismatch", "student.init.detector"
    )
    assert_rejected(service, DISTILL | {"teacher": student}, "class_mismatch", "teacher.init.detector")
    assert service.submit(TRAIN | {"student": student})["status"] == "queued"
    assert service.submit(DISTILL | {"student": student})["status"] == "queued"


def test_a_teacher_with_the_same_classes_is_accepted(service, shapes):
    body = {"name": "good", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body | {"classes": ["circle", "square", "triangle", "star"]})
    assert service.submit(DISTILL | {"teacher": {"detector": "good"}})["status"] == "queued"


def test_a_job_waits_for_the_job_that_trains_its_teacher(service, shapes):
    teacher = service.submit()["id"]
    job = service.submit(DISTILL | {"teacher": {"job": teacher}})
    assert job["status_reason"]["code"] == "waiting_for_detector"
    assert teacher in job["status_reason"]["message"]


def test_an_unknown_teacher_job_is_rejected(service, shapes):
    assert_rejected(service, DISTILL | {"teacher": {"job": UNKNOWN_JOB}}, "job_not_found", "teacher.job")


def test_teacher_jobs_without_a_student_are_rejected(service, shapes):
    evaluation = service.submit({"kind": "evaluate", "dataset": "shapes", "student": DISTILL["teacher"]})["id"]
    cancelled = service.submit()["id"]
    service.client.post(f"/jobs/{cancelled}/cancel")
    failed = service.claim(service.submit()["id"])
    service.finish(failed, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    for job_id in (evaluation, cancelled, failed.job_id):
        response = service.client.post("/jobs", json=DISTILL | {"teacher": {"job": job_id}})
        assert service.assert_problem(response, 422, "dependency_failed")["errors"][0]["loc"] == "teacher.job"


def test_a_teacher_trained_on_other_classes_is_rejected(service, shapes):
    def alter(folder, document):
        document["categories"][3]["name"] = "comet"
        val = folder / "annotations/instances_val.json"
        val.write_text(val.read_text().replace('"star"', '"comet"'))

    service.copy_dataset_altered("comets", alter)
    service.register("comets")
    teacher = service.submit(dataset="comets")["id"]
    response = service.client.post("/jobs", json=DISTILL | {"teacher": {"job": teacher}})
    assert "lacks 'star'" in service.assert_problem(response, 422, "class_mismatch")["detail"]


def test_an_evaluation_refers_to_the_evaluated_job(service, shapes):
    trained = service.succeeded_job()
    job = service.submit({"kind": "evaluate", "dataset": "shapes", "student": {"job": trained}})
    with service.database.read() as session:
        assert session.get_one(Job, job["id"]).teacher_job_id == trained


@pytest.mark.parametrize("is_teacher", [True, False])
def test_both_jobs_whose_students_a_job_uses_are_kept_until_it_ends(service, shapes, is_teacher):
    start, teacher = (service.succeeded_job() for _ in range(2))
    student = {"architecture": "gfl", "init": {"job": start}}
    job = service.submit(DISTILL | {"teacher": {"job": teacher}, "student": student})
    source = f"/jobs/{teacher if is_teacher else start}"
    service.assert_problem(service.client.delete(source), 409, "job_in_use")
    service.client.post(f"/jobs/{job['id']}/cancel")
    assert service.client.delete(source).status_code == 204


def post_with_key(service, key, **changes):
    return service.client.post("/jobs", json=TRAIN | changes, headers={"Idempotency-Key": key})


def test_a_repeated_request_creates_one_job(service, shapes):
    first, second = (post_with_key(service, "k1") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] == second.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert count_jobs(service) == 1


def test_equivalent_requests_are_the_same_request(service, shapes):
    post_with_key(service, "k1")
    assert post_with_key(service, "k1", baseline=False).headers["idempotency-replayed"] == "true"


def test_another_request_with_the_same_idempotency_key_is_rejected(service, shapes):
    post_with_key(service, "k1")
    service.assert_problem(post_with_key(service, "k1", name="other"), 422, "idempotency_key_reused")
    assert post_with_key(service, "k2", name="other").status_code == 201


def test_a_repeated_request_succeeds_even_if_its_references_are_no_longer_valid(service, shapes):
    teacher = service.submit()["id"]
    spec = DISTILL | {"teacher": {"job": teacher}}
    first = post_with_key(service, "k1", **spec | {"kind": "distill"})
    service.client.post(f"/jobs/{teacher}/cancel")
    second = post_with_key(service, "k1", **spec | {"kind": "distill"})
    assert first.json()["id"] == second.json()["id"]


def test_a_rejected_request_does_not_use_its_idempotency_key(service):
    service.assert_problem(post_with_key(service, "k1"), 422, "dataset_not_found")
    service.register("shapes")
    assert post_with_key(service, "k1").status_code == 201


def test_concurrent_requests_with_one_idempotency_key_create_one_job(service, shapes):
    spec = DISTILL | {"baseline": True}

    def post(_):
        return service.client.post("/jobs", json=spec, headers={"Idempotency-Key": "k1"})

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(post, range(20)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.json()["id"] for response in responses}) == 1
    assert sum("idempotency-replayed" in response.headers for response in responses) == 19
    assert count_jobs(service) == 3, "the job, its baseline and the comparison"


def test_an_unresponsive_broker_does_not_delay_a_submission(settings):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()  # accepts connections and sends nothing
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        app = create_app(settings.model_copy(update={"broker_url": url}))
        with TestClient(app) as client:
            client.headers["Authorization"] = f"Bearer {settings.api_key_file.read_text().strip()}"
            client.post("/datasets", json={"name": "shapes"})
            start = time.monotonic()
            statuses = [client.post("/jobs", json=TRAIN).status_code for _ in range(20)]
            assert time.monotonic() - start < 3
    assert statuses == [201] * 20


def test_wake_ups_are_sent_after_the_commit(service, shapes, monkeypatch):
    woken_job_ids = []

    def enqueue(job_id):
        with service.database.read() as session:
            assert session.get(Job, job_id), "the row exists when the wake-up is sent"
        woken_job_ids.append(job_id)

    monkeypatch.setattr(service.client.app.state.context.wakeups, "enqueue", enqueue)
    job = service.submit(DISTILL | {"baseline": True})
    assert woken_job_ids == [job["id"], *job["baseline_job_ids"], job["comparison_job_id"]]


@pytest.mark.parametrize("deleted", ["data set", "teacher"])
def test_references_deleted_during_the_submission_are_a_conflict(service, shapes, monkeypatch, deleted):
    teacher = service.succeeded_job()
    path, spec = (f"/datasets/{shapes['id']}", TRAIN)
    if deleted == "teacher":
        path, spec = f"/jobs/{teacher}", DISTILL | {"teacher": {"job": teacher}}
    else:
        assert service.client.delete(f"/jobs/{teacher}").status_code == 204
    check = references.check

    def check_and_delete(*arguments):
        job_references = check(*arguments)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(service.client.delete, path).result().status_code == 204
        return job_references

    monkeypatch.setattr(references, "check", check_and_delete)
    before = count_jobs(service)
    problem = service.assert_problem(service.client.post("/jobs", json=spec), 409, "conflict")
    assert "changed meanwhile" in problem["detail"]
    assert count_jobs(service) == before - (deleted == "teacher")


def test_a_data_set_without_an_image_to_train_on_is_refused_before_the_job(service):
    def alter(folder, document):
        for box in document["annotations"]:
            box["iscrowd"] = 1
        document["annotations"][0]["iscrowd"] = 0
        (folder / "train" / document["images"][0]["file_name"]).unlink()

    service.copy_dataset_altered("crowds", alter)
    service.register("crowds")
    spec = TRAIN | {"dataset": "crowds", "max_invalid_fraction": 0.9}
    service.assert_problem(service.client.post("/jobs", json=spec), 422, "bad_dataset")
