"""What the OpenAPI document promises; tests/hostile/test_hostile_contract.py holds the service to it."""

import pytest

from api.http.auth_middleware import PUBLIC_PATHS


@pytest.fixture
def operations(app):
    paths = app.openapi()["paths"]
    return {(method, path): operation for path, methods in paths.items() for method, operation in methods.items()}


def test_every_operation_says_what_it_is_for(operations):
    assert len(operations) > 40
    for where, operation in operations.items():
        purpose = operation["description"].partition("Needs a key")[0].strip()
        assert operation["summary"], where
        assert len(purpose) > 10, where


def test_every_problem_is_documented_where_it_occurs(operations):
    for (method, path), operation in operations.items():
        answers = operation["responses"].keys()
        assert "default" not in answers
        assert {"400", "500", "503"} <= answers
        assert ({"401", "429"} <= answers) == (path not in PUBLIC_PATHS), path
        assert ("404" in answers) >= ("{" in path), path
        assert ("409" in answers) == (method != "get"), path
        assert ("422" in answers) >= ("requestBody" in operation), path


def test_problems_are_all_of_one_shape(app, operations):
    document = app.openapi()
    problem = {"$ref": "#/components/schemas/ProblemDetails"}
    for operation in operations.values():
        for status, answer in operation["responses"].items():
            if status >= "400":
                told = (
                    document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
                    if "$ref" in answer
                    else answer
                )
                assert told["content"]["application/problem+json"]["schema"] == problem
                assert told["description"]
    assert "detail" in document["components"]["schemas"]["ProblemDetails"]["required"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("get", "/jobs", "read"),
        ("post", "/jobs", "submit"),
        ("get", "/api-keys", "admin"),
        ("post", "/api-keys", "admin"),
    ],
)
def test_the_scope_that_an_operation_needs_is_told(operations, method, path, scope):
    operation = operations[method, path]
    assert operation["description"].endswith(f"Needs a key with the scope `{scope}`.")
    assert ("403" in operation["responses"]) == (scope != "read")


def test_an_open_operation_needs_no_key(operations):
    assert all(
        (operation.get("security") == []) == (path in PUBLIC_PATHS) for (_, path), operation in operations.items()
    )


def test_a_file_can_be_had_in_parts(operations):
    operation = operations["get", "/checkpoints/{checkpoint_id}/content"]
    assert {"200", "206", "304", "416"} <= operation["responses"].keys()
    assert {"range", "if-none-match"} <= {parameter["name"] for parameter in operation["parameters"]}
