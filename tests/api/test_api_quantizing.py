"""Kind `quantize` over the API: it starts from the student of another job, whose description it takes over."""

import pytest

from frs.spec import JobSpec, quantisation_of
from store.db.tables import Job

STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8, "norm": "gn"}, "neck_channels": 32}
TEACHER = {"architecture": "gfl", "neck_channels": 64}


@pytest.fixture
def source(service, shapes):
    return service.submit(kind="train", student=STUDENT)["id"]


def quantize(service, **changes):
    return service.client.post("/jobs", json={"kind": "quantize", "dataset": "shapes"} | changes)


def test_a_job_names_the_job_of_its_student_and_has_its_description(service, source):
    response = quantize(service, student={"job": source})
    assert response.status_code == 201, response.text
    job = response.json()
    assert job["kind"] == "quantize"
    student = job["spec"]["student"]
    assert {name: student[name] for name in ("architecture", "neck_channels", "init")} == {
        "architecture": "gfl",
        "neck_channels": 32,
        "init": {"job": source},
    }
    assert (job["spec"]["schedule"]["epochs"], job["spec"]["schedule"]["optimizer"]["learning_rate"]) == (3, 1e-4)
    assert job["status_reason"]["code"] == "waiting_for_detector"
    with service.database.read() as session:
        assert session.get_one(Job, job["id"]).teacher_job_id == source


def test_its_student_can_be_exported(service, source):
    job = quantize(service, student={"job": source}).json()
    export = service.client.post(f"/jobs/{job['id']}/exports")
    assert export.status_code == 201
    assert export.json()["spec"]["student"] == {"job": job["id"]}


def test_a_repeated_request_starts_one_job(service, source):
    body = {"kind": "quantize", "dataset": "shapes", "student": {"job": source}}
    first, second = (service.client.post("/jobs", json=body, headers={"Idempotency-Key": "q"}) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]


def test_a_job_without_a_student_is_refused(service, source):
    evaluation = service.submit({"kind": "evaluate", "dataset": "shapes", "student": {"job": source}})["id"]
    for job_id, code in ((evaluation, "dependency_failed"), ("job_" + "0" * 26, "job_not_found")):
        response = quantize(service, student={"job": job_id})
        assert service.assert_problem(response, 422, code)["errors"][0]["loc"] == "student.job"


def test_a_teacher_that_is_gone_is_refused(service, source):
    response = quantize(service, student={"job": source}, teacher={"job": "job_" + "0" * 26})
    assert service.assert_problem(response, 422, "job_not_found")["errors"][0]["loc"] == "teacher.job"


def test_a_job_cannot_wait_for_its_student_and_another_teacher(service, source):
    teacher = service.submit(kind="train", student=TEACHER)["id"]
    response = quantize(service, student={"job": source}, teacher={"job": teacher})
    assert service.assert_problem(response, 422, "detector_not_ready")["errors"][0]["loc"] == "teacher.job"
    finished = service.succeeded_job()
    assert quantize(service, student={"job": source}, teacher={"job": finished}).status_code == 201


def test_a_job_whose_student_is_ready_waits_for_its_teacher(service, shapes):
    finished, teacher = service.succeeded_job(student=STUDENT), service.submit(kind="train", student=TEACHER)["id"]
    response = quantize(service, student={"job": finished}, teacher={"job": teacher})
    assert response.status_code == 201, response.text
    job = response.json()
    assert (job["status_reason"]["code"], teacher in job["status_reason"]["message"]) == ("waiting_for_detector", True)
    with service.database.read() as session:
        assert session.get_one(Job, job["id"]).teacher_job_id == teacher


def test_a_plan_checks_the_source(service, source):
    body = {"kind": "quantize", "dataset": "shapes"}
    plan = service.client.post("/jobs/plan", json=body | {"student": {"job": source}}).json()
    assert plan["ok"], plan["checks"]
    assert plan["epochs"] == 3
    assert not service.client.post("/jobs/plan", json=body | {"student": {"job": "job_" + "0" * 26}}).json()["ok"]


def test_weights_of_a_job_start_any_training(service, source):
    job = service.submit(kind="train", student=STUDENT | {"init": {"job": source}})
    assert job["status_reason"]["code"] == "waiting_for_detector"


def test_the_quantisation_of_a_distilled_student_has_its_data_and_teacher():
    fields = {"name": "small", "kind": "distill", "dataset": "shapes", "teacher": TEACHER, "student": STUDENT}
    settings = {"method": "pkd", "baseline": True, "schedule": {"epochs": 30, "batch_size": 4, "image_size": [96, 96]}}
    source = JobSpec.model_validate(fields | settings | {"resources": {"max_minutes": 5}})
    spec = quantisation_of(source, "job_" + "0" * 26)
    assert (spec.kind, spec.name, spec.dataset, spec.method) == ("quantize", "small-quantized", "shapes", "pkd")
    assert (spec.teacher, spec.baseline) == (source.teacher, False)
    assert (spec.schedule.epochs, spec.schedule.batch_size, spec.schedule.image_size) == (3, 4, (96, 96))
    assert spec.resources.max_minutes is None
    alone = quantisation_of(source.model_copy(update={"teacher": None}), "job_" + "0" * 26)
    assert (alone.teacher, alone.method) == (None, "frs")
