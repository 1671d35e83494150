"""An unknown field is refused with the nearest known one, by the API and by the command line alike."""

import pytest
import yaml
from fastapi.exceptions import RequestValidationError

from api.http.validation import field_errors
from frs.cli.main import read_spec
from frs.errors import InvalidSpec

SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
FIELDS = [
    ({"schedule": {"batchsize": 4}}, "schedule.batchsize", "did you mean `batch_size`?"),
    ({"schedule": {"batch-size": 4}}, "schedule.batch-size", "did you mean `batch_size`?"),
    ({"shedule": {"epochs": 1}}, "shedule", "did you mean `schedule`?"),
    ({"schedule": {"optimizer": {"learningRate": 1}}}, "schedule.optimizer.learningRate", "mean `learning_rate`?"),
    ({"student": {"architecture": "gfl", "backbone": {"dept": 18}}}, "student.backbone.dept", "mean `depth`?"),
    (
        {"student": {"architecture": "gfl", "backbone": {"type": "MobileNetV2", "depth": 18}}},
        "student.backbone.depth",
        "not one of type, widen_factor, norm",
    ),
    (
        {"student": {"architecture": "gfl", "neck": 1}},
        "student.neck",
        "not one of architecture, backbone, neck_channels",
    ),
    ({"student": {"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py", "inti": "random"}}, "student.inti", "mean `init`?"),
    ({"schedule": {"optimizer": {"lr": 0.1}}}, "schedule.optimizer.lr", "not one of name, learning_rate, momentum"),
    (
        {"resources": {"gpus": 1}},
        "resources.gpus",
        "not one of nodes, devices, processes, loader_workers, max_minutes.",
    ),
]


@pytest.mark.parametrize(("change", "loc", "text"), FIELDS)
def test_the_api_names_the_nearest_field(shared_service, change, loc, text):
    response = shared_service.client.post("/jobs", json=SPEC | change)
    [error] = shared_service.assert_problem(response, 422, "invalid_request")["errors"]
    assert (error["loc"], error["code"]) == (loc, "extra_forbidden")
    assert error["message"].startswith("Unknown field: ") and text in error["message"]


@pytest.mark.parametrize(("change", "loc", "text"), FIELDS)
def test_the_command_line_names_the_nearest_field(tmp_path, change, loc, text):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC | change))
    with pytest.raises(InvalidSpec) as error:
        read_spec(str(tmp_path / "spec.yaml"), [])
    assert loc.rpartition(".")[2] in error.value.message and text.rstrip(".") in error.value.message


@pytest.mark.parametrize(
    ("method", "path", "body", "text"),
    [
        ("POST", "/datasets", {"name": "x", "tran": {}}, "did you mean `train`?"),
        ("POST", "/datasets", {"name": "x", "train": {"image": "a", "annotations": "b"}}, "did you mean `images`?"),
        ("POST", "/detectors", {"name": "x", "weight": "a.pth"}, "did you mean `weights`?"),
        ("POST", "/api-keys", {"name": "x", "scope": ["read"]}, "did you mean `scopes`?"),
        ("PATCH", "/jobs/job_00000000000000000000000000", {"tag": []}, "did you mean `tags`?"),
    ],
)
def test_other_requests_name_the_nearest_field_too(shared_service, method, path, body, text):
    problem = shared_service.assert_problem(
        shared_service.client.request(method, path, json=body), 422, "invalid_request"
    )
    assert text in str(problem["errors"])


@pytest.mark.parametrize("name", ["x" * 10_000, "<script>", "\u202egnp", ""])
def test_a_field_name_of_any_kind_is_refused_without_being_repeated(shared_service, name):
    response = shared_service.client.post("/jobs", json=SPEC | {name: 1})
    problem = shared_service.assert_problem(response, 422, "invalid_request")
    assert not name or name not in str(problem)


def test_the_path_of_an_error_that_is_deeper_than_any_field_is_returned_as_it_is() -> None:
    body: dict[str, object] = {}
    for _ in range(60):  # the search for names of union members would try 2^60 paths
        body = {"a": body}
    detail = {"type": "int_type", "loc": ("body", *"a" * 60), "msg": "Input should be a valid integer", "input": None}
    [error] = field_errors(RequestValidationError([detail], body=body), None)
    assert error.loc == ".".join("a" * 60)
