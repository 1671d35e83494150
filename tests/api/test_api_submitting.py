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
NOBODY = "job_00000000000000000000000000"


def count_jobs(service):
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job))


def test_a_job_is_made_and_located(service, shapes):
    response = service.client.post("/jobs", json=TRAIN)
    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert (job["status"], job["is_terminal"], job["allowed_actions"]) == ("queued", False, ["cancel", "pause"])
    assert (job["queue_position"], job["attempt"], job["progress"], job["error"]) == (1, 0, None, None)
    assert job["status_reason"]["code"] == "waiting_for_worker"
    assert job["spec"]["schedule"]["batch_size"] == 16
    assert job["created_at"].endswith("Z")
    assert service.get(f"/jobs/{job['id']}") == job


def test_a_job_belongs_to_the_key_that_asked_for_it(service, shapes):
    service.submit()
    with service.database.read() as session:
        assert session.scalars(select(Job.key_id)).one()


def test_the_data_set_can_be_named_by_its_id(service, shapes):
    assert service.submit(dataset=shapes["id"])["spec"]["dataset"] == shapes["id"]


def test_a_baseline_comes_with_its_parent(service, shapes):
    parent = service.submit(DISTILL | {"baseline": True, "tags": ["a"]})
    [baseline_id] = parent["baseline_job_ids"]
    baseline = service.get(f"/jobs/{baseline_id}")
    assert (baseline["kind"], baseline["name"], baseline["parent_id"]) == ("train", "small-baseline", parent["id"])
    for field in ("dataset", "student", "schedule", "resources", "max_invalid_fraction", "tags"):
        assert baseline["spec"][field] == parent["spec"][field]
    assert baseline["spec"]["teacher"] is None
    assert (parent["queue_position"], baseline["queue_position"]) == (1, 2)
    service.claim(baseline_id)


def test_seeds_bring_a_baseline_each_and_siblings(service, shapes):
    schedule = {"schedule": {"epochs": 1, "seed": 7}}
    parent = service.submit(DISTILL | schedule | {"baseline": {"seeds": 3}})
    shown = {
        key: [service.get(f"/jobs/{job_id}") for job_id in parent[f"{key}_job_ids"]] for key in ("baseline", "sibling")
    }
    seeds = {key: [job["spec"]["schedule"]["seed"] for job in jobs] for key, jobs in shown.items()}
    assert seeds == {"baseline": [7, 8, 9], "sibling": [8, 9]}
    assert {job["kind"] for job in shown["sibling"]} == {"distill"} and {job["kind"] for job in shown["baseline"]} == {
        "train"
    }
    assert all(job["spec"]["baseline"] is False and job["parent_id"] == parent["id"] for job in shown["sibling"])
    assert [job["name"] for job in shown["sibling"]] == ["small-seed8", "small-seed9"]
    assert not any(job["baseline_job_ids"] for job in shown["sibling"])


def test_the_comparison_waits_for_the_runs(service, shapes):
    parent = service.submit(DISTILL | {"baseline": True})
    comparison = service.get(f"/jobs/{parent['comparison_job_id']}")
    assert (comparison["kind"], comparison["status_reason"]["code"]) == ("compare", "waiting_for_runs")
    assert comparison["spec"]["teacher"] is None


def test_nobody_posts_a_comparison(service, shapes):
    spec = {"kind": "compare", "dataset": "shapes", "student": {"architecture": "gfl"}}
    problem = service.refused(service.client.post("/jobs", json=spec), 422, "invalid_spec")
    assert problem["errors"][0]["loc"] == "kind"


def test_cancelling_a_job_cancels_what_it_brought_along(service, shapes):
    parent = service.submit(DISTILL | {"baseline": {"seeds": 2}})
    ended, *others = parent["baseline_job_ids"]
    service.settle(service.claim(ended))
    service.client.post(f"/jobs/{parent['id']}/cancel")
    run_group = [parent["id"], *others, *parent["seed_job_ids"], parent["comparison_job_id"]]
    assert {service.get(f"/jobs/{job_id}")["status"] for job_id in run_group} == {"cancelled"}
    assert service.get(f"/jobs/{ended}")["status"] == "succeeded"


def test_the_longest_name_leaves_room_for_the_baselines(service, shapes):
    parent = service.submit(DISTILL | {"baseline": True, "name": "x" * 100})
    baseline = service.get(f"/jobs/{parent['baseline_job_ids'][0]}")
    assert baseline["name"] == "x" * 91 + "-baseline"


def refused_for(service, spec, code, loc):
    problem = service.refused(service.client.post("/jobs", json=spec), 422, code)
    assert problem["errors"][0]["loc"] == loc
    assert problem["hint"]
    assert count_jobs(service) == 0
    return problem


def test_an_unknown_data_set_is_refused_with_the_next_step(refusing):
    assert "POST /datasets" in refused_for(refusing, TRAIN, "dataset_not_found", "dataset")["hint"]


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"teacher": {"detector": "nope"}}, "teacher.detector"),
        ({"teacher": {"architecture": "gfl", "init": {"detector": "nope"}}}, "teacher.init.detector"),
        ({"student": {"architecture": "gfl", "init": {"detector": "nope"}}}, "student.init.detector"),
        ({"kind": "evaluate", "teacher": None, "student": {"detector": "nope"}}, "student.detector"),
    ],
)
def test_an_unknown_detector_is_refused_with_the_next_step(service, shapes, change, loc):
    assert "POST /detectors" in refused_for(service, DISTILL | change, "detector_not_found", loc)["hint"]


def test_an_unknown_set_of_unlabelled_images_is_refused_by_its_field(service, shapes):
    refused = service.refused(
        service.client.post("/jobs", json=DISTILL | {"unlabelled": "nowhere"}), 422, "dataset_not_found"
    )
    assert [error["loc"] for error in refused["errors"]] == ["unlabelled"]
    assert service.submit(DISTILL | {"unlabelled": "shapes"})["spec"]["unlabelled"] == "shapes"


def test_weights_that_are_not_there_are_refused(service, shapes):
    spec = DISTILL | {"teacher": {"architecture": "gfl", "init": {"weights": "nope.pth"}}}
    refused_for(service, spec, "weights_not_found", "teacher.init.weights")


def test_a_missing_image_is_refused_by_name(service):
    service.altered_copy("shapes2", lambda folder, _: (folder / "train/000003.jpg").unlink())
    service.register("shapes2")
    problem = refused_for(service, TRAIN | {"dataset": "shapes2"}, "bad_dataset", "dataset")
    assert "000003.jpg" in problem["detail"]
    assert problem["errors"][0]["code"] == "image_missing"
    assert "max_invalid_fraction" in problem["hint"]


def test_an_empty_box_is_refused_by_file_and_box(service):
    def alter(_, document):
        document["annotations"][4]["bbox"][3] = 0

    service.altered_copy("shapes2", alter)
    service.register("shapes2")
    problem = refused_for(service, TRAIN | {"dataset": "shapes2"}, "bad_dataset", "dataset")
    assert ".jpg: box 5 [" in problem["detail"]
    assert problem["errors"][0]["code"] == "box_empty"


def test_problems_within_the_accepted_share_are_left_out(service):
    service.altered_copy("shapes2", lambda folder, _: (folder / "train/000003.jpg").unlink())
    service.register("shapes2")
    spec = TRAIN | {"dataset": "shapes2", "max_invalid_fraction": 0.16}
    hint = refused_for(service, spec, "bad_dataset", "dataset")["hint"]
    assert "0.1667" in hint
    assert service.submit(spec, max_invalid_fraction=0.1667)["status"] == "queued"


def test_a_class_that_the_teacher_lacks_is_refused_by_name(service, shapes):
    body = {"name": "poor", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body | {"classes": ["circle", "square", "triangle"]})
    problem = refused_for(service, DISTILL | {"teacher": {"detector": "poor"}}, "class_mismatch", "teacher.detector")
    assert "'star'" in problem["detail"]


def test_a_student_may_start_from_a_detector_of_other_classes_but_not_be_scored_as_one(service, shapes):
    body = {"name": "poor", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body | {"classes": ["circle", "square", "triangle"]})
    student = {"architecture": "gfl", "init": {"detector": "poor"}}
    refused_for(service, TRAIN | {"kind": "evaluate", "student": student}, "class_mismatch", "student.init.detector")
    refused_for(service, DISTILL | {"teacher": student}, "class_mismatch", "teacher.init.detector")
    assert service.submit(TRAIN | {"student": student})["status"] == "queued"
    assert service.submit(DISTILL | {"student": student})["status"] == "queued"


def test_a_teacher_with_the_same_classes_is_taken(service, shapes):
    body = {"name": "good", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body | {"classes": ["circle", "square", "triangle", "star"]})
    assert service.submit(DISTILL | {"teacher": {"detector": "good"}})["status"] == "queued"


def test_a_job_waits_for_the_job_that_trains_its_teacher(service, shapes):
    teacher = service.submit()["id"]
    job = service.submit(DISTILL | {"teacher": {"job": teacher}})
    assert job["status_reason"]["code"] == "waiting_for_teacher"
    assert teacher in job["status_reason"]["message"]


def test_an_unknown_job_is_no_teacher(service, shapes):
    refused_for(service, DISTILL | {"teacher": {"job": NOBODY}}, "job_not_found", "teacher.job")


def test_jobs_that_give_no_student_are_no_teachers(service, shapes):
    evaluation = service.submit({"kind": "evaluate", "dataset": "shapes", "student": DISTILL["teacher"]})["id"]
    cancelled = service.submit()["id"]
    service.client.post(f"/jobs/{cancelled}/cancel")
    failed = service.claim(service.submit()["id"])
    service.settle(failed, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    for job_id in (evaluation, cancelled, failed.job_id):
        response = service.client.post("/jobs", json=DISTILL | {"teacher": {"job": job_id}})
        assert service.refused(response, 422, "dependency_failed")["errors"][0]["loc"] == "teacher.job"


def test_a_teacher_trained_on_other_classes_is_refused(service, shapes):
    def alter(folder, document):
        document["categories"][3]["name"] = "comet"
        val = folder / "annotations/instances_val.json"
        val.write_text(val.read_text().replace('"star"', '"comet"'))

    service.altered_copy("comets", alter)
    service.register("comets")
    teacher = service.submit(dataset="comets")["id"]
    response = service.client.post("/jobs", json=DISTILL | {"teacher": {"job": teacher}})
    assert "'comet'" in service.refused(response, 422, "class_mismatch")["detail"]


def test_an_evaluation_refers_to_what_it_scores(service, shapes):
    trained = service.trained()
    job = service.submit({"kind": "evaluate", "dataset": "shapes", "student": {"job": trained}})
    with service.database.read() as session:
        assert session.get_one(Job, job["id"]).teacher_job_id == trained


def post_with_key(service, key, **changes):
    return service.client.post("/jobs", json=TRAIN | changes, headers={"Idempotency-Key": key})


def test_the_same_request_twice_makes_one_job(service, shapes):
    first, second = (post_with_key(service, "k1") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] == second.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert count_jobs(service) == 1


def test_a_request_that_means_the_same_is_the_same(service, shapes):
    post_with_key(service, "k1")
    assert post_with_key(service, "k1", baseline=False).headers["idempotency-replayed"] == "true"


def test_another_request_under_the_same_key_is_refused(service, shapes):
    post_with_key(service, "k1")
    service.refused(post_with_key(service, "k1", name="other"), 422, "idempotency_key_reused")
    assert post_with_key(service, "k2", name="other").status_code == 201


def test_a_repeated_request_is_answered_even_if_it_could_not_be_made_any_more(service, shapes):
    teacher = service.submit()["id"]
    spec = DISTILL | {"teacher": {"job": teacher}}
    first = post_with_key(service, "k1", **spec | {"kind": "distill"})
    service.client.post(f"/jobs/{teacher}/cancel")
    second = post_with_key(service, "k1", **spec | {"kind": "distill"})
    assert first.json()["id"] == second.json()["id"]


def test_a_refused_request_uses_no_key_up(service):
    service.refused(post_with_key(service, "k1"), 422, "dataset_not_found")
    service.register("shapes")
    assert post_with_key(service, "k1").status_code == 201


def test_twenty_posts_at_once_with_one_key_make_one_job_and_its_baseline(service, shapes):
    spec = DISTILL | {"baseline": True}

    def post(_):
        return service.client.post("/jobs", json=spec, headers={"Idempotency-Key": "k1"})

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(post, range(20)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.json()["id"] for response in responses}) == 1
    assert sum("idempotency-replayed" in response.headers for response in responses) == 19
    assert count_jobs(service) == 3, "the comparison, too"


def test_a_dead_broker_does_not_slow_a_post(settings):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()  # accepts, and says nothing
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        app = create_app(settings.model_copy(update={"broker_url": url}))
        with TestClient(app) as client:
            client.headers["Authorization"] = f"Bearer {settings.api_key_file.read_text().strip()}"
            client.post("/datasets", json={"name": "shapes"})
            start = time.monotonic()
            statuses = [client.post("/jobs", json=TRAIN).status_code for _ in range(20)]
            assert time.monotonic() - start < 3
    assert statuses == [201] * 20


def test_a_hint_follows_the_commit_for_the_job_and_its_baseline(service, shapes, monkeypatch):
    hinted = []

    def enqueue(job_id):
        with service.database.read() as session:
            assert session.get(Job, job_id), "the row is there when the hint goes out"
        hinted.append(job_id)

    monkeypatch.setattr(service.client.app.state.context.wakeups, "enqueue", enqueue)
    job = service.submit(DISTILL | {"baseline": True})
    assert hinted == [job["id"], *job["baseline_job_ids"], job["comparison_job_id"]]


@pytest.mark.parametrize("gone", ["data set", "teacher"])
def test_what_a_job_refers_to_may_be_deleted_while_it_is_being_checked(service, shapes, monkeypatch, gone):
    teacher = service.trained()
    path, spec = (f"/datasets/{shapes['id']}", TRAIN)
    if gone == "teacher":
        path, spec = f"/jobs/{teacher}", DISTILL | {"teacher": {"job": teacher}}
    else:
        assert service.client.delete(f"/jobs/{teacher}").status_code == 204
    check = references.check

    def check_and_delete(*arguments):
        found = check(*arguments)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(service.client.delete, path).result().status_code == 204
        return found

    monkeypatch.setattr(references, "check", check_and_delete)
    before = count_jobs(service)
    problem = service.refused(service.client.post("/jobs", json=spec), 409, "conflict")
    assert "changed meanwhile" in problem["detail"]
    assert count_jobs(service) == before - (gone == "teacher")
