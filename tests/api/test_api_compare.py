"""Comparison of several jobs."""

import math

import pytest

from frs import events
from store.db import api_keys

DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
}
UNKNOWN_JOB = "job_00000000000000000000000000"


def compare(service, *job_ids, **query):
    return service.get("/compare", params={"jobs": ",".join(job_ids)} | query)


def record_metrics(service, lease, steps, **curves):
    batch = [
        events.Metrics(step=step, epoch=1, values={f"train/{key}": value(step) for key, value in curves.items()})
        for step in steps
    ]
    service.record(lease, *batch)


@pytest.fixture
def running_pair(service, shapes):
    """Leases of two running jobs."""
    return [service.claim(service.submit(name=name)["id"]) for name in ("a", "b")]


def test_jobs_are_in_the_order_of_the_request(service, running_pair):
    ids = [lease.job_id for lease in running_pair]
    service.evaluate(running_pair[0], "student", 0.25)
    service.record(running_pair[0], events.Facts(values={"student_parameters": 5, "student_flops": 7}))
    answer = compare(service, *reversed(ids))
    assert [job["id"] for job in answer["jobs"]] == ids[::-1]
    assert [job["mAP"] for job in answer["jobs"]] == [None, 0.25]
    assert (answer["jobs"][1]["parameters"], answer["jobs"][1]["flops"]) == (5, 7)
    assert (answer["jobs"][0]["name"], answer["jobs"][0]["status"], answer["jobs"][0]["method"]) == (
        "b",
        "running",
        None,
    )
    assert "verdict" not in answer["jobs"][0]


def test_differences_are_named_by_their_path(service, shapes):
    a = service.submit(DISTILL, schedule={"epochs": 1, "batch_size": 4}, name="a", tags=["x"], priority=2)
    b = service.submit(DISTILL, schedule={"epochs": 1, "batch_size": 8, "train_sizes": [[64, 64]]}, method="pkd")
    limit = {"max_detections": 300}
    c = service.submit(schedule={"epochs": 1, "batch_size": 8}, student=DISTILL["student"], evaluation=limit)
    answer = compare(service, a["id"], b["id"], c["id"])
    differences = {row["path"]: row["values"] for row in answer["differences"]}
    assert differences == {
        "kind": ["distill", "distill", "train"],
        "method": ["frs", "pkd", "frs"],
        "evaluation.max_detections": [100, 100, 300],
        "schedule.batch_size": [4, 8, 8],
        "schedule.train_sizes": [None, [[64, 64]], None],
    } | {path: values for path, values in differences.items() if path.startswith("teacher")}
    assert differences["teacher.architecture"] == ["gfl", "gfl", None]
    assert [job["method"] for job in answer["jobs"]] == ["frs", "pkd", None]


def test_jobs_with_equal_specs_have_no_differences(service, running_pair):
    assert compare(service, *(lease.job_id for lease in running_pair))["differences"] == []


def test_curves_share_their_steps_and_missing_values_are_null(service, running_pair):
    a, b = running_pair
    record_metrics(service, a, [2, 4, 6], loss=lambda step: step / 2, only=lambda _: 1.0)
    record_metrics(service, b, [3, 6], loss=lambda step: -step)
    answer = compare(service, a.job_id, b.job_id)
    curves = {curve["key"]: curve for curve in answer["curves"]}
    assert curves["train/loss"] == {
        "key": "train/loss",
        "x": [2, 3, 4, 6],
        "y": [[1.0, None, 2.0, 3.0], [None, -3.0, None, -6.0]],
        "sampled": False,
    }
    assert curves["train/only"]["y"] == [[1.0, 1.0, 1.0], [None, None, None]]
    only = compare(service, a.job_id, b.job_id, keys="train/only,train/none")
    assert [curve["key"] for curve in only["curves"]] == ["train/only"]


def test_long_curves_are_downsampled_and_keep_the_extremes_of_each_job(service, running_pair):
    a, b = running_pair
    record_metrics(service, a, range(0, 3000, 3), loss=lambda step: 99.0 if step == 777 else math.sin(step))
    record_metrics(service, b, range(0, 3000, 2), loss=lambda step: -50.0 if step == 1502 else math.cos(step))
    [curve] = compare(service, a.job_id, b.job_id, max_points=100)["curves"]
    assert curve["sampled"] is True
    assert len(curve["x"]) <= 100
    assert curve["x"] == sorted(set(curve["x"]))
    assert [len(y) for y in curve["y"]] == [len(curve["x"])] * 2
    values_a, values_b = (dict(zip(curve["x"], y, strict=True)) for y in curve["y"])
    assert (values_a[777], values_b[1502]) == (99.0, -50.0)
    assert values_b[777] is None
    assert all((value is not None) == (step % 3 == 0) for step, value in values_a.items())
    assert all((value is not None) == (step % 2 == 0) for step, value in values_b.items())
    assert values_a[0] == 0.0 and values_b[0] == 1.0


def test_the_best_of_the_last_evaluations_are_marked(service, shapes):
    leases = [service.claim(service.submit()["id"]) for _ in range(3)]
    service.evaluate(leases[0], "student", 0.9, step=5)
    service.evaluate(leases[0], "student", 0.2)
    service.evaluate(leases[0], "teacher", 0.9)
    service.evaluate(leases[1], "student", 0.3)
    rows = compare(service, *(lease.job_id for lease in leases))["evaluations"]
    assert [(row["job_id"], row["metrics"]["bbox_mAP"]) for row in rows] == [
        (leases[0].job_id, 0.2),
        (leases[1].job_id, 0.3),
    ]
    assert rows[0]["best"] == rows[0]["best_classes"] == []
    assert rows[1]["best"] == ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m"]
    assert set(rows[1]["best_classes"]) == {"circle", "square", "triangle", "star"}


def test_scores_on_different_data_sets_are_not_compared(service, shapes):
    service.copy_dataset_altered("other", lambda folder, document: None)
    service.register("other")
    leases = [service.claim(service.submit(dataset=name)["id"]) for name in ("shapes", "other")]
    service.evaluate(leases[0], "student", 0.2)
    ids = [lease.job_id for lease in leases]
    assert compare(service, *ids)["comparable"] is True, "one evaluation alone"
    service.evaluate(leases[1], "student", 0.3)
    answer = compare(service, *ids)
    assert answer["comparable"] is False
    assert [row["best"] + row["best_classes"] for row in answer["evaluations"]] == [[], []]


def test_equal_values_are_both_best_and_a_single_value_is_not(service, running_pair):
    service.evaluate(running_pair[0], "student", 0.3)
    assert compare(service, *(lease.job_id for lease in running_pair))["evaluations"][0]["best"] == []
    service.evaluate(running_pair[1], "student", 0.3)
    rows = compare(service, *(lease.job_id for lease in running_pair))["evaluations"]
    assert [row["best"][0] for row in rows] == ["bbox_mAP", "bbox_mAP"]


@pytest.mark.parametrize(
    "jobs",
    [
        "",
        UNKNOWN_JOB,
        f"{UNKNOWN_JOB},",
        "a,b",
        ",".join([UNKNOWN_JOB] * 17),
        f"{UNKNOWN_JOB},{UNKNOWN_JOB};",
        f"{UNKNOWN_JOB} ,{UNKNOWN_JOB}",
    ],
)
def test_anything_but_two_to_sixteen_job_ids_is_rejected(shared_service, jobs):
    shared_service.assert_problem(shared_service.client.get("/compare", params={"jobs": jobs}), 422, "invalid_request")


def test_a_job_cannot_be_compared_with_itself(service, shapes):
    job_id = service.submit()["id"]
    response = service.client.get("/compare", params={"jobs": f"{job_id},{job_id}"})
    service.assert_problem(response, 422, "nothing_to_compare")


def test_a_job_of_another_owner_is_not_found(service, shapes):
    job_id = service.submit()["id"]
    service.assert_problem(
        service.client.get("/compare", params={"jobs": f"{job_id},{UNKNOWN_JOB}"}), 404, "job_not_found"
    )
    token = api_keys.new_token()
    service.transact(api_keys.add, "stranger", token, owner="stranger", scopes=[api_keys.Scope.SUBMIT])
    other = service.submit()["id"]
    stranger = {"Authorization": f"Bearer {token}"}
    response = service.client.get("/compare", params={"jobs": f"{job_id},{other}"}, headers=stranger)
    service.assert_problem(response, 404, "job_not_found")
