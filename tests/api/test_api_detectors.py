"""Registration and deletion of detectors."""

import hashlib

import pytest
from sqlalchemy import update

from store.db import api_keys
from store.db.tables import Dataset
from store.states import EndReason, JobStatus, Scope

CLASSES = ["circle", "square", "triangle", "star"]


def register(service, **fields):
    body = {"name": "teacher", "description": {"architecture": "gfl"}, "weights": "teacher.pth"} | fields
    return service.client.post("/detectors", json=body)


def test_weights_in_the_models_folder_are_registered(service):
    response = register(service, classes=CLASSES)
    detector = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/detectors/{detector['id']}"
    assert detector["sha256"] == hashlib.sha256(b"weights of a teacher").hexdigest()
    assert (detector["weights_file"], detector["job_id"], detector["classes"]) == ("teacher.pth", None, CLASSES)
    assert detector["description"]["backbone"] is None, "the base config's"
    assert service.get("/detectors/teacher") == service.get(f"/detectors/{detector['id']}") == detector
    assert service.get("/detectors")["data"] == [detector]


def test_a_base_config_is_a_description(service):
    detector = register(service, description={"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}).json()
    assert detector["description"] == {"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py", "init": "imagenet"}


def test_the_last_student_of_a_job_is_registered(service, shapes):
    job_id = service.succeeded_job()
    response = service.client.post("/detectors", json={"name": "small", "job": job_id})
    assert response.status_code == 201
    detector = response.json()
    assert detector["job_id"] == job_id
    assert detector["weights_file"] is None
    assert detector["sha256"] == hashlib.sha256(b"0123456789").hexdigest()
    assert detector["classes"] == CLASSES
    assert detector["description"]["architecture"] == "gfl"


def test_jobs_and_the_detectors_from_them_show_their_mAP(service, shapes):
    lease = service.claim(service.submit()["id"])
    assert service.get(f"/jobs/{lease.job_id}")["mAP"] is None
    service.evaluate(lease, "teacher", 0.9)
    service.evaluate(lease, "student", 0.4)
    service.checkpoint(lease)
    service.finish(lease)
    assert service.client.post("/detectors", json={"name": "small", "job": lease.job_id}).json()["mAP"] == 0.4
    register(service, name="from a file")
    assert [row["mAP"] for row in service.get("/jobs")["data"]] == [0.4]
    assert {row["name"]: row["mAP"] for row in service.get("/detectors")["data"]} == {"small": 0.4, "from a file": None}


def test_a_job_that_has_not_succeeded_is_rejected(service, shapes):
    waiting = service.submit()["id"]
    failed = service.claim(service.submit()["id"])
    service.checkpoint(failed)
    service.finish(failed, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    for job_id in (waiting, failed.job_id):
        response = service.client.post("/detectors", json={"name": "small", "job": job_id})
        assert service.assert_problem(response, 422, "student_not_ready")["errors"][0]["loc"] == "job"


@pytest.mark.parametrize(
    ("fields", "code", "loc"),
    [
        ({"weights": "nope.pth"}, "weights_not_found", "weights"),
        ({"weights": "../api-key"}, "invalid_request", "weights"),
        ({"weights": None}, "invalid_request", ""),
        ({"description": None}, "invalid_request", ""),
        ({"job": "job_00000000000000000000000000"}, "invalid_request", ""),
        (
            {"description": {"architecture": "gfl", "backbone": {"depth": 1}}},
            "invalid_request",
            "description.backbone.depth",
        ),
        ({"classes": []}, "invalid_request", "classes"),
        ({"name": "a/b"}, "invalid_request", "name"),
    ],
)
def test_an_invalid_detector_is_rejected(shared_service, fields, code, loc):
    problem = shared_service.assert_problem(register(shared_service, **fields), 422, code)
    assert problem["errors"][0]["loc"] == loc


def test_links_to_files_outside_the_models_folder_are_rejected(service):
    (service.settings.models_root / "key").symlink_to(service.settings.api_key_file)
    service.assert_problem(register(service, weights="key"), 422, "weights_not_found")


def test_an_unknown_job_is_rejected(shared_service):
    response = shared_service.client.post("/detectors", json={"name": "x", "job": "job_00000000000000000000000000"})
    shared_service.assert_problem(response, 422, "job_not_found")


def test_a_name_can_be_used_once(service):
    assert register(service).status_code == 201
    service.assert_problem(register(service), 409, "name_taken")


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "distill", "teacher": {"detector": "teacher"}, "student": {"architecture": "gfl"}},
        {"kind": "train", "student": {"architecture": "gfl", "init": {"detector": "teacher"}}},
        {"kind": "evaluate", "student": {"detector": "teacher"}},
    ],
)
def test_a_detector_cannot_be_deleted_while_a_job_needs_it(service, shapes, spec):
    register(service)
    job = service.submit(spec | {"dataset": "shapes"})
    service.assert_problem(service.client.delete("/detectors/teacher"), 409, "detector_in_use")
    service.client.post(f"/jobs/{job['id']}/cancel")
    assert service.client.delete("/detectors/teacher").status_code == 204
    service.assert_problem(service.client.get("/detectors/teacher"), 404, "detector_not_found")


@pytest.fixture
def of_alice(service, shapes):
    """The id of a detector `t` of alice; the service's own key is an admin's."""
    token = api_keys.new_token()
    service.transact(api_keys.add, "alice", token, owner="alice", scopes=[Scope.SUBMIT])
    body = {"name": "t", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    response = service.client.post("/detectors", json=body, headers={"Authorization": f"Bearer {token}"})
    return response.json()["id"]


OF_T = [
    ({"kind": "distill", "teacher": {"detector": "t"}, "student": {"architecture": "gfl"}}, "teacher.detector"),
    (
        {
            "kind": "distill",
            "teacher": {"architecture": "gfl", "init": {"detector": "t"}},
            "student": {"architecture": "gfl"},
        },
        "teacher.init.detector",
    ),
    ({"kind": "train", "student": {"architecture": "gfl", "init": {"detector": "t"}}}, "student.init.detector"),
    ({"kind": "evaluate", "student": {"detector": "t"}}, "student.detector"),
]


def value_of(document, path):
    for field in path.split("."):
        document = document[field]
    return document


@pytest.mark.parametrize(("spec", "path"), OF_T, ids=[path for _, path in OF_T])
def test_a_job_of_an_admin_keeps_the_detector_of_another_owner_that_it_was_submitted_with(
    service, of_alice, spec, path
):
    job = service.submit(spec | {"dataset": "shapes"})
    assert value_of(job["spec"], path) == of_alice
    service.assert_problem(service.client.delete(f"/detectors/{of_alice}"), 409, "detector_in_use")
    register(service, name="t")
    assert value_of(service.submit(spec | {"dataset": "shapes"})["spec"], path) == "t", "a name of one's own stays"
    service.assert_problem(service.client.delete("/detectors/t"), 409, "detector_in_use")


def test_a_group_a_sweep_and_a_probe_of_an_admin_keep_the_detector_of_another_owner(service, of_alice):
    spec, path = OF_T[0]
    spec = spec | {"dataset": "shapes"}
    variant = service.submit(spec | {"baseline": {"seeds": 2}})["seed_job_ids"][0]
    assert value_of(service.get(f"/jobs/{variant}")["spec"], path) == of_alice
    body = {"spec": spec, "space": {"distillation.feature_ratio": [1, 2]}}
    first, second = (service.client.post("/sweeps", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert value_of(first.json()["spec"]["spec"], path) == of_alice
    probe = service.client.post("/jobs/plan?probe=true", json=spec).json()
    assert value_of(probe["spec"], path) == of_alice


def test_a_job_of_an_admin_keeps_the_unlabelled_data_set_of_another_owner(service, of_alice):
    service.copy_dataset_altered("more", lambda folder, document: None)
    more = service.register("more")["id"]
    service.transact(lambda session: session.execute(update(Dataset).values(owner="alice")))
    spec, _ = OF_T[0]
    job = service.submit(spec | {"dataset": "shapes", "unlabelled": "more"})
    assert job["spec"]["unlabelled"] == more
    assert service.client.delete(f"/datasets/{more}").status_code == 409
