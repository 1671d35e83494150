"""Submission accepts a teacher whose classes are mapped by name or not needed, and refuses any other."""

import pytest

from frs.events import Facts

CLASSES = ["circle", "square", "triangle", "star"]
SPEC = {
    "dataset": "shapes",
    "teacher": {"detector": "own"},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
    "schedule": {"epochs": 2},
}
FEATURE_ONLY = {"distillation": {"logit_weight": 0}}


@pytest.fixture
def respond(service, shapes):
    """Return the function that requests a job, or its plan, under a registered detector of these classes."""

    def post(path, classes, **changes):
        body = {"name": "own", "description": {"architecture": "gfl"}, "weights": "teacher.pth", "classes": classes}
        assert service.client.post("/detectors", json=body).status_code == 201
        return service.client.post(path, json=SPEC | changes)

    return post


@pytest.mark.parametrize("path", ["/jobs", "/jobs/plan"])
@pytest.mark.parametrize(
    ("classes", "changes"),
    [
        (["star", "circle", "triangle", "square"], {}),
        (["moon", *CLASSES[::-1], "sun"], {}),
        ([f"class {number}" for number in range(76)] + CLASSES, {"method": "logit"}),
        (["cat", "dog"], {"method": "pkd"}),
        (["cat", "dog"], {"method": "feature"}),
        (CLASSES[:3], FEATURE_ONLY),
        (["cat"], {"method": "boxes"} | FEATURE_ONLY),
        (["cat", "dog"], {"teacher": {"architecture": "gfl", "init": {"detector": "own"}}, "method": "pkd"}),
    ],
)
def test_a_teacher_is_accepted_whose_classes_are_mapped_or_not_needed(respond, path, classes, changes):
    response = respond(path, classes, **changes)
    assert response.status_code == (201 if path == "/jobs" else 200), response.text
    assert path == "/jobs" or not [check for check in response.json()["checks"] if check["level"] == "error"]


@pytest.mark.parametrize(
    ("classes", "changes", "missing"),
    [
        (["cat", "dog"], {}, "lacks 'circle', 'square', 'triangle', 'star' and adds 'cat', 'dog'"),
        (CLASSES[:3], {}, "lacks 'star'"),
        ([*CLASSES[1:], "disc"], {"method": "logit"}, "lacks 'circle' and adds 'disc'"),
        (["Circle", *CLASSES[1:]], {"method": "uniform"}, "lacks 'circle' and adds 'Circle'"),
        (["star"], {"distillation": {"feature_weight": 0}}, "lacks 'circle', 'square', 'triangle'"),
    ],
)
def test_a_teacher_that_lacks_classes_is_refused_if_its_logits_are_distilled(
    service, respond, classes, changes, missing
):
    problem = service.assert_problem(respond("/jobs", classes, **changes), 422, "class_mismatch")
    assert f"Detector own {missing}" in problem["detail"]
    assert "`distillation.logit_weight: 0`" in problem["hint"] and problem["errors"][0]["loc"] == "teacher.detector"


def test_an_evaluated_detector_must_have_the_classes_of_the_data_set(service, respond):
    evaluation = {"kind": "evaluate", "dataset": "shapes", "student": {"detector": "own"}}
    respond("/jobs", ["moon", *CLASSES])
    service.assert_problem(service.client.post("/jobs", json=evaluation), 422, "class_mismatch")


@pytest.mark.parametrize("student", ["last", "best"])
def test_a_report_is_complete_without_the_mAP_of_a_teacher_of_other_classes(service, respond, student):
    lease = service.claim(respond("/jobs", ["cat", "dog"], method="pkd").json()["id"])
    service.record(lease, Facts(values={"teacher_classes": {"total": 2, "used": 0}}))
    service.evaluate(lease, "student", 0.6)
    service.checkpoint(lease)
    report = service.get(f"/jobs/{lease.job_id}/report?student={student}")
    assert report["status"] == "complete" and [row["role"] for row in report["rows"]] == ["student"]
    assert report["facts"]["teacher_classes"] == {"total": 2, "used": 0}
