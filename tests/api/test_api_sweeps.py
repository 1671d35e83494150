"""Sweeps through the API: from a posted grid to the verdict on new seeds."""

import json

import pytest

from frs import events
from frs.evaluation.verdict import Comparison, ImageInterval, Pair, SeedInterval
from store.sweeps.advance import advance

GFL = {"architecture": "gfl"}
SPEC = {"dataset": "shapes", "teacher": GFL, "student": GFL, "schedule": {"epochs": 1}}
RATE = "schedule.optimizer.learning_rate"
SWEEP = {"name": "rates", "spec": SPEC, "space": {RATE: [0.1, 0.01]}, "seeds": 2, "concurrency": 8}


@pytest.fixture
def post(service, shapes):
    """Post a sweep with some fields changed and return the answer."""
    return lambda **fields: service.client.post("/sweeps", json=SWEEP | fields)


def run(service, job_id, mAP):
    lease = service.claim(job_id)
    service.evaluate(lease, "teacher", 0.6)
    service.evaluate(lease, "student", mAP)
    service.finish(lease)


def compare(service, job_id, *gains):
    """Run a comparison that finds these gains; its interval over seeds is the mean +- 0.01."""
    mean = sum(gains) / len(gains)
    interval = SeedInterval(low=mean - 0.01, high=mean + 0.01, mean=mean, level=0.95, n=len(gains))
    comparison = Comparison(
        gain=mean,
        image_interval=ImageInterval(low=mean, high=mean, level=0.95, resamples=1, images=1, by_number={}),
        seed_interval=interval,
        pairs=[Pair(seed=2 + i, student=0.5 + gain, baseline=0.5, gain=gain) for i, gain in enumerate(gains)],
    )
    lease = service.claim(job_id)
    service.record(lease, events.Facts(values={"comparison": comparison.model_dump(mode="json")}))
    service.finish(lease)


def test_a_sweep_from_the_grid_to_the_verdict(service, post):
    answer = post()
    assert answer.status_code == 201 and answer.headers["location"] == f"/sweeps/{answer.json()['id']}"
    sweep = answer.json()
    assert (sweep["status"], sweep["settings"], sweep["trials_posted"], sweep["trials_ended"]) == ("searching", 2, 4, 0)
    path = f"/sweeps/{sweep['id']}"
    trials = service.get(path)["trials"]
    tagged = service.get("/jobs", params={"tag": sweep["id"]})["data"]
    assert {job["id"] for job in tagged} == {trial["job_id"] for trial in trials}
    for trial, mAP in zip(trials, (0.30, 0.32, 0.40, 0.44), strict=True):
        run(service, trial["job_id"], mAP)
    service.transact(advance, service.settings, sweep["id"])

    searched = service.get(path)
    assert (searched["status"], searched["search_end"]) == ("confirming", "complete")
    first, second = searched["table"]
    assert first == searched["best"] and first["values"] == {RATE: 0.01}
    assert (first["mAP"], second["mAP"]) == (pytest.approx(0.42), pytest.approx(0.31))
    assert first["interval"]["low"] == pytest.approx(0.42 - 12.7062 * 0.02, abs=1e-5), "two seeds measure little"
    assert searched["confirmation"]["verdict"] is None and searched["confirmation"]["first_seed"] == 2

    confirming = service.get(f"/jobs/{searched['confirm_job_id']}")
    for job_id in [confirming["id"], *confirming["seed_job_ids"], *confirming["baseline_job_ids"]]:
        run(service, job_id, 0.5)
    compare(service, confirming["comparison_job_id"], 0.02, 0.03, 0.04)
    service.transact(advance, service.settings, sweep["id"])

    result = service.get(path)
    confirmation = result["confirmation"]
    assert (result["status"], confirmation["verdict"]) == ("succeeded", "improved")
    assert confirmation["verdict_by"] == "seeds" and confirmation["interval"]["low"] == pytest.approx(0.02)
    assert confirmation["comparison"]["gain"] == pytest.approx(0.03) and confirmation["mAP"] == pytest.approx(0.53)
    assert "took no part in the choice" in confirmation["caveat"]
    assert service.get(f"/jobs/{confirming['id']}/report")["verdict"] == "improved"
    assert result["finished_at"] and result["trials_failed"] == 0


def test_a_grid_with_an_invalid_point_is_refused_whole_with_its_field(service, post):
    problem = service.assert_problem(post(space={RATE: [0.1, -1], "method": ["frs", "pkd"]}), 422, "invalid_spec")
    assert problem["errors"][0]["loc"] == f"space.{RATE}"
    assert problem["detail"].startswith("Setting 3 of 4 is invalid: Input should be greater than 0")
    assert service.get("/jobs")["data"] == service.get("/sweeps")["data"] == []


@pytest.mark.parametrize(
    ("space", "loc"),
    [
        ({"owner": ["mallory"]}, "space.owner"),
        ({"__class__": ["x"]}, "space.__class__"),
        ({"schedule.image_size.0": [64]}, "space.schedule.image_size.0"),
        ({"student.init": [{"weights": "teacher.pth"}]}, "space.student.init"),
        ({"schedule.batch_size": list(range(1, 101)), "schedule.accumulate": list(range(1, 101))}, "space"),
    ],
)
def test_a_hostile_space_is_refused(service, post, space, loc):
    problem = service.assert_problem(post(space=space), 422, "invalid_spec")
    assert [error["loc"] for error in problem["errors"]] == [loc]


@pytest.mark.parametrize("depth", [7, 50, 400, 900])
def test_deeply_nested_values_are_refused(service, post, depth):
    value = json.loads("[" * depth + "]" * depth)
    answer = post(space={"schedule.optimizer": [value, value]})
    assert answer.status_code in (400, 422) and answer.json()["hint"]


def test_a_huge_number_is_refused(service, post):
    service.assert_problem(post(space={"distillation.feature_ratio": [10**400]}), 422, "invalid_spec")


def test_a_sweep_whose_jobs_would_fill_the_database_is_refused(service, post):
    spec = SPEC | {"schedule": {"lr_schedule": {"milestones": list(range(1, 20_000))}}}
    problem = service.assert_problem(post(spec=spec), 422, "invalid_spec")
    assert "65,536" in problem["detail"]


def test_strict_json_and_unknown_fields_are_checked_as_everywhere(service, post, shapes):
    body = '{"spec": {"dataset": "shapes"}, "space": {"schedule.flip_prob": [NaN]}}'
    headers = {"Content-Type": "application/json"}
    service.assert_problem(service.client.post("/sweeps", content=body, headers=headers), 400, "invalid_json")
    problem = service.assert_problem(post(sample=3), 422, "invalid_request")
    assert "did you mean `samples`" in problem["detail"]


def test_errors_of_the_spec_name_their_field_below_spec(service, post):
    problem = service.assert_problem(post(spec=SPEC | {"dataset": "none"}), 422, "dataset_not_found")
    assert problem["errors"][0]["loc"] == "spec.dataset"
    problem = service.assert_problem(post(spec=SPEC | {"teacher": {"detector": "none"}}), 422, "detector_not_found")
    assert problem["errors"][0]["loc"] == "spec.teacher.detector"


def test_classes_are_compared_if_a_method_of_the_space_distils_logits(service, post, shapes):
    """The spec's own method does not need the teacher's classes, but one of the searched ones does."""
    weights = {"name": "cats", "description": GFL, "weights": "teacher.pth", "classes": ["cat"]}
    assert service.client.post("/detectors", json=weights).status_code == 201
    spec = SPEC | {"method": "feature", "teacher": {"detector": "cats"}}
    assert post(spec=spec, space={"method": ["feature"]}).status_code == 201
    service.assert_problem(post(spec=spec, space={"method": ["feature", "frs"]}), 422, "class_mismatch")


def test_a_repeated_request_returns_the_first_sweep(service, post):
    headers = {"Idempotency-Key": "k"}
    answers = [service.client.post("/sweeps", json=SWEEP, headers=headers) for _ in range(2)]
    assert [answer.json()["id"] for answer in answers] == [answers[0].json()["id"]] * 2
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert len(service.get("/jobs")["data"]) == 4
    other = service.client.post("/sweeps", json=SWEEP | {"seeds": 1}, headers=headers)
    service.assert_problem(other, 422, "idempotency_key_reused")


def test_stop_resume_and_delete(service, post):
    sweep = post().json()
    path = f"/sweeps/{sweep['id']}"
    service.assert_problem(service.client.delete(path), 409, "sweep_action_not_allowed")
    assert service.client.post(f"{path}/stop").json()["status"] == "stopped"
    assert {job["status"] for job in service.get("/jobs")["data"]} == {"paused"}
    assert service.client.post(f"{path}/resume").json()["status"] == "searching"
    assert {job["status"] for job in service.get("/jobs")["data"]} == {"queued"}
    service.client.post(f"{path}/stop")
    assert service.client.delete(path).status_code == 204
    service.assert_problem(service.client.get(path), 404, "sweep_not_found")
    assert {job["status"] for job in service.get("/jobs")["data"]} == {"cancelled"}


def test_a_failed_trial_is_shown_with_its_error(service, post):
    sweep = post().json()
    trial = service.get(f"/sweeps/{sweep['id']}")["trials"][0]
    service.finish(
        service.claim(trial["job_id"]),
        "failed",
        end_reason="diverged",
        error=events.ErrorInfo(code="diverged", message="Not finite."),
    )
    service.transact(advance, service.settings, sweep["id"])
    result = service.get(f"/sweeps/{sweep['id']}")
    assert result["trials"][0]["error"]["code"] == "diverged" and result["trials_failed"] == 1
    assert result["table"][0]["mAP"] is None


def test_sweeps_are_listed_newest_first_page_by_page(service, post):
    ids = [post(concurrency=1).json()["id"] for _ in range(3)]
    page = service.get("/sweeps", params={"limit": 2})
    rest = service.get("/sweeps", params={"cursor": page["next_cursor"]})
    assert [sweep["id"] for sweep in page["data"] + rest["data"]] == ids[::-1]


def test_the_number_of_active_sweeps_of_an_owner_is_limited(service, post, monkeypatch):
    monkeypatch.setattr("api.sweeps.service.MAX_ACTIVE", 1)
    sweep = post().json()
    service.assert_problem(post(), 429, "quota_exceeded")
    service.client.post(f"/sweeps/{sweep['id']}/stop")
    assert post().status_code == 201
    service.assert_problem(service.client.post(f"/sweeps/{sweep['id']}/resume"), 429, "quota_exceeded")
    assert service.get(f"/sweeps/{sweep['id']}")["status"] == "stopped"


def test_a_sweep_needs_room_for_its_confirming_run_group(service, post, settings):
    key = service.client.post(
        "/api-keys", json={"name": "small", "owner": "admin", "max_active_jobs": 6, "scopes": ["submit"]}
    ).json()
    answer = service.client.post("/sweeps", json=SWEEP, headers={"Authorization": f"Bearer {key['token']}"})
    service.assert_problem(answer, 429, "quota_exceeded")


def test_a_priority_needs_its_scope(service, post):
    key = service.client.post("/api-keys", json={"name": "low", "owner": "admin", "scopes": ["submit"]}).json()
    body = SWEEP | {"spec": SPEC | {"priority": 5}}
    answer = service.client.post("/sweeps", json=body, headers={"Authorization": f"Bearer {key['token']}"})
    service.assert_problem(answer, 403, "scope_missing")


def test_requests_about_a_missing_sweep(service, shapes):
    missing = f"/sweeps/sweep_{'0' * 26}"
    for answer in (
        service.client.get(missing),
        service.client.post(f"{missing}/stop"),
        service.client.post(f"{missing}/resume"),
        service.client.delete(missing),
    ):
        service.assert_problem(answer, 404, "sweep_not_found")
    service.assert_problem(service.client.get("/sweeps/none"), 404, "not_found")
