"""Several jobs side by side."""

import math

import pytest

from frs import events
from store.db import api_keys

DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
}
NOBODY = "job_00000000000000000000000000"


def compare(service, *job_ids, **query):
    return service.get("/compare", params={"jobs": ",".join(job_ids)} | query)


def record(service, lease, steps, **curves):
    batch = [
        events.Metrics(step=step, epoch=1, values={f"train/{key}": value(step) for key, value in curves.items()})
        for step in steps
    ]
    service.record(lease, *batch)


@pytest.fixture
def pair(service, shapes):
    """Two jobs that run."""
    return [service.claim(service.submit(name=name)["id"]) for name in ("a", "b")]


def test_jobs_come_in_the_order_asked_for(service, pair):
    ids = [lease.job_id for lease in pair]
    service.evaluate(pair[0], "student", 0.25)
    service.record(pair[0], events.Facts(values={"student_parameters": 5, "student_flops": 7}))
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
    c = service.submit(schedule={"epochs": 1, "batch_size": 8}, student=DISTILL["student"])
    answer = compare(service, a["id"], b["id"], c["id"])
    found = {row["path"]: row["values"] for row in answer["differences"]}
    assert found == {
        "kind": ["distill", "distill", "train"],
        "method": ["frs", "pkd", "frs"],
        "schedule.batch_size": [4, 8, 8],
        "schedule.train_sizes": [None, [[64, 64]], None],
    } | {path: values for path, values in found.items() if path.startswith("teacher")}
    assert found["teacher.architecture"] == ["gfl", "gfl", None]
    assert [job["method"] for job in answer["jobs"]] == ["frs", "pkd", None]


def test_jobs_of_one_spec_do_not_differ(service, pair):
    assert compare(service, *(lease.job_id for lease in pair))["differences"] == []


def test_curves_share_their_steps_and_a_job_without_a_value_has_null(service, pair):
    a, b = pair
    record(service, a, [2, 4, 6], loss=lambda step: step / 2, only=lambda _: 1.0)
    record(service, b, [3, 6], loss=lambda step: -step)
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


def test_long_curves_are_thinned_out_and_keep_each_jobs_extremes(service, pair):
    a, b = pair
    record(service, a, range(0, 3000, 3), loss=lambda step: 99.0 if step == 777 else math.sin(step))
    record(service, b, range(0, 3000, 2), loss=lambda step: -50.0 if step == 1502 else math.cos(step))
    [curve] = compare(service, a.job_id, b.job_id, max_points=100)["curves"]
    assert curve["sampled"] is True
    assert len(curve["x"]) <= 100
    assert curve["x"] == sorted(set(curve["x"]))
    assert [len(y) for y in curve["y"]] == [len(curve["x"])] * 2
    ours, theirs = (dict(zip(curve["x"], y, strict=True)) for y in curve["y"])
    assert (ours[777], theirs[1502]) == (99.0, -50.0)
    assert theirs[777] is None
    assert all((value is not None) == (step % 3 == 0) for step, value in ours.items())
    assert all((value is not None) == (step % 2 == 0) for step, value in theirs.items())
    assert ours[0] == 0.0 and theirs[0] == 1.0


def test_the_last_evaluations_stand_side_by_side_with_the_best_marked(service, shapes):
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


def test_equals_are_both_the_best_and_one_alone_is_not(service, pair):
    service.evaluate(pair[0], "student", 0.3)
    assert compare(service, *(lease.job_id for lease in pair))["evaluations"][0]["best"] == []
    service.evaluate(pair[1], "student", 0.3)
    rows = compare(service, *(lease.job_id for lease in pair))["evaluations"]
    assert [row["best"][0] for row in rows] == ["bbox_mAP", "bbox_mAP"]


@pytest.mark.parametrize(
    "jobs", ["", NOBODY, f"{NOBODY},", "a,b", ",".join([NOBODY] * 17), f"{NOBODY},{NOBODY};", f"{NOBODY} ,{NOBODY}"]
)
def test_what_is_no_list_of_two_to_sixteen_jobs_is_refused(refusing, jobs):
    refusing.refused(refusing.client.get("/compare", params={"jobs": jobs}), 422, "invalid_request")


def test_a_job_is_not_compared_with_itself(service, shapes):
    job_id = service.submit()["id"]
    response = service.client.get("/compare", params={"jobs": f"{job_id},{job_id}"})
    service.refused(response, 422, "nothing_to_compare")


def test_another_owners_job_is_not_there(service, shapes):
    job_id = service.submit()["id"]
    service.refused(service.client.get("/compare", params={"jobs": f"{job_id},{NOBODY}"}), 404, "job_not_found")
    token = api_keys.new_token()
    service._do(api_keys.add, "stranger", token, owner="stranger", scopes=[api_keys.Scope.SUBMIT])
    other = service.submit()["id"]
    stranger = {"Authorization": f"Bearer {token}"}
    response = service.client.get("/compare", params={"jobs": f"{job_id},{other}"}, headers=stranger)
    service.refused(response, 404, "job_not_found")
