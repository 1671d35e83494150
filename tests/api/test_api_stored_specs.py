"""Jobs that other versions have stored are listed and shown."""

import json
from pathlib import Path

import pytest
from sqlalchemy import update

from frs.spec import JobSpec
from store.db.sweep_tables import Sweep
from store.db.tables import Detector, Job, WorkerRequest
from store.sweeps.advance import advance

GFL = {"architecture": "gfl"}
SPEC = {"dataset": "shapes", "teacher": GFL, "student": GFL, "schedule": {"epochs": 1}}
SPECS = json.loads((Path(__file__).parents[1] / "support" / "specs_of_0_2.json").read_text())
"""Specs of each kind as version 0.2.0 stored them, with its defaults."""


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_of_the_release_is_valid_and_keeps_its_values(name):
    assert JobSpec.model_validate(SPECS[name]).model_dump(mode="json") == SPECS[name]


@pytest.mark.parametrize("changes", [{"invented": 1}, {"kind": "invented"}, {"distillation": {"feature_ratio": -1}}])
def test_a_job_whose_spec_this_version_cannot_read_is_shown_as_stored(service, shapes, changes):
    others, job_id = service.submit()["id"], service.submit()["id"]
    stored = service.get(f"/jobs/{job_id}")["spec"] | changes
    service.transact(lambda session: session.execute(update(Job).where(Job.id == job_id).values(spec=stored)))
    assert service.get(f"/jobs/{job_id}")["spec"] == stored
    assert {job["id"] for job in service.get("/jobs")["data"]} == {others, job_id}
    assert service.client.post(f"/jobs/{job_id}/cancel").json()["spec"] == stored


@pytest.fixture
def unreadable(service, shapes):
    """The ID of a succeeded job whose student this version cannot read."""
    job = service.submit()
    service.checkpoint(lease := service.claim(job["id"]))
    service.finish(lease)
    spec = job["spec"] | {"student": {"architecture": "invented"}}
    service.transact(lambda session: session.execute(update(Job).values(spec=spec)))
    return job["id"]


def test_a_job_whose_spec_this_version_cannot_read_is_not_exported(service, unreadable):
    response = service.client.post(f"/jobs/{unreadable}/exports")
    assert (response.status_code, response.json()["code"]) == (409, "spec_unreadable")


@pytest.mark.parametrize(
    ("loc", "changes"),
    [
        ("student.job", {"kind": "evaluate", "student": {"job": ...}}),
        ("student.job", {"kind": "quantize", "student": {"job": ...}}),
        ("student.init.job", {"kind": "train", "student": GFL | {"init": {"job": ...}}}),
        ("teacher.job", {"kind": "distill", "student": GFL, "teacher": {"job": ...}}),
    ],
)
def test_a_job_whose_student_this_version_cannot_read_is_refused_in_other_specs(service, unreadable, loc, changes):
    spec = json.loads(json.dumps({"dataset": "shapes"} | changes, default=lambda _: unreadable))
    response = service.client.post("/jobs", json=spec)
    assert (response.status_code, response.json()["code"]) == (422, "spec_unreadable")
    assert response.json()["errors"][0]["loc"] == loc


def test_the_student_of_a_job_that_this_version_cannot_read_is_not_registered(service, unreadable):
    response = service.client.post("/detectors", json={"name": "invented", "job": unreadable})
    assert service.assert_problem(response, 422, "spec_unreadable")["errors"][0]["loc"] == "job"
    assert service.get("/detectors")["data"] == []


def test_a_detector_that_this_version_cannot_read_is_shown_as_stored(service, shapes):
    body = {"name": "later", "description": GFL, "weights": "teacher.pth"}
    others = service.client.post("/detectors", json=body | {"name": "others"}).json()["id"]
    path = f"/detectors/{service.client.post('/detectors', json=body).json()['id']}"
    stored = service.get(path)["description"] | {"invented": 1}
    change = update(Detector).where(Detector.name == "later").values(description=stored)
    service.transact(lambda session: session.execute(change))
    assert service.get(path)["description"] == stored
    assert [detector["id"] for detector in service.get("/detectors")["data"]] == [path.rpartition("/")[2], others]
    assert service.client.delete(path).status_code == 204


def test_a_probe_that_this_version_cannot_read_is_shown_as_stored(service, shapes):
    path = service.client.post("/jobs/plan?probe=true", json=SPEC).headers["Location"]
    stored = service.get(path)["spec"] | {"invented": 1}
    request = {"spec": stored, "key_id": None, "dataset_id": shapes["id"]}
    service.transact(lambda session: session.execute(update(WorkerRequest).values(request=request)))
    assert service.get(path)["spec"] == stored


def test_a_sweep_whose_spec_this_version_cannot_read_is_shown_and_says_so(service, shapes):
    sweep = {"spec": SPEC, "space": {"schedule.optimizer.learning_rate": [0.1, 0.01]}, "seeds": 1}
    path = f"/sweeps/{service.client.post('/sweeps', json=sweep).json()['id']}"
    stored = service.get(path)["spec"] | {"invented": 1}
    service.transact(lambda session: session.execute(update(Sweep).values(spec=stored)))
    service.transact(advance, service.settings, path.rpartition("/")[2])
    shown = service.get(path)
    assert (shown["spec"], shown["table"], shown["error"]["code"]) == (stored, [], "spec_unreadable")
    assert service.get("/sweeps")["data"][0]["settings"] == 0
